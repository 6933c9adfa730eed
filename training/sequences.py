"""Training sequences: facts among the lines of the corpus, questions about them, answers that copy them.

A sequence is  <|begin|> document <|user|> question <|assistant|> answer <|end|> <|user|> ...  with
part of the questions already between the lines. Each token has a class: 0 no loss (facts and questions,
which nothing foretells), 1 text, 2 answer, 3 the second copy of a repeated span. A sequence is a pure
function of (seed, stage, step, row).
"""

import random

import numpy as np

from .items import ItemMaker, load_tasks
from .tokenizer import ASSISTANT, BEGIN, END, USER

NONE, TEXT, ANSWER, REPEAT = range(4)
LARGEST_POSITION = 1_048_576
FLAVOURS = ("single", "mixed", "multivalue", "tracking", "tokens", "repeat")
DEFAULT_FLAVOURS = (36, 14, 20, 17, 8, 5)


class SequenceMaker:
    """Token sequences of a given length."""

    def __init__(self, tokens, tokenizer, tasks=None, words=None):
        self.tokens = tokens
        self.tokenizer = tokenizer
        self.tasks = tasks or load_tasks()
        self.items = ItemMaker(self.tasks, words)
        self.newline = self.encode(["\n"])[0]
        self.comma, self.space = tokenizer.token_to_id(","), tokenizer.token_to_id("Ġ")
        vocabulary = tokenizer.get_vocab_size()
        ends = np.zeros(vocabulary, bool)
        plain = []
        for token in range(4, vocabulary):
            text = tokenizer.id_to_token(token)
            ends[token] = set(text) == {"Ċ"}
            if all(c.isascii() or c == "Ġ" for c in text) and "Ċ" not in text:
                plain.append(token)
        self.plain_tokens = np.asarray(plain)
        self.boundaries = np.flatnonzero(ends[tokens]) + 1
        self.joints = [
            self.encode([text])[0] for text in (" =", ":", " is", " ->", ",", " has", "")
        ]

    def encode(self, texts):
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.asarray(encoding.ids, np.int32) for encoding in encodings]

    def filler(self, rng, length):
        """Lines of the corpus, exactly that many tokens, and the places in them where a line begins."""
        pieces, left = [], length
        while left > 0:
            start = self.boundaries[rng.randrange(len(self.boundaries))]
            want = left if rng.random() < 0.5 else rng.randint(min(left, 64), left)
            piece = self.tokens[start : start + want]
            if len(piece) < left:
                last = np.searchsorted(self.boundaries, start + len(piece), "right") - 1
                piece = piece[: max(self.boundaries[last] - start, 1)] if last >= 0 else piece
            pieces.append(piece)
            left -= len(piece)
        text = np.concatenate(pieces).astype(np.int32) if pieces else np.zeros(0, np.int32)
        ends = np.isin(text, self.newline_tokens()) if len(text) else np.zeros(0, bool)
        return text, np.concatenate(([0], np.flatnonzero(ends) + 1))

    def newline_tokens(self):
        if not hasattr(self, "newlines"):
            self.newlines = np.unique(self.tokens[self.boundaries - 1])
        return self.newlines

    def draw_items(self, rng, budget, flavour, few):
        """Items whose facts, questions and answers fit the budget of tokens: [(fact token arrays, QA arrays)]."""
        maker, used, drawn, spent = self.items, set(), [], 0
        shared = maker.form(rng) if rng.random() < 0.5 else None
        value_kind = rng.choice(list(maker.words.value_kinds)) if rng.random() < 0.3 else None
        shared_multi = rng.choice(self.tasks["multivalue"])
        shared_track = rng.choice(self.tasks["tracking"])
        pool = None
        if rng.random() < 0.3:
            nouns = [maker.words.pick(rng, "nouns") for _ in range(9)]
            nouns += [maker.words.made_up(rng) for _ in range(3)]
            heads = [maker.words.pick(rng, "adjectives") for _ in range(9)] + [
                maker.words.made_up(rng) for _ in range(3)
            ]
            pool = [f"{head} {noun}" for head in set(heads) for noun in set(nouns)]
            rng.shuffle(pool)
        while spent < budget and len(drawn) < few:
            batch = []
            for _ in range(max(2, min(16, (budget - spent) // 40))):
                kind = (
                    flavour
                    if flavour != "mixed"
                    else rng.choice(("single",) * 5 + ("multivalue", "tracking"))
                )
                if kind == "single":
                    key = None
                    if pool:
                        key = pool.pop()
                        if key.lower() in used:
                            key = None
                        else:
                            used.add(key.lower())
                    batch.append(maker.single(rng, used, shared, key, value_kind))
                elif kind == "multivalue":
                    batch.append(
                        maker.multivalue(rng, used, shared_multi if rng.random() < 0.5 else None)
                    )
                else:
                    batch.append(
                        maker.tracking(rng, used, shared_track if rng.random() < 0.5 else None)
                    )
            batch = batch[: few - len(drawn)]
            encoded = self.encode_items(batch, rng)
            if not encoded:  # a shared phrasing too long for any fact
                shared = value_kind = None
            for facts, pairs in encoded:
                spent += sum(map(len, facts)) + sum(len(p[0]) for p in pairs)
                if spent > budget:
                    break
                drawn.append((facts, pairs))
        return drawn

    def encode_items(self, items, rng):
        """(fact token arrays, question-and-answer arrays) of the items whose facts are within the limit."""
        texts = []
        for item in items:
            texts += [fact + "\n" for fact in item.facts] + item.questions + item.answers
        encoded = iter(self.encode(texts))
        result = []
        for item in items:
            facts = [next(encoded) for _ in item.facts]
            questions = [next(encoded) for _ in item.questions]
            answers = [next(encoded) for _ in item.answers]
            pairs = [question_answer(q, a) for q, a in zip(questions, answers)]
            if max(map(len, facts)) > self.tasks["limits"]["fact_tokens"] + len(self.newline):
                continue
            if item.kind == "tracking":
                pairs = pairs[: rng.choice((1, 2, len(pairs)))]
            result.append((facts, pairs))
        return result

    def draw_token_items(self, rng, budget, few):
        """Facts of random tokens: every token of the vocabulary gets a turn as key and as value."""
        drawn, spent, used = [], 0, set()
        joint = rng.choice(self.joints)
        swapped = rng.random() < 0.3
        while len(drawn) < few:
            key = tuple(rng.choices(self.plain_list, k=rng.randint(1, 4)))
            if key in used:
                continue
            used.add(key)
            value = np.asarray(rng.choices(self.plain_list, k=rng.randint(1, 7)), np.int32)
            key = np.asarray(key, np.int32)
            parts = (value, joint, key) if swapped else (key, joint, value)
            fact = np.concatenate(parts + (self.newline,))
            pair = question_answer(
                key if rng.random() < 0.6 else np.concatenate((key, joint)), value
            )
            spent += len(fact) + len(pair[0])
            if spent > budget:
                break
            drawn.append(([fact], [pair]))
        return drawn

    @property
    def plain_list(self):
        if not hasattr(self, "_plain"):
            self._plain = self.plain_tokens.tolist()
        return self._plain

    def sequence(self, rng, length, flavours=DEFAULT_FLAVOURS):
        """(ids, classes), each [length]; flavours are the weights of FLAVOURS."""
        room = length - 1
        flavour = rng.choices(FLAVOURS, flavours)[0]
        if flavour == "repeat":
            return self.repeated(rng, length)
        dense = rng.random() < (0.35 if length <= 2048 else 0.15 if length <= 8192 else 0.05)
        share = rng.uniform(0.9, 1.0) if dense else rng.uniform(0.15, 0.6)
        few = 10_000 if dense or rng.random() < 0.5 else rng.randint(1, 60)
        if length > 2048:
            few = min(few, 500)
        budget = int(room * share)
        drawn = (
            self.draw_token_items(rng, budget, few)
            if flavour == "tokens"
            else self.draw_items(rng, budget, flavour, few)
        )
        used = sum(sum(map(len, facts)) + sum(len(p[0]) for p in pairs) for facts, pairs in drawn)
        filler, lines = self.filler(rng, room - used)
        return self.lay_out(rng, drawn, filler, lines)

    def lay_out(self, rng, drawn, filler, lines):
        """Facts at line starts in their order, questions after their last fact or at the end."""
        size = len(filler)
        early = rng.choice((0.0, 0.0, 0.3, 0.6))
        events, ends = [], []
        for facts, pairs in drawn:
            places = sorted(rng.randrange(size + 1) for _ in facts)
            if rng.random() < 0.02:
                places[0] = 0
            for fact, place in zip(facts, places):
                place = int(lines[np.searchsorted(lines, place, "right") - 1])
                events.append((place, rng.random(), fact, None))
            for pair in pairs:
                if rng.random() < early and size:
                    place = rng.randint(places[-1], size)
                    after = np.searchsorted(lines, place, "left")
                    if after < len(lines):
                        events.append((int(lines[after]), 1.0 + rng.random(), pair[0], pair[1]))
                        continue
                ends.append(pair)
        # Facts of one item keep their order where they fall on one line start: sort is stable on (place, tie) and the
        # ties of facts are re-drawn in order.
        events = order_events(events)
        ids, classes, at = [np.asarray([BEGIN], np.int32)], [np.zeros(1, np.int8)], 0
        for place, tokens, marks in events:
            if place > at:
                ids.append(filler[at:place])
                classes.append(np.full(place - at, TEXT, np.int8))
                at = place
            ids.append(tokens)
            classes.append(np.zeros(len(tokens), np.int8) if marks is None else marks)
        if at < size:
            ids.append(filler[at:])
            classes.append(np.full(size - at, TEXT, np.int8))
        rng.shuffle(ends)
        for tokens, marks in ends:
            ids.append(tokens)
            classes.append(marks)
        return np.concatenate(ids), np.concatenate(classes)

    def repeated(self, rng, length):
        """Text in which spans come back later: the second copy can be foretold."""
        text, _ = self.filler(rng, length - 1)
        classes = np.full(length - 1, TEXT, np.int8)
        at = length // 8
        while at < length - 80:
            span = rng.randint(8, 64)
            source = rng.randrange(0, max(at - span, 1))
            text[at : at + span] = text[source : source + span].copy()
            classes[at + 2 : at + span] = REPEAT
            at += span + rng.randint(4, 64)
        return np.concatenate(([BEGIN], text)).astype(np.int32), np.concatenate(
            ([NONE], classes)
        ).astype(np.int8)

    def positions(self, rng, length):
        """Counting, with random jumps in half of the sequences, so that distances up to a million are seen."""
        positions = np.arange(length, dtype=np.int64)
        if rng.random() < 0.5:
            return positions.astype(np.int32)
        jumps = np.zeros(length, np.int64)
        budget = LARGEST_POSITION - length - 1
        for _ in range(rng.randint(1, 8)):
            jump = int(2 ** rng.uniform(4, 20))
            jump = min(jump, budget)
            budget -= jump
            jumps[rng.randrange(length)] += jump
        return (positions + jumps.cumsum()).astype(np.int32)

    def batch(self, seed, number, step, stage, first=0):
        """Arrays of one step: ids, positions, classes [rows, length], kl [rows, kl_rows] (kl_rows_of).

        `number` is the stage's place in the run, `first` the first of its rows that are drawn.
        """
        self.items.cloze = stage.cloze
        rows, length, kl_rows = stage.rows, stage.length, stage.kl_rows
        ids = np.zeros((rows, length), np.int32)
        positions = np.zeros((rows, length), np.int32)
        classes = np.zeros((rows, length), np.int8)
        kl = np.zeros((rows, kl_rows), np.int32)
        for row in range(rows):
            rng = random.Random(f"{seed}/{number}/{step}/{first + row}")
            ids[row], classes[row] = self.sequence(rng, length, stage.flavours)
            positions[row] = self.positions(rng, length)
            kl[row] = kl_rows_of(rng, classes[row], kl_rows)
        return ids, positions, classes, kl


def kl_rows_of(rng, classes, count):
    """Rows on which the index learns: 3 of 8 answer, 3 of 8 lie in facts and questions, the rest anywhere.

    A line `b is a` of a chain looks `a` up while the document is read: rows of facts need the index as much as answers.
    """
    chosen = []
    for rows in (np.flatnonzero(classes[1:] == ANSWER), np.flatnonzero(classes == NONE)):
        chosen += rng.choices(rows.tolist(), k=3 * count // 8) if len(rows) else []
    chosen += [rng.randrange(len(classes)) for _ in range(count - len(chosen))]
    return sorted(chosen)


def question_answer(question, answer):
    """Tokens and classes of <|user|> question <|assistant|> answer <|end|>."""
    tokens = np.concatenate(([USER], question, [ASSISTANT], answer, [END])).astype(np.int32)
    classes = np.zeros(len(tokens), np.int8)
    classes[len(question) + 2 :] = ANSWER
    return tokens, classes


def order_events(events):
    """Sorted by place; questions (with marks) after the facts of the same place, facts in the order they came in."""
    facts = sorted((e for e in events if e[3] is None), key=lambda e: e[0])
    rest = [e for e in events if e[3] is not None]
    merged = sorted(
        [(e[0], 0, n, e) for n, e in enumerate(facts)] + [(e[0], 1, e[1], e) for e in rest],
        key=lambda t: t[:3],
    )
    return [(e[0], e[2], e[3]) for _, _, _, e in merged]
