"""Batches made ahead of time by worker processes, delivered in order.

A batch depends on (seed, stage, step, rank) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

import multiprocessing
import os

import numpy as np

from .corpus import Corpus
from .items import load_tasks
from .lexicon import corpus_words
from .prose import corpus_sentences
from .sequences import ANSWER, REPEAT, TEXT, SequenceMaker
from .tokenizer import ASSISTANT, END, load_tokenizer
from .words import Words

AHEAD = 3
TEXT_TOKENS, PIECE = 12_000_000, 100_000  # decoded for words and sentences


def answer_weights(flat, places, comma, space):
    """Weights of answer tokens by what each decides; places are those of the predicting tokens.

    3 for the first token of a value (behind <|assistant|> or a comma, spaces aside: it is what was found), 2 for
    the tokens that say whether another value follows, 1 for the rest of a value.
    """
    here, before, after = flat[places], flat[np.maximum(places - 1, 0)], flat[places + 1]
    begins = (here == ASSISTANT) | (here == comma) | ((here == space) & (before == comma))
    return np.where(begins, 3.0, np.where((after == comma) | (after == END), 2.0, 1.0))


def loss_rows(ids, classes, rows, seed, comma, space):
    """Flat indices of the predicting positions that enter the loss, and weights: answers sum to 1, the rest to 0.3."""
    batch, length = ids.shape
    target_class = np.zeros((batch, length), np.int8)
    target_class[:, :-1] = classes[:, 1:]
    flat = target_class.reshape(-1)
    answers = np.flatnonzero(flat == ANSWER)[:rows]
    others = np.flatnonzero((flat == TEXT) | (flat == REPEAT))
    rng = np.random.default_rng(seed)
    count = min(rows - len(answers), len(others))
    others = np.sort(rng.choice(others, count, replace=False)) if count else others[:0]
    index = np.zeros(rows, np.int64)
    weights = np.zeros(rows, np.float32)
    index[: len(answers)] = answers
    by_decision = answer_weights(ids.reshape(-1), answers, comma, space)
    weights[: len(answers)] = by_decision / max(by_decision.sum(), 1.0)
    index[len(answers) : len(answers) + count] = others
    weights[len(answers) : len(answers) + count] = np.where(flat[others] == REPEAT, 0.6, 0.3) / max(
        count, 1
    )
    return index, weights, len(answers)


def make_batch(maker, seed, number, stage, step, rank=0):
    ids, positions, classes, kl = maker.batch(seed, number, step, stage, rank * stage.rows)
    index, weights, answers = loss_rows(
        ids, classes, stage.loss_rows, [seed, number, step, rank], maker.comma, maker.space
    )
    targets = np.roll(ids, -1, 1).reshape(-1)[index]
    return {
        "ids": ids,
        "positions": positions,
        "kl": kl,
        "index": index,
        "weights": weights,
        "targets": targets.astype(np.int64),
        "answers": answers,
    }


def training_maker(corpus):
    """The maker of training's sequences, whose words and phrasings come from its lists and from the corpus."""
    tokenizer, tasks = load_tokenizer(), load_tasks()
    tokens = corpus.train[:TEXT_TOKENS]
    texts = [
        tokenizer.decode(tokens[start : start + PIECE].tolist())
        for start in range(0, len(tokens), PIECE)
    ]
    words = Words(tasks, corpus_words(texts), corpus_sentences(texts))
    return SequenceMaker(corpus.train, tokenizer, tasks, words)


def work(maker, seed, stages, rank, requests, results):
    os.nice(1)
    while (request := requests.get()) is not None:
        number, step = request
        results.put((number, step, make_batch(maker, seed, number, stages[number], step, rank)))


class Loader:
    """get(stage number, step): the batch of that step; steps are asked for in order, stages change at will."""

    def __init__(self, corpus_path, seed, stages, workers, rank=0):
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.seed, self.stages, self.rank = seed, stages, rank
        self.corpus = Corpus(corpus_path)
        self.processes, self.ready, self.asked = [], {}, set()
        self.maker = training_maker(self.corpus)
        if workers == 0:
            return
        context = multiprocessing.get_context("fork")
        self.requests, self.results = context.Queue(), context.Queue()
        self.depth = AHEAD * workers
        for _ in range(workers):
            process = context.Process(
                target=work,
                args=(self.maker, seed, stages, rank, self.requests, self.results),
                daemon=True,
            )
            process.start()
            self.processes.append(process)

    def ask(self, number, step):
        if (number, step) not in self.asked:
            self.asked.add((number, step))
            self.requests.put((number, step))

    def prepare(self, number, step):
        """Start on the first batches of a stage before it begins."""
        if self.processes:
            for ahead in range(self.depth):
                self.ask(number, step + ahead)

    def get(self, number, step):
        if not self.processes:
            return make_batch(self.maker, self.seed, number, self.stages[number], step, self.rank)
        self.prepare(number, step)
        while (number, step) not in self.ready:
            got_number, got_step, batch = self.results.get(timeout=300)
            self.ready[got_number, got_step] = batch
        batch = self.ready.pop((number, step))
        stale = [key for key in self.ready if key[0] < number or key[1] < step]
        for key in stale:
            del self.ready[key]
        return batch

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
            if process.is_alive():
                process.terminate()
