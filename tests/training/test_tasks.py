"""Training sequences: what is asked stands in the document, keys are unique, evaluation words are new."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

import training.sequences
from training.clauses import clause_form
from training.corpus import Corpus, is_held_out
from training.evaluate import TASKS, document
from training.items import ItemMaker, load_tasks
from training.lexicon import corpus_words, reserved_words
from training.loader import make_batch, training_maker
from training.presets import Stage
from training.prose import (
    corpus_sentences,
    forbidden_words,
    prose_form,
    sentence_form,
    words_of,
)
from training.reword import reworded
from training.sequences import (
    ANSWER,
    FLAVOURS,
    NONE,
    TEXT,
    SequenceMaker,
    kl_rows_of,
)
from training.tokenizer import ASSISTANT, BEGIN, END, USER, load_tokenizer
from training.words import HELD_OUT, Words, held_out_words


@pytest.fixture(scope="module")
def maker(small_corpus):
    return training_maker(Corpus(small_corpus))


def split(ids, tokenizer):
    """(document text without questions, [(question, answer)])."""
    ids, text, pairs, at = ids.tolist(), [], [], 1
    while at < len(ids):
        if ids[at] == USER:
            middle, end = ids.index(ASSISTANT, at), ids.index(END, at)
            pairs.append(
                (tokenizer.decode(ids[at + 1 : middle]), tokenizer.decode(ids[middle + 1 : end]))
            )
            at = end + 1
        else:
            text.append(ids[at])
            at += 1
    return tokenizer.decode(text), pairs


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_answers_stand_in_the_document(maker, flavour):
    weights = tuple(int(f == flavour) for f in FLAVOURS)
    asked = 0
    for seed in range(12):
        ids, classes = maker.sequence(random.Random(seed), 768, weights)
        assert len(ids) == len(classes) == 768 and ids[0] == BEGIN
        text, pairs = split(ids, maker.tokenizer)
        for _, answer in pairs:
            for part in answer.split(", ") if flavour in ("mixed", "multivalue") else [answer]:
                assert part.strip() in text
            asked += 1
        ends = np.flatnonzero(ids == END)
        assert (classes[ends] == ANSWER).all() and (classes[np.flatnonzero(ids == USER)] == 0).all()
    assert asked > 20 or flavour == "repeat"


def test_chains_lead_from_the_asked_name_to_the_value():
    items = ItemMaker(load_tasks())
    rng = random.Random(4)
    for form in items.tasks["tracking"]:
        item = items.tracking(rng, set(), form, 3)
        assert len(item.facts) == 3 and item.answers[0].strip() in item.facts[0]
        assert item.key in item.facts[2]
        assert any(item.key in question for question in item.questions)


def test_keys_of_a_document_are_unique():
    items = ItemMaker(load_tasks())
    used, rng = set(), random.Random(1)
    keys = [items.single(rng, used).key.lower() for _ in range(2000)]
    assert len(set(keys)) == len(keys)


def test_facts_are_shorter_than_a_block(maker):
    limit = maker.tasks["limits"]["fact_tokens"]
    rng = random.Random(2)
    items = [maker.items.single(rng, set()) for _ in range(400)]
    items += [maker.items.tracking(rng, set()) for _ in range(100)]
    long = [item for item in items if max(map(len, maker.encode(item.facts))) > limit]
    assert len(long) < 10
    kept = maker.encode_items(items, rng)
    assert len(kept) == len(items) - len(long)
    assert max(len(fact) for facts, _ in kept for fact in facts) <= limit + 1  # and the line's end


def test_evaluation_words_are_not_training_words():
    words = load_tasks()["train_words"]
    trained = {w.lower() for name, entries in words.items() for w in entries}
    for name, entries in json.loads(HELD_OUT.read_text()).items():
        assert not trained & {w.lower() for w in entries}, name


def test_words_of_the_corpus_leave_evaluation_words_alone():
    text = "rosemary copper napkin whoever _hidden twiceCased\n" * 4 + "seldom seldom\n"
    assert {"rosemary", "napkin", "whoever"} <= reserved_words()
    assert corpus_words([text]) == ["copper"]


def test_half_of_the_words_come_from_the_lexicon():
    words, rng = Words(load_tasks(), ["zymurgy"]), random.Random(0)
    picks = [words.pick(rng, "nouns") for _ in range(400)]
    assert 140 < picks.count("zymurgy") < 260
    assert "Zymurgy" in {words.pick(rng, "names") for _ in range(40)}
    assert "zymurgy" not in {words.pick(rng, "units") for _ in range(40)}


def test_several_values_of_one_answer_hold_no_comma():
    maker, rng = ItemMaker(load_tasks()), random.Random(0)
    for _ in range(500):
        item = maker.multivalue(rng, set())
        assert item.answers[0].count(",") == len(item.facts) - 1


def test_index_learns_on_rows_of_answers_and_of_facts():
    classes = np.full(10_000, TEXT)
    classes[100:110], classes[9_990:] = NONE, ANSWER
    rows = kl_rows_of(random.Random(0), classes, 64)
    assert rows == sorted(rows) and len(rows) == 64
    assert sum(100 <= row < 110 for row in rows) >= 24
    assert sum(9_989 <= row < 9_999 for row in rows) >= 24  # the rows that predict an answer
    assert len(kl_rows_of(random.Random(0), np.full(100, TEXT), 64)) == 64


SENTENCES = [
    sentence.split()
    for sentence in (
        "The daemon discards stale packets whenever the output buffer overflows",
        "Several small gardens, most of them old, surround the northern harbour",
        "Each reader opens its own copy of the index before it starts",
    )
]


def test_prose_holds_key_and_value_once_and_asks_for_the_key():
    rng = random.Random(0)
    for _ in range(3000):
        form = prose_form(rng, SENTENCES)
        assert form["fact"].count("{key}") == 1 and form["fact"].count("{value}") == 1, form
        assert form["question"].count("{key}") == 1 and "{value}" not in form["question"], form


def test_questions_of_prose_mostly_name_the_words_beside_the_value():
    rng, beside, named = random.Random(0), 0, 0
    for _ in range(2000):
        form = sentence_form(rng, SENTENCES)
        words, asked_words = form["fact"].lower().split(), form["question"].lower()
        at = next(place for place, word in enumerate(words) if "{value}" in word)
        for word in (words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""):
            word = word.strip(".,;!")
            if len(word) > 5 and "{" not in word:
                beside += 1
                named += word[:4] in asked_words
    assert beside > 500 and named > 0.85 * beside


def test_values_of_prose_are_pieces_of_a_sentence():
    words, rng = Words(load_tasks(), (), SENTENCES), random.Random(0)
    whole = [" ".join(word.rstrip(",;") for word in sentence) for sentence in SENTENCES]
    for _ in range(300):
        value = words.value(rng, "clause")
        assert 2 <= len(value.split()) <= 5 and any(value in text for text in whole), value
    assert "clause" not in Words(load_tasks()).value_kinds


def test_sentences_of_the_corpus_hold_no_word_of_the_phrasings_held_out():
    text = (
        "The daemon discards stale packets when the buffer overflows.\n\n"
        "My grandmother swears that the old clock stopped at noon.\n\n"
        "Short ones are left out.\n\n"
        "A sentence that is broken\n  over two lines is put together again.\n"
    )
    found = corpus_sentences([text])
    assert [sentence[1] for sentence in found] == ["daemon", "sentence"]
    assert found[1][-1] == "again" and "grandmother" in forbidden_words()


def test_rewording_keeps_a_word_the_same_in_fact_and_question():
    form = {
        "id": "x",
        "fact": "Carefully the clerk labelled the {key} with {value}.",
        "question": "What did the clerk label the {key} with?",
    }
    drawn = iter(f"invent{letter}" for letter in "abcdfghijklmnopqrtuvwxyz" * 200)
    whole = 0
    for seed in range(200):
        new = reworded(random.Random(seed), form, lambda rng: next(drawn))
        found = re.fullmatch(
            r"(\w+) the (\w+) (\w+) the \{key\} with \{value\}\.", new["fact"]
        ).groups()
        asked = re.fullmatch(
            r"What did the (\w+) (\w+) the \{key\} with\?", new["question"]
        ).groups()
        assert asked[0] == found[1]
        assert found[2] in (asked[1] + "ed", "labelled") and found[0][0].isupper()
        whole += not {"Carefully", "clerk", "labelled"} & set(found)
    assert whole > 60


def test_clauses_hold_key_and_value_once_in_either_order():
    words, rng, first, seen = Words(load_tasks(), ["zymurgy"]), random.Random(0), 0, set()
    for _ in range(2000):
        form = clause_form(rng, words.any_word)
        assert form["fact"].count("{key}") == 1 == form["fact"].count("{value}"), form
        assert form["question"].count("{key}") == 1 and "{value}" not in form["question"], form
        first += form["fact"].index("{value}") < form["fact"].index("{key}")
        seen.add(form["fact"])
    assert 800 < first < 1200 and len(seen) > 1950


def test_rewording_draws_words_of_the_corpus_and_made_up_ones():
    words, rng = Words(load_tasks(), ["zymurgy"]), random.Random(0)
    drawn = [words.any_word(rng) for _ in range(400)]
    assert 220 < drawn.count("zymurgy") < 340 and all(word == word.lower() for word in drawn)
    assert "zymurgy" not in {Words(load_tasks()).any_word(rng) for _ in range(100)}


def test_forms_say_what_kind_they_are():
    tasks = load_tasks()
    ids = [form["id"] for group in ("forms", "multivalue", "tracking") for form in tasks[group]]
    assert len(set(ids)) == len(ids)
    for form in tasks["forms"]:
        assert (
            form["fact"].count("{key}") >= 1
            and form["fact"].count("{value}") == 1
            and "{key}" in form["question"]
        )
        first = form["fact"].index("{key}") < form["fact"].index("{value}")
        assert form["kind"] == ("key_first" if first else "value_first")
    kinds = [form["kind"] for form in tasks["forms"]]
    assert kinds.count("key_first") >= 60 and kinds.count("value_first") >= 25


def test_batches_depend_on_seed_stage_and_step_only(maker):
    stage = Stage(256, 2, 1.0, 0.0, 8, 64)
    a = maker.batch(1, 0, 7, stage)
    maker.batch(1, 0, 8, stage)
    b = maker.batch(1, 0, 7, stage)
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    assert not np.array_equal(a[0], maker.batch(2, 0, 7, stage)[0])


def test_ranks_draw_the_rows_of_one_larger_batch(maker):
    half, whole = (Stage(256, rows, 1.0, 0.0, 8, 64) for rows in (2, 4))
    parts = [maker.batch(1, 0, 7, half, first) for first in (0, 2)]
    for one, two, both in zip(*parts, maker.batch(1, 0, 7, whole)):
        assert np.array_equal(np.concatenate((one, two)), both)
    batches = [make_batch(maker, 1, 0, half, 7, rank) for rank in (0, 1)]
    assert np.array_equal(batches[1]["ids"], parts[1][0])
    assert not np.array_equal(batches[0]["index"], batches[1]["index"])


def test_positions_rise_and_stay_below_a_million(maker):
    rng = random.Random(0)
    largest = 0
    for _ in range(200):
        positions = maker.positions(rng, 512)
        assert (np.diff(positions) >= 1).all() and positions[-1] < 1_048_576
        largest = max(largest, int(positions[-1]))
    assert largest > 500_000


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_documents(small_corpus, task):
    tasks = load_tasks()
    maker = SequenceMaker(
        Corpus(small_corpus).held_out, load_tokenizer(), tasks, held_out_words(tasks)
    )
    ids, spans = document(maker, random.Random(3), task, 2048, 6)
    assert len(ids) == 2048
    text, pairs = split(ids, maker.tokenizer)
    assert len(pairs) == len(spans)
    for (_, answer), (start, end, depth) in zip(pairs, spans):
        assert (
            maker.tokenizer.decode(ids[start : end - 1].tolist()) == answer and ids[end - 1] == END
        )
        assert 0 <= depth <= 1
        assert all(
            part.strip() in text
            for part in (answer.split(", ") if task == "multivalue" else [answer])
        )


def test_tokenizer_is_the_promised_one(root):
    with open(root / "models" / "msa-mini" / "tokenizer.json", encoding="utf-8") as handle:
        data = json.load(handle)
    assert data["normalizer"] is None and data["post_processor"] is None
    assert [p["type"] for p in data["pre_tokenizer"]["pretokenizers"]] == ["Digits", "ByteLevel"]
    tokenizer = load_tokenizer()
    assert tokenizer.get_vocab_size() == 4096
    assert [
        tokenizer.token_to_id(t) for t in ("<|begin|>", "<|user|>", "<|assistant|>", "<|end|>")
    ] == [0, 1, 2, 3]
    every_byte = bytes(range(256)).decode("latin-1") + "€ 😀"
    assert tokenizer.decode(tokenizer.encode(every_byte).ids) == every_byte
    assert tokenizer.encode("12345").tokens == ["1", "2", "3", "4", "5"]


def test_held_out_files_are_held_out_by_name():
    assert is_held_out("/a/b/x.py") == is_held_out("/other/x.py")


def test_held_out_phrasings_have_words_that_training_cannot_write():
    folder = Path(training.sequences.__file__).parent
    written = set().union(
        *(
            words_of((folder / name).read_text())
            for name in ("phrases.py", "clauses.py", "prose.py", "words.py", "tasks.json")
        )
    )
    forms = json.loads((folder.parent / "cli" / "heldout.json").read_text())["forms"]
    assert len(forms) >= 40
    for form in forms:
        assert words_of(form["fact"]) - written, form["id"]
