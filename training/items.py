"""Facts and their questions: a phrasing, a key and values put together (Item), drawn by ItemMaker.

Phrasings come from the forms of tasks.json, from a grammar (phrases.py), from clauses in any words (clauses.py), from
the corpus' sentences (prose.py), and from all of these with other words (reword.py); keys and values from words.py.
"""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

from .clauses import clause_form
from .phrases import grammar_form
from .prose import prose_form
from .reword import reworded
from .tokenizer import ASSISTANT, END, USER
from .words import Words

TASKS = Path(__file__).resolve().parent / "tasks.json"
CLAUSE_SHARE = 0.5
PROSE_SHARE = 0.3  # of the rest
REWORDED_SHARE = 0.5


def load_tasks(path=TASKS):
    with open(path, encoding="utf-8") as handle:
        return json.load(handle)


def phrasing_tokens(tokenizer, tasks):
    """Tokens of the phrasings without their keys and values, and the special ones: they tell nothing of a key."""
    texts = ["\n"]
    for form in tasks["forms"]:
        texts += [
            form[part].replace("{key}", " ").replace("{value}", " ")
            for part in ("fact", "question")
        ]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return sorted({USER, ASSISTANT, END}.union(*(encoding.ids for encoding in encodings)))


@dataclass
class Item:
    """Facts of one key in the order of the document, and its questions with their answers."""

    kind: str
    facts: list
    questions: list
    answers: list
    key: str = ""
    forms: list = field(default_factory=list)


def answer_text(template, value):
    """The value as the model says it: with the space before it, unless it starts with a digit."""
    at = template.index("{value}")
    spaced = at > 0 and template[at - 1] == " " and not value[0].isdigit()
    return " " + value if spaced else value


