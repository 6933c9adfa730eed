"""One run: stages of growing length, dense steps (warm-up) and sparse steps, LM loss plus the KL of every layer.

Progress through the run is step / steps where a number of steps is given, else seconds / budget; stages and the
learning rate follow it, so a run ends in its time whatever the machine's speed.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

from .items import load_tasks, phrasing_tokens
from .loader import Loader
from .model import MsaModel, Operators
from .optimizer import make_optimizers
from .parallel import Ranks
from .routes import step_of
from .structure import structured_start
from .tokenizer import ASSISTANT, load_tokenizer


def mean_or_none(values):
    return values.mean().item() if values.numel() else None


def shown(value, form):
    return "-" if value is None else format(value, form)


class Run:
    def __init__(
        self,
        preset,
        seed,
        folder,
        corpus,
        steps=None,
        seconds=None,
        device=None,
        workers=None,
        compiled=None,
        autocast=None,
        log_every=20,
        route=None,
    ):
        self.preset, self.seed, self.route = preset, seed, route
        self.steps = steps or (0 if seconds else preset.steps)
        self.seconds = seconds or preset.seconds
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.ranks = Ranks(self.device)
        workers = preset.workers if workers is None else workers
        self.loader = Loader(corpus, seed, preset.stages, workers, self.ranks.rank)
        cuda = self.device == "cuda"
        if cuda:
            torch.set_float32_matmul_precision("high")
        self.autocast = cuda if autocast is None else autocast
        self.compiled = cuda if compiled is None else compiled
        self.model = MsaModel(
            preset.model, Operators(self.compiled, fused=cuda, chunk=preset.chunk)
        )
        self.model.initialise(seed)
        if preset.structured:
            structured_start(self.model, seed, phrasing_tokens(load_tokenizer(), load_tasks()))
        self.model.to(self.device)
        self.optimizers = make_optimizers(self.model, preset.rates)
        self.step, self.tokens, self.elapsed = 0, 0, 0.0
        self.log_every = log_every
        self.saved = 0.0
        self.records = []

    def progress(self):
        return self.step / self.steps if self.steps else self.elapsed / self.seconds

    def stage_number(self, progress):
        end = 0.0
        for number, stage in enumerate(self.preset.stages):
            end += stage.share
            if progress < end:
                return number, end
        return len(self.preset.stages) - 1, 1.0

    def rate(self, progress):
        warm = min(1.0, (self.step + 1) / self.preset.warmup_steps)
        decay = min(1.0, max(0.02, (1.0 - progress) / self.preset.decay_share))
        return warm * decay

    def train_step(self, number):
        stage = self.preset.stages[number]
        batch = self.loader.get(number, self.step)
        tensors = {
            name: torch.from_numpy(value).to(self.device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, np.ndarray)
        }
        mixed = random.Random(f"{self.seed}/{self.step}").random() < stage.sparse_share
        sparse, with_kl = step_of(self.route, self.progress(), mixed)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            hidden, kl, _ = self.model(
                tensors["ids"],
                tensors["positions"],
                sparse,
                tensors["kl"].long() if with_kl else None,
            )
            rows = hidden.reshape(-1, hidden.shape[-1])[tensors["index"]]
            loss, losses, right = self.model.operators.answer_loss(
                self.model.lm_head,
                self.model.model.norm,
                rows,
                tensors["targets"],
                tensors["weights"],
            )
        (loss + kl if with_kl else loss).backward()
        self.ranks.average(self.model.parameters())
        scale = self.rate(self.progress())
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += self.ranks.world * stage.rows * stage.length
        return {
            "sparse": sparse,
            "kl": kl.detach() if with_kl else None,
            "losses": losses,
            "right": right,
            "answers": batch["answers"],
            "first": tensors["ids"].reshape(-1)[tensors["index"]] == ASSISTANT,
            "scale": scale,
        }

    def record(self, number, result):
        count = result["answers"]
        losses, right = result["losses"].float(), result["right"].float()
        first = result["first"][:count]
        entry = {
            "step": self.step,
            "seconds": round(self.elapsed, 2),
            "tokens": self.tokens,
            "length": self.preset.stages[number].length,
            "sparse": result["sparse"],
            "answer_loss": mean_or_none(losses[:count]),
            "text_loss": mean_or_none(losses[count:]),
            "answer_accuracy": mean_or_none(right[:count]),
            "first_token_accuracy": mean_or_none(right[:count][first]),
            "kl": None if result["kl"] is None else result["kl"].item(),
            "rate": result["scale"],
        }
        self.records.append(entry)
        if not self.ranks.leads:
            return entry
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")
        if sys.stderr.isatty():
            left = (1 - self.progress()) * self.elapsed / max(self.progress(), 1e-6)
            print(
                f"\rstep {self.step}  length {entry['length']}  answers {shown(entry['answer_loss'], '.3f')} "
                f"({shown(entry['answer_accuracy'], '.0%')})  KL {shown(entry['kl'], '.3f')}  {left:.0f} s left ",
                end="",
                file=sys.stderr,
            )
        return entry

    def train(self, stop_step=None):
        started = time.monotonic() - self.elapsed
        while self.progress() < 1.0 and self.step != stop_step:
            number, end = self.stage_number(self.progress())
            if (
                end - self.progress() < 0.02
                and number + 1 < len(self.preset.stages)
                and not self.steps
            ):
                self.loader.prepare(number + 1, self.step + 1)
            result = self.train_step(number)
            if self.device == "cpu" or self.step % self.log_every == 0:
                if self.device == "cuda":
                    torch.cuda.synchronize()
                self.elapsed = self.ranks.agree(time.monotonic() - started)
            if self.step % self.log_every == 0 or self.step == 1:
                self.record(number, result)
            if self.elapsed - self.saved > self.preset.checkpoint_seconds:
                self.save()
        self.elapsed = time.monotonic() - started
        self.save()
        self.loader.close()
        self.ranks.leave()

    def save(self):
        self.saved = self.elapsed
        if not self.ranks.leads:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "elapsed": self.elapsed,
            "run": self.identity(),
        }
        temporary = self.folder / "checkpoint.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "checkpoint.pt")

    def identity(self):
        """What a run must share with the checkpoint that it goes on from."""
        return {
            "config": self.preset.model.transformers_dict(),
            "seed": self.seed,
            "processes": self.ranks.world,
            "route": self.route or "",
        }

    def resume(self):
        """Raises ValueError where the checkpoint is of another model, seed, route or number of processes."""
        state = torch.load(
            self.folder / "checkpoint.pt", map_location=self.device, weights_only=True
        )
        if "run" not in state:
            raise ValueError("[training] resume: got a checkpoint that does not name its run")
        for name, wanted in self.identity().items():
            got = state["run"].get(name)
            if got != wanted:
                if name == "config":
                    other = [key for key in wanted if got.get(key) != wanted[key]]
                    got, wanted = ({key: c.get(key) for key in other} for c in (got, wanted))
                raise ValueError(f"[training] resume, {name}: got {got}, allowed {wanted}")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.elapsed = state["step"], state["tokens"], state["elapsed"]
        self.saved = self.elapsed
