"""Accuracy of a model folder by task, length and depth, and the recalls of its index.

Documents are held-out files; keys and values come from word lists that share nothing with training's. All questions of
a document are asked one after another behind it. An answer counts as right where every one of its tokens, <|end|>
included, is the model's first choice given the tokens before it: exactly then greedy decoding says it.
"""

import random

import numpy as np
import torch

from .items import load_tasks
from .model import Operators
from .sequences import SequenceMaker, question_answer
from .tokenizer import BEGIN, load_tokenizer
from .words import held_out_words

TASKS = ("needle", "value_first", "random_phrasing", "multikey", "multivalue", "tracking")


def draw(maker, rng, task, facts):
    """Items to plant and how many of the first of them to ask."""
    items, used = maker.items, set()
    if task == "needle":
        return [items.single(rng, used, rng.choice(items.key_first)) for _ in range(facts)], facts
    if task == "value_first":
        return [items.single(rng, used, rng.choice(items.value_first)) for _ in range(facts)], facts
    if task == "random_phrasing":
        return [items.single(rng, used, items.random_form(rng)) for _ in range(facts)], facts
    if task == "multikey":
        form = rng.choice(items.key_first)
        return [items.single(rng, used, form) for _ in range(32)], min(facts, 32)
    if task == "multivalue":
        return [items.multivalue(rng, used, count=3) for _ in range(max(facts // 3, 1))], facts
    if task == "tracking":
        return [items.tracking(rng, used, count=3) for _ in range(max(facts // 3, 1))], facts
    raise ValueError(f"[evaluate] task: got {task}, allowed {', '.join(TASKS)}")


def document(maker, rng, task, length, facts):
    """ids, [(first answer place, end, depth)] of one document of about `length` tokens, questions included."""
    items, asked = draw(maker, rng, task, facts)
    texts = [text for item in items for text in [f + "\n" for f in item.facts]]
    encoded = iter(maker.encode(texts))
    placed = [[next(encoded) for _ in item.facts] for item in items]
    pairs = []
    for item in items[:asked]:
        last = len(item.questions) - 1
        names = [
            i for i in range(last + 1) if item.kind != "tracking" or item.key in item.questions[i]
        ]
        n = names[0]
        question, answer = maker.encode([item.questions[n], item.answers[n]])
        pairs.append(question_answer(question, answer))
    used = 1 + sum(len(f) for group in placed for f in group) + sum(len(p[0]) for p in pairs)
    if used + 64 > length:
        raise ValueError(
            f"[evaluate] length: got {length}, allowed at least {used + 64} for these facts"
        )
    filler, lines = maker.filler(rng, length - used)
    events, depths = [], []
    for group in placed:
        places = sorted(int(lines[rng.randrange(len(lines))]) for _ in group)
        depths.append(places[-1] / max(len(filler), 1))
        events += [(place, n, fact) for n, (place, fact) in enumerate(zip(places, group))]
    events.sort(key=lambda e: e[:2])
    ids, at = [np.asarray([BEGIN], np.int32)], 0
    for place, _, fact in events:
        ids += [filler[at:place], fact]
        at = place
    ids.append(filler[at:])
    spans, offset = [], sum(map(len, ids))
    for (tokens, marks), depth in zip(pairs, depths):
        ids.append(tokens)
        spans.append((offset + int(np.flatnonzero(marks)[0]), offset + len(tokens), depth))
        offset += len(tokens)
    return np.concatenate(ids), spans


@torch.no_grad()
def evaluate(
    model, corpus, task, length, documents, facts=10, seed=1, sparse=True, recalls=False, tasks=None
):
    tasks = tasks or load_tasks()
    maker = SequenceMaker(corpus.held_out, load_tokenizer(), tasks, held_out_words(tasks))
    device = next(model.parameters()).device
    right, first, depths, gathered = [], [], [], {}
    for number in range(documents):
        rng = random.Random(f"evaluate/{seed}/{task}/{length}/{number}")
        ids, spans = document(maker, rng, task, length, facts)
        padded = -(-len(ids) // 128) * 128
        tensor = torch.zeros(1, padded, dtype=torch.int32, device=device)
        tensor[0, : len(ids)] = torch.from_numpy(ids).to(device)
        rows = sorted(
            [place - 1 for place, _, _ in spans] + [rng.randrange(len(ids)) for _ in spans]
        )
        rows = torch.tensor([rows], device=device) if recalls else None
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            hidden, _, found = model(tensor, None, sparse, rows, recall=recalls)
        hidden = hidden.float()
        for layer in found:
            for name, values in layer.items():
                gathered.setdefault(name, []).append(values.flatten().float())
        for start, end, depth in spans:
            best = model.logits(hidden[0, start - 1 : end - 1]).argmax(-1).cpu().numpy()
            hits = best == ids[start:end]
            right.append(bool(hits.all()))
            first.append(bool(hits[0]))
            depths.append(depth)
    result = {
        "task": task,
        "length": length,
        "attention": "sparse" if sparse else "dense",
        "documents": documents,
        "asked": len(right),
        "right": sum(right),
        "accuracy": sum(right) / len(right),
        "first_token_accuracy": sum(first) / len(first),
        "by_depth": [],
    }
    for fifth in range(5):
        hits = [r for r, d in zip(right, depths) if min(int(d * 5), 4) == fifth]
        result["by_depth"].append(
            {"depth": f"{fifth * 20}-{fifth * 20 + 20} %", "asked": len(hits), "right": sum(hits)}
        )
    result.update({name: torch.cat(values).mean().item() for name, values in gathered.items()})
    return result


def operators_for(device):
    """Nothing is compiled: lengths differ from document to document."""
    return Operators(fused=device == "cuda", chunk=4096 if device == "cuda" else 512)