class ItemMaker:
    """Draws keys, values and phrasings. One document shares `used`, so that its keys are unique."""

    def __init__(self, tasks, words=None):
        self.tasks = tasks
        self.cloze = 0.05  # share of questions that repeat the fact up to its value
        self.words = words or Words(tasks)
        self.key_first = [form for form in tasks["forms"] if form["kind"] == "key_first"]
        self.value_first = [form for form in tasks["forms"] if form["kind"] == "value_first"]
        self.filler = tasks["train_words"]["filler"]

    def fresh(self, rng, used, draw):
        while True:
            text = draw(rng)
            if text.lower() not in used:
                used.add(text.lower())
                return text

    def filler_words(self, rng, low, high):
        """Random words; the outer ones, which may stand beside a key or a value, are function words."""
        words = [rng.choice(self.filler) for _ in range(rng.randint(low, high))]
        for place in range(1, len(words) - 1):
            if rng.random() < 0.35:
                words[place] = self.words.word(rng)
        return words

    def random_form(self, rng):
        """A phrasing of random words around key and value: nothing can be learned from it but the places."""
        first, second = ("{key}", "{value}") if rng.random() < 0.5 else ("{value}", "{key}")
        joint = rng.choice(("words", "words", "words", "words", "sign"))
        middle = (
            rng.choice((" = ", ": ", " - ", ", ", " / ", "; ", " => ", " ("))
            if joint == "sign"
            else " " + " ".join(self.filler_words(rng, 1, 5)) + " "
        )
        before = " ".join(self.filler_words(rng, 0, 5))
        after = " ".join(self.filler_words(rng, 1, 4)) if rng.random() < 0.4 else ""
        fact = (
            (before + " " if before else "")
            + first
            + middle
            + second
            + (" " + after if after else "")
        )
        fact += rng.choice((".", ".", ".", "", "!", ";"))
        if rng.random() < 0.7:
            fact = fact[0].upper() + fact[1:] if fact[0] != "{" else fact
        kind = rng.random()
        if kind < 0.35:
            question = (
                " ".join(self.filler_words(rng, 1, 5)) + " {key}" + rng.choice(("?", "", "."))
            )
        elif kind < 0.5:
            question = "{key}" + rng.choice(("?", "", ":", "."))
        elif kind < 0.6:
            question = (
                " ".join(self.filler_words(rng, 0, 3) + ["{key}"] + self.filler_words(rng, 1, 4))
                + "?"
            )
        elif kind < 0.85:
            question = (before + " " if before else "what ") + "{key}" + rng.choice(("?", ""))
        else:
            question = rng.choice(self.key_first + self.value_first)["question"]
        return {"id": "random", "fact": fact, "question": question}

    def form(self, rng, value_first_share=0.5):
        if self.words.lexicon and rng.random() < CLAUSE_SHARE:
            return clause_form(rng, self.words.any_word)
        form = self.written_form(rng, value_first_share)
        if self.words.lexicon and rng.random() < REWORDED_SHARE:
            return reworded(rng, form, self.words.any_word)
        return form

    def written_form(self, rng, value_first_share):
        if self.words.sentences and rng.random() < PROSE_SHARE:
            return prose_form(rng, self.words.sentences)
        kind = rng.random()
        if kind < 0.17:
            return self.random_form(rng)
        if kind < 0.52:
            return grammar_form(rng)
        form = rng.choice(self.value_first if rng.random() < value_first_share else self.key_first)
        if kind < 0.6:
            form = dict(form, question=rng.choice(self.key_first)["question"])
        elif kind < 0.64:
            lead = " ".join(self.filler_words(rng, 1, 4))
            form = dict(form, fact=f"{lead.capitalize()}, {form['fact']}")
        return form

    def single(self, rng, used, form=None, key=None, value_kind=None):
        form = form or self.form(rng)
        key = key or self.fresh(rng, used, self.words.key)
        value = self.words.value(rng, value_kind)
        fact = form["fact"].replace("{key}", key).replace("{value}", value)
        if rng.random() < self.cloze and form["fact"].index("{key}") < form["fact"].index(
            "{value}"
        ):
            before = form["fact"][: form["fact"].index("{value}")].rstrip()
            form = dict(form, question=before)
        return Item(
            "single",
            [fact],
            [form["question"].replace("{key}", key)],
            [answer_text(form["fact"], value)],
            key,
            [form],
        )

    def multivalue(self, rng, used, form=None, count=None):
        form = form or rng.choice(self.tasks["multivalue"])
        key = self.fresh(rng, used, self.words.key)
        count = count or rng.choice((2, 3, 3, 3, 4))
        values, seen = [], set()
        kind = self.words.kind_of_several(rng) if rng.random() < 0.7 else None

        def value(r):
            # A comma separates the values of an answer, so none of them may hold one.
            while "," in (drawn := self.words.value(r, kind)):
                pass
            return drawn

        for _ in range(count):
            values.append(self.fresh(rng, seen, value))
        facts = [form["fact"].replace("{key}", key).replace("{value}", value) for value in values]
        answer = answer_text(form["fact"], values[0]) + "".join(
            ", " + value for value in values[1:]
        )
        return Item(
            "multivalue", facts, [form["question"].replace("{key}", key)], [answer], key, [form]
        )

    def tracking(self, rng, used, form=None, count=None):
        form = form or rng.choice(self.tasks["tracking"])
        count = count or rng.choice((2, 3, 3, 3, 4))
        names = [self.fresh(rng, used, self.words.variable) for _ in range(count)]
        value = self.words.value(rng, rng.choice(self.tasks["tracking_value_kinds"]))
        facts = [form["assign"].replace("{name}", names[0]).replace("{value}", value)]
        for previous, name in itertools.pairwise(names):
            facts.append(form["copy"].replace("{name}", name).replace("{other}", previous))
        order = list(range(count))
        rng.shuffle(order)
        if rng.random() < 0.5:  # the end of the chain is asked first: it goes the longest way
            order.sort(key=lambda place: place != count - 1)
        questions = [form["question"].replace("{name}", names[i]) for i in order]
        answer = answer_text(form["assign"], value)
        return Item("tracking", facts, questions, [answer] * count, names[-1], [form])
