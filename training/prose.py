"""Phrasings from the corpus: its sentences with a key and a value in place of two words, and lines of made-up code.

In the grammar (phrases.py) a function word or a sign ends the value. Real sentences have any word there:

  corpus    "The daemon discards stale packets whenever the buffer overflows."
  fact      "The daemon discards {value} packets whenever the {key} overflows."
  question  "What packets does the daemon discard whenever the {key} overflows?"

What can be learned is a rule, not a list: the value is what the line of the key has and the question has not. So the
content words beside the value nearly always return in the question, often in another form of the word.
"""

import json
import re
from pathlib import Path

from .phrases import joined
from .reword import FUNCTION, inflected

HERE = Path(__file__).resolve().parent
HELD_OUT = (
    HERE.parent / "cli" / "heldout.json",
    HERE.parent / "bench" / "model" / "heldout_seen.json",
)
GENERATOR = ("phrases.py", "clauses.py", "words.py", "tasks.json")
SENTENCE = re.compile(r"(?<![\w.] )\b[A-Z][a-z']*(?: [A-Za-z][a-z']*[,;]?){5,15}(?=[.!?:])")
MOST = 40_000
SHORTEST_CONTENT = 4
CODE_SHARE = 0.2
VERBATIM = 0.6  # how often a word of the question stands in the same form as in the fact

DETERMINERS = frozenset((
    "a", "an", "the", "this", "that", "its", "his", "her", "their", "our", "your", "my", "each", "every", "any",
    "some", "no",
))  # fmt: skip
ASKING = (
    "What", "What", "What", "What", "Which", "Which", "Who or what", "How", "Where", "To what", "With what", "By what",
    "Under which", "Which word", "Which number", "Which name", "At what", "For what",
)  # fmt: skip
HELPERS = ("", "", "does", "did", "did", "is", "was", "are", "will", "should", "can", "has")
QUOTES = (
    ('"', '"'), ("'", "'"), ("<", ">"), ("(", ")"), ("[", "]"), ("`", "`"), ("**", "**"), ("{", "}"), ("_", "_"),
)  # fmt: skip
JOINTS = (
    "=", " = ", ": ", ", ", " => ", " -> ", " := ", " | ", " == ", " <- ", "; ", " :: ", " ... ", " * * * ",
)  # fmt: skip


