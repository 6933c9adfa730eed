"""The runner's tokenizer against Python `tokenizers` on the shipped tokenizer.json: ids equal, and text comes back.

Special tokens inside a text are text to the runner, so `tokenizers` is told to take them as text too.
"""

import random
import sysconfig
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

SEED = 77
NUM_RANDOM = 6000
NUM_FILES = 60
SAMPLE_STEP = 41

SPACES = (
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2007\u200b\u2028\u2029\u202f\u205f\u3000"
    "\ufeff"
)
DIGITS = (
    "0123456789\u0663\u06f7\u0966\u0e53\u2155\u2167\u216f\u00b2\u00bd\u3007\u4e09\u96f6\U0001d7d9"
    "\U00010107\u24f5"
)
MARKS = "\u0301\u0308\u20dd\u0903\u093f\u05bc\u3099\ufe0f\u200d\u1ab0"
LETTERS = "aZßéıİſΣςжאبह한中文〆々ªºǅʰⅰ𝒜𠀀ﬁÅ"
EMOJI = [
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "\u2764\ufe0f",
    "1\ufe0f\u20e3",
]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "\u2019s", "''s", " 's", "'"]

BY_HAND = [
    "", " ", "  ", "   a", "a   ", "a  b", "\n", "\n\n \n", " \n a", "\t\tx", "\r\n\r\n", "a\u00a0 b",
    "\x00", "\x00\x7f\x80", "<|begin|>", "x<|end|>y", "<|user|> hi", "<|begin", "can't won't I'm",
    "you'll he'd", "1234567890", " 12 34", "3.14e-10", "x1y2", "x 1", "1 x", "Ⅷ+½=²", "٣٤٥",
    "e\u0301", "\u0301", " \u0301", "\u200b", "\ufeffBOM", "\ufffd", "\U0010ffff", "ſ", "İ",
    "a" * 5000, "ab" * 4000, "\u4e2d" * 3000, " " * 3000, "\n" * 3000, "0" * 3000, "!" * 3000,
    "\U0001f600" * 1000, "_" * 77, "==" * 300, "__init__", "camelCaseWord", "snake_case_word",
    "    def f(self, x=1):\n        return x\n",
]  # fmt: skip


def any_character(source):
    """Any Unicode scalar value, the assigned ones preferred."""
    while True:
        code = source.randrange(source.choice([0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000]))
        if 0xD800 <= code < 0xE000:
            continue
        if unicodedata.category(chr(code)) != "Cn" or source.random() < 0.1:
            return chr(code)


def random_text(source):
    makers = [
        lambda: source.choice(SPACES),
        lambda: " " * source.randrange(1, 5),
        lambda: source.choice(DIGITS),
        lambda: str(source.randrange(10**6)),
        lambda: source.choice(MARKS),
        lambda: source.choice(LETTERS),
        lambda: "".join(source.choices("etaoinshrdlu", k=source.randrange(1, 12))),
        lambda: source.choice(EMOJI),
        lambda: source.choice(CONTRACTIONS),
        lambda: source.choice('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'),
        lambda: any_character(source),
    ]
    return "".join(source.choice(makers)() for _ in range(source.randrange(1, 60)))


def character_texts():
    """Unicode scalar values between letters, digits and spaces, so that the class of each shows: all
    assigned ones, and a sample of the ideographs, the private ones and those without a meaning."""
    repetitive = ("CJK UNIFIED", "CJK COMPAT", "HANGUL SYLLABLE", "TANGUT")
    characters = []
    for code in range(0x110000):
        character = chr(code)
        if 0xD800 <= code < 0xE000:
            continue
        name = unicodedata.name(character, "")
        sampled = code >= 0x100 and (name == "" or name.startswith(repetitive))
        if sampled and code % SAMPLE_STEP != 0:
            continue
        characters.append(character)
    return [
        "".join(f"a{c}{c} {c}7{c}" for c in characters[first : first + 512])
        for first in range(0, len(characters), 512)
    ]


def source_files():
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(library.glob("*.py")) + sorted((library / "encodings").glob("*.py"))
    step = max(1, len(files) // NUM_FILES)
    return [path.read_text(encoding="utf-8", errors="replace") for path in files[::step]]


@pytest.fixture(scope="module")
def theirs(tokenizer_file):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.encode_special_tokens = True
    return tokenizer


def compare(probe, tokenizer_file, theirs, texts):
    """Returns how many ids were compared."""
    answers = probe.tokenize(tokenizer_file, [text.encode("utf-8") for text in texts])
    expected = theirs.encode_batch(texts, add_special_tokens=False)
    assert len(answers) == len(expected) == len(texts)
    compared = 0
    for text, answer, reference in zip(texts, answers, expected, strict=True):
        assert answer is not None, f"refused: {text[:80]!r}"
        ids, decoded = answer
        if ids != reference.ids:
            pairs = zip(ids, reference.ids, strict=False)
            n = next(
                (n for n, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(reference.ids))
            )
            start = reference.offsets[n][0] if n < len(reference.offsets) else len(text)
            near = text[max(0, start - 10) : start + 30]
            got, wanted = ids[n : n + 6], reference.ids[n : n + 6]
            pytest.fail(f"token {n}: got {got}, expected {wanted}, near {near!r}")
        assert decoded == text.encode("utf-8")
        compared += len(ids)
    return compared


def test_texts_by_hand(probe, tokenizer_file, theirs):
    assert compare(probe, tokenizer_file, theirs, BY_HAND) > 5000


def test_random_texts(probe, tokenizer_file, theirs):
    source = random.Random(SEED)
    texts = [random_text(source) for _ in range(NUM_RANDOM)]
    assert compare(probe, tokenizer_file, theirs, texts) > 60 * NUM_RANDOM


def test_characters_of_every_class(probe, tokenizer_file, theirs):
    texts = character_texts()
    assert sum(map(len, texts)) > 7 * 55_000
    assert compare(probe, tokenizer_file, theirs, texts) > 700_000


def test_source_files(probe, tokenizer_file, theirs):
    texts = source_files()
    assert len(texts) >= NUM_FILES and sum(map(len, texts)) > 500_000
    assert compare(probe, tokenizer_file, theirs, texts) > 150_000


def test_the_comparison_notices_a_difference(probe, tokenizer_file, theirs):
    """An id sequence of another text must not pass."""

    class Other:
        def encode_batch(self, texts, **options):
            return theirs.encode_batch([text + "x" for text in texts], **options)

    with pytest.raises(pytest.fail.Exception):
        compare(probe, tokenizer_file, Other(), ["one text"])


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"a\xc0\xafb",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"ok \x80",
        b"\xf8\x88\x80\x80\x80",
    ],
)
def test_invalid_utf8_is_refused(probe, tokenizer_file, text):
    assert probe.tokenize(tokenizer_file, [b"fine", text, b"fine"])[1] is None
