"""Phrasings with other words: the content words of a form replaced by words of the corpus and by made-up ones.

  form      "The clerk labelled the {key} with {value} before noon."   "What did the clerk label the {key} with?"
  reworded  "The gasket vortised the {key} with {value} before plum."  "What did the gasket vortis the {key} with?"

The same word in the fact and in the question, in whatever form, stays the same word. What is left to learn is the
grammar around key and value, whichever words fill it.
"""

import re

TOKEN = re.compile(r"\{key\}|\{value\}|[A-Za-z][A-Za-z']*")
SHORTEST = 3
STEM = 5
SHARES = (0.35, 0.7, 1.0)  # of the content words of one form

FUNCTION = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "it", "its", "he", "his", "she", "her", "him", "they",
    "their", "them", "we", "our", "us", "you", "your", "i", "my", "me", "who", "whom", "whose", "which", "what",
    "when", "where", "how", "why", "if", "then", "than", "as", "at", "by", "for", "from", "in", "into", "of", "off",
    "on", "onto", "or", "and", "but", "nor", "not", "no", "so", "to", "too", "up", "down", "with", "without",
    "within", "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "having", "do", "does", "did",
    "can", "could", "may", "might", "must", "shall", "should", "will", "would", "there", "here", "all", "any", "each",
    "every", "some", "such", "only", "also", "just", "more", "most", "much", "many", "other", "another", "about",
    "above", "after", "again", "against", "before", "below", "between", "both", "during", "few", "further", "once",
    "over", "own", "same", "through", "under", "until", "very", "while", "because",
))  # fmt: skip
ENDINGS = ("ing", "ied", "ies", "ed", "es", "s", "e")


def is_content(word):
    return len(word) >= SHORTEST and word.lower() not in FUNCTION


def ending_of(word):
    """The inflection of a word as it is spelt, "" for none."""
    for ending in ENDINGS[:-1]:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST:
            return {"ied": "ed", "ies": "s", "es": "s"}.get(ending, ending)
    return ""


def stem_of(word):
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST:
            word = word[: -len(ending)]
            break
    return word[:STEM]


def inflected(word, ending):
    return word[:-1] + ending if word.endswith("e") and ending in ("ed", "ing") else word + ending


def reworded(rng, form, draw):
    """The form with a share of its content words replaced; draw(rng) gives a lower-case word."""
    share, chosen = rng.choice(SHARES), {}

    def replaced(match):
        word = match.group()
        if word.startswith("{") or not is_content(word):
            return word
        lower = word.lower()
        stem = stem_of(lower)
        if stem not in chosen:
            chosen[stem] = draw(rng) if rng.random() < share else None
        if chosen[stem] is None:
            return word
        text = inflected(chosen[stem], ending_of(lower))
        return text.capitalize() if word[0].isupper() else text

    return dict(
        form,
        id="reworded",
        fact=TOKEN.sub(replaced, form["fact"]),
        question=TOKEN.sub(replaced, form["question"]),
    )