def words_of(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def forbidden_words():
    """Words of the phrasings held out that the generator does not know: no sentence with one of them is taken."""
    known = set().union(
        *(words_of((HERE / name).read_text(encoding="utf-8")) for name in GENERATOR)
    )
    lists = [json.loads(path.read_text(encoding="utf-8"))["forms"] for path in HELD_OUT]
    forms = [form for forms in lists for form in forms]
    held_out = set().union(*(words_of(form["fact"] + " " + form["question"]) for form in forms))
    return held_out - known - {"key", "value"}


def corpus_sentences(texts):
    """[[word, ...]] of the corpus' texts, without what an evaluation says, each sentence once, in their order."""
    forbidden, found = forbidden_words(), {}
    for text in texts:
        for sentence in SENTENCE.findall(re.sub(r"(?<!\n)\n[ \t]*(?!\n)", " ", text)):
            if not forbidden & words_of(sentence):
                found.setdefault(sentence)
        if len(found) >= MOST:
            break
    return [sentence.split() for sentence in list(found)[:MOST]]


def bare(word):
    return word.strip(",;").lower()


def is_content(word):
    return len(bare(word)) >= SHORTEST_CONTENT and bare(word) not in FUNCTION


def other_form(rng, word):
    """The word with another ending, as a question has it: discarded, discards, discard."""
    for ending in ("ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + rng.choice(("", "", "e", "s"))
    return inflected(word, rng.choice(("s", "ed", "ing")))


def said_again(rng, words, beside, share):
    """Words of the fact as the question has them; those at the places `beside` are nearly always there."""
    kept = []
    for place, word in enumerate(words):
        if word == "{key}":
            kept.append(word)
            continue
        content = is_content(word)
        keep = 0.92 if content and place in beside else share if content else 0.55
        if rng.random() < keep:
            word = word.rstrip(",;")
            word = word if word.isupper() else word[0].lower() + word[1:]
            kept.append(word if not content or rng.random() < VERBATIM else other_form(rng, word))
    return kept


def asked(rng, before, after, beside_before, beside_after):
    """A question of the words before and after the value; one of them holds the key."""
    share = rng.choice((0.4, 0.8, 0.95))
    first = said_again(rng, before, beside_before, share)
    second = said_again(rng, after, beside_after, share)
    order = first + second if rng.random() < 0.6 else second + first
    if rng.random() < 0.25:  # the key last, as in "What does it discard for the {key}?"
        order.remove("{key}")
        order += [rng.choice(("for", "of", "in", "with", "about", "on", "the")), "{key}"]
    start = [rng.choice(ASKING)]
    helper = rng.choice(HELPERS)
    if helper:
        start.append(helper)
    return " ".join(start + order) + rng.choice(("?", "?", "?", ""))


def sentence_form(rng, sentences):
    while True:
        words = list(rng.choice(sentences))
        key = rng.randrange(len(words))
        value = rng.randrange(len(words))
        # Between key and value must stand something that says where one ends.
        if abs(key - value) > 1 and bare(words[key]) not in DETERMINERS:
            break
    for place, name in ((key, "{key}"), (value, "{value}")):
        words[place] = name + words[place][len(words[place].rstrip(",;")) :]
    if rng.random() < 0.15:
        opening, closing = rng.choice(QUOTES)
        words[value] = words[value].replace("{value}", opening + "{value}" + closing)
    if rng.random() < 0.5 and not (key and bare(words[key - 1]) in DETERMINERS):
        words[key] = "the " + words[key]
    fact = " ".join(words) + rng.choice((".", ".", ".", "", "!", ";"))
    plain = ["{key}" if place == key else word for place, word in enumerate(words)]
    before, after = plain[:value], plain[value + 1 :]
    question = asked(rng, before, after, {len(before) - 1, len(before) - 2}, {0, 1})
    return {"id": "sentence", "fact": fact, "question": question}


def code_form(rng, sentences):
    """A line of code, markup or a list, with words of the corpus around key and value."""
    drawn = [word for word in map(bare, rng.choice(sentences)) if is_content(word)] or ["entry"]
    word, other = rng.choice(drawn), rng.choice(drawn)
    head = rng.choice(
        (
            "",
            "",
            f"{word} ",
            f"{word}(",
            f"@{word} ",
            f"{word}: ",
            "* * * ",
            f"<{word}> ",
            "- ",
            f"{word}.",
        )
    )
    tail = rng.choice(
        ("", "", ";", f"  # {other}", f" // {other}", f" when {other}", ",", f" {other}", " * * *")
    )
    tail = ")" + tail if head.endswith("(") else tail
    opening, closing = rng.choice(QUOTES + (("", ""),) * 6)
    value = opening + "{value}" + closing
    opening, closing = rng.choice(QUOTES + (("", ""),) * 20)
    key = opening + "{key}" + closing
    joint = rng.choice(JOINTS)
    if rng.random() < 0.3:
        joint = rng.choice((f"{joint}{other} ", f" {other}{joint}", f" {other} "))
    first, second = (key, value) if rng.random() < 0.6 else (value, key)
    named = [w for w in dict.fromkeys((word, other)) if w in head + joint + tail]
    named = [
        w if rng.random() < VERBATIM else other_form(rng, w) for w in named if rng.random() < 0.85
    ]
    start = joined(rng.choice(ASKING), rng.choice(HELPERS))
    question = joined(start, *named, key if rng.random() < 0.3 else "{key}")
    if rng.random() < 0.3:
        question = joined(start, "{key}", *named)
    return {"id": "code", "fact": head + first + joint + second + tail, "question": question + "?"}


def prose_form(rng, sentences):
    """{id, fact, question} like an entry of tasks.json's forms."""
    return (code_form if rng.random() < CODE_SHARE else sentence_form)(rng, sentences)


def clause(rng, sentences):
    """A value of two to five words of a sentence, as people answer: "behind the second buffer"."""
    while True:
        words = [word.rstrip(",;") for word in rng.choice(sentences)]
        count = rng.choice((2, 3, 3, 4, 5))
        start = rng.randrange(len(words) - count + 1)
        chosen = words[start : start + count]
        if is_content(chosen[-1]):
            return " ".join(chosen)
