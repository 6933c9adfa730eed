"""python -m training --preset ...; python -m training corpus|export|evaluate|plot: see training/README.md."""

import argparse
import json
import os
import sys
from pathlib import Path

from .presets import PRESETS
from .routes import ROUTES, check_route

HERE = Path(__file__).resolve().parent


def train_parser():
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train the small MSA model."
    )
    parser.add_argument("--preset", required=True, choices=tuple(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, help="time budget; stages and learning rate fit it"
    )
    parser.add_argument("--steps", type=int, help="budget in steps instead of seconds")
    parser.add_argument(
        "--out", type=Path, help="folder of log and checkpoint (default: training/runs/PRESET-SEED)"
    )
    parser.add_argument(
        "--corpus", type=Path, default=HERE / "data" / "corpus.npz", help="made on first use"
    )
    parser.add_argument("--route", choices=ROUTES, help="dense all the way, or warm-up then sparse")
    parser.add_argument("--init", type=Path, help="start from the weights of this model folder")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--export", type=Path, help="write the model folder here when done")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--workers", type=int, help="processes that make batches")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    return parser


def ensure_corpus(path):
    if not path.exists():
        from .corpus import pack

        print(f"[corpus] packing text of this machine into {path}", file=sys.stderr)
        pack(path)


def train(arguments):
    options = train_parser().parse_args(arguments)
    check_route(options.route, options.init)
    ensure_corpus(options.corpus)
    import torch

    from .train import Run

    threads = options.threads or PRESETS[options.preset].threads
    if threads:
        torch.set_num_threads(threads)
    out = options.out or HERE / "runs" / f"{options.preset}-{options.seed}"
    run = Run(
        PRESETS[options.preset],
        options.seed,
        out,
        options.corpus,
        steps=options.steps,
        seconds=options.seconds,
        device=options.device,
        workers=options.workers,
        route=options.route,
    )
    if run.ranks.leads:
        write_command(out, arguments, options.seed, run)
    if options.init:
        from .export import load_folder

        run.model.load_state_dict(load_folder(options.init).state_dict())
    if options.resume:
        run.resume()
    run.train()
    if options.export and run.ranks.leads:
        from .export import export_folder

        export_folder(run.model, options.export)
    if options.preset == "ci" and options.route is None and run.ranks.leads:
        from .check import check_ci

        return check_ci(run)
    return 0


def write_command(out, arguments, seed, run):
    import torch

    with open(out / "command.json", "w", encoding="utf-8") as handle:
        json.dump(
            {
                "command": "python -m training " + " ".join(arguments),
                "seed": seed,
                "torch": torch.__version__,
                "corpus": run.loader.corpus.manifest,
            },
            handle,
            indent=2,
        )


def main():
    arguments = sys.argv[1:]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if arguments and arguments[0] in ("corpus", "export", "evaluate", "plot"):
        from . import commands

        return getattr(commands, arguments[0])(arguments[1:])
    try:
        return train(arguments)
    except ValueError as error:
        if not str(error).startswith("[training]"):
            raise
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
