"""The commands beside training: corpus, export, evaluate, plot."""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_CORPUS = HERE / "data" / "corpus.npz"
DEFAULT_MODEL = HERE.parent / "models" / "msa-mini"


def corpus(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m training corpus", description="Pack this machine's text."
    )
    parser.add_argument("action", choices=("pack",))
    parser.add_argument("--out", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--megabytes", type=float, default=35)
    parser.add_argument(
        "--fresh-tokenizer", type=Path, help="train a new tokenizer and write it here"
    )
    options = parser.parse_args(arguments)
    from .corpus import pack

    pack(options.out, options.fresh_tokenizer, options.megabytes, bool(options.fresh_tokenizer))
    return 0


def export(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m training export", description="Checkpoint to model folder."
    )
    parser.add_argument("run", type=Path, help="folder with checkpoint.pt")
    parser.add_argument("--out", type=Path, default=DEFAULT_MODEL)
    options = parser.parse_args(arguments)
    import torch

    from .config import ModelConfig
    from .export import export_folder, write_json
    from .model import MsaModel

    state = torch.load(options.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    scratch = options.run / "config.json"
    write_json(scratch, state["config"])
    model = MsaModel(ModelConfig.from_transformers(scratch))
    model.load_state_dict(state["model"])
    export_folder(model, options.out)
    print(
        f"step {state['step']}, {state['tokens']} tokens, {state['elapsed']:.0f} s -> {options.out}"
    )
    return 0


def evaluate(arguments):
    from .evaluate import TASKS

    parser = argparse.ArgumentParser(
        prog="python -m training evaluate", description="Accuracy and recalls."
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--tasks", nargs="+", default=["needle"], choices=TASKS)
    parser.add_argument("--lengths", nargs="+", type=int, default=[2048, 8192])
    parser.add_argument("--documents", type=int, default=5)
    parser.add_argument("--facts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dense", action="store_true", help="dense attention on the same weights")
    parser.add_argument("--recall", action="store_true", help="block and score recall too")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    import torch

    from .corpus import Corpus
    from .evaluate import evaluate as run_evaluation
    from .evaluate import operators_for
    from .export import load_folder

    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_folder(options.model, operators_for(device)).to(device).eval()
    text = Corpus(options.corpus)
    results = []
    for length in options.lengths:
        for task in options.tasks:
            result = run_evaluation(
                model,
                text,
                task,
                length,
                options.documents,
                options.facts,
                options.seed,
                not options.dense,
                options.recall,
            )
            results.append(result)
            depth = " ".join(f"{d['right']}/{d['asked']}" for d in result["by_depth"])
            line = (
                f"{task:16} {length:7} {result['attention']:6} {result['right']:4}/{result['asked']:<4} "
                f"{result['accuracy']:7.1%}  first token {result['first_token_accuracy']:7.1%}  by depth {depth}"
            )
            if options.recall and "block_recall" in result:
                line += (
                    f"  block recall {result['block_recall']:.3f} ({result['block_recall_without_local']:.3f})"
                    f"  score recall {result['score_recall']:.3f} ({result['score_recall_without_local']:.3f})"
                )
            print(line, flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def plot(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m training plot", description="Curves of a run as a picture."
    )
    parser.add_argument("log", type=Path, nargs="+", help="log.jsonl of one or more runs")
    parser.add_argument("--out", type=Path, default=DEFAULT_MODEL / "curves.png")
    options = parser.parse_args(arguments)
    from .plot import plot_logs

    plot_logs(options.log, options.out)
    print(options.out, file=sys.stderr)
    return 0
