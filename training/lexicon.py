"""Words of the corpus for keys and values: real words in all their tokenisations, which no hand-written list has.

Words that an evaluation puts into keys and values, and all words of the phrasings held out, are left out, so that these
stay new to the model.
"""

import collections
import json
import re
from pathlib import Path

from .prose import HELD_OUT

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
WORD = re.compile(r"(?<![A-Za-z_])[a-z]{3,12}(?![A-Za-z_])")
LEAST, MOST = 3, 20_000


def reserved_words():
    """Lower-case words that training must not put into keys and values."""
    lists = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (HERE / "held_out_words.json", PROJECT / "cli" / "words.json")
    ]
    words = {word.lower() for entries in lists for group in entries.values() for word in group}
    for path in HELD_OUT:
        words |= set(re.findall(r"[a-z]+", path.read_text(encoding="utf-8").lower()))
    return words


def corpus_words(texts):
    """The most frequent words of the corpus' texts, in alphabetical order, without reserved ones."""
    counts = collections.Counter()
    for text in texts:
        counts.update(WORD.findall(text))
    reserved = reserved_words()
    frequent = [
        word for word, count in counts.most_common() if count >= LEAST and word not in reserved
    ]
    return sorted(frequent[:MOST])
