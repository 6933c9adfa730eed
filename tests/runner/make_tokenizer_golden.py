"""Writes tests/runner/golden: a small byte-level BPE and what Hugging Face tokenizers makes of hostile text with it.

    python tests/runner/make_tokenizer_golden.py

tokenizer.json  vocabulary of 700 tokens, trained on the lines below; Digits, then ByteLevel
encodings.json  [{text, one list of ids for each order of the pre-tokenizers}]
sweep.json      every code point below U+33480 in three surroundings, as a count and a hash of the ids
"""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = Path(__file__).parent / "golden"
SPECIALS = ["<|begin|>", "<|user|>", "<|assistant|>", "<|end|>"]
SWEEP_END = 0x33480

LINES = [
    "The block that holds the query is always read; the others are chosen by their best score.",
    "for (int64_t i = 0; i < num_rows; ++i) { sum += row[i] * scale; }  // it's all float32",
    "def attend(query, keys, values):\n    return softmax(query @ keys.T / 8) @ values\n",
    "We've got 1024 tokens, they'll need 16 blocks, and that's what you'd expect.",
    "Größe über Straße, façade déjà vu, naïve coöperation, señor, København, Łódź.",
    "Быстрая бурая лиса прыгает через ленивую собаку. Ещё раз: сорок два.",
    "注意力只读取被选中的块。查询位置所在的块总是被读取。",
    "すべての層がスパースです。カタカナとひらがな。",
    "모든 층이 희소합니다. 블록 선택.",
    "الانتباه المتناثر يقرأ الكتل المختارة فقط.",
    "विरल ध्यान केवल चुने हुए खंड पढ़ता है।",
    "\t\tindent\n\n\n    four spaces   three   \r\n windows line \u00a0nbsp\u3000ideographic",
    "emoji 😀😃👍🏽👨‍👩‍👧‍👦🇩🇰 and symbols ±×÷√∞≈≠≤≥ → ⇒ █▓▒░",
]

TEXTS = [
    "",
    " ",
    "  ",
    "   x",
    "x   ",
    "x  y",
    "\n",
    "\n\n",
    " \n x",
    "\t\t\tx\t",
    "a\u00a0b\u00a0\u00a0c",
    "a\u3000\u3000b\u2003c\u2028d\u2029e\u0085f",
    "zero\u200bwidth\u200c\u200djoin\ufeffbom",
    "\u1680\u2000\u202f\u205f",
    "I'm it's don't we've they'll you're he'd 'S 'T x's's's '' 'x 'ret 'll'd",
    "I’m it’s",
    "'",
    " 's",
    "1 22 333 4.5e-6 0x7fff 1,000,000",
    "٣٤٥ ४५६ ๑๒๓ 一二三 ⅷ Ⅻ ½ ¾ ² ³ ¹ ⑳ 〇 𝟘𝟙𝟚 ꧐ 𞥐",
    "a1b2c3 4d 5 e6",
    "x²y³ ±1 µ ª º ¼",
    "\U00011de0\U00011de9\U00016ff4 digits of a newer Unicode",
    "\U00016d70\U0001ccf0 \U00013460\U000105c0 letters of Unicode 16",
    "e\u0301 n\u0303o\u0308 a\u0300\u0301\u0302\u0303 \u0301 \u0301x ก็ นี่ क्षि ਪੰਜਾਬੀ",
    "😀 😃👍🏽 👨‍👩‍👧‍👦 🇩🇰🇸🇪 ❤️ 1️⃣",
    "漢字かな交じり文。中文，标点！한국어 텍스트",
    "Ελληνικά Русский עברית العربية हिन्दी ไทย ქართული Հայերեն",
    "\u202eright to left\u202c \u2066isolate\u2069",
    "\ue000\uf8ff\U000f0000\U0010fffd private",
    "\ufffe\uffff\U0001ffff\U0010ffff not characters",
    "\u0378\u0379\U0003ffff not assigned",
    "".join(chr(c) for c in range(1, 0x100)),
    "\x00\x01\x7f\x80\x9f",
    "<|begin|><|user|> is only text<|end|",
    "_snake_case CamelCase kebab-case path/to/file.cpp #include <vector>",
    "    indented\n        more\n\tand tab \n",
    "...!!!???---===***",
    " . , ; :",
    "a" * 300,
    "ab" * 200,
    "=" * 257,
    " " * 100 + "x",
    "the" * 50,
    "\u00df\u1e9e\ufb01\u01c5\u02b0\u2160\u24b6",
    "\r\n\r\n x \r y",
    "\x0b\x0c\x1c\x1d\x1e\x1f|",
]


def random_texts():
    rng = random.Random(20261123)
    pools = [
        "abcdefgh ABC",
        "  \t\n\r\u00a0\u3000\u2009",
        "0123456789²½٣",
        "'stremlvd ",
        "éüñøßж漢あ한",
        "\u0301\u0308\u200d\ufe0f",
        "😀👍🏽🇩🇰",
        ".,;:!?()[]{}<>=+-*/",
    ]
    for _ in range(60):
        chosen = rng.sample(pools, rng.randint(1, 4))
        yield "".join(rng.choice(rng.choice(chosen)) for _ in range(rng.randint(1, 60)))
    for _ in range(20):
        points = [rng.randrange(0x110000) for _ in range(30)]
        yield "".join(chr(c) for c in points if not 0xD800 <= c < 0xE000)


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def hash_ids(ids):
    """FNV-1a, 64 bits, over the ids as little-endian 32-bit words."""
    value = 0xCBF29CE484222325
    for token in ids:
        for byte in token.to_bytes(4, "little"):
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def main():
    FOLDER.mkdir(exist_ok=True)
    tokenizer = train()
    base = json.loads(tokenizer.to_str())
    (FOLDER / "tokenizer.json").write_text(json.dumps(base) + "\n")
    digits, byte_level = base["pre_tokenizer"]["pretokenizers"]
    orders = {
        "byte_level": byte_level,
        "digits_byte_level": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "byte_level_digits": {"type": "Sequence", "pretokenizers": [byte_level, digits]},
    }
    texts = TEXTS + LINES + list(random_texts())
    cases = [{"text": text} for text in texts]
    for order, pre_tokenizer in orders.items():
        variant = Tokenizer.from_str(json.dumps({**base, "pre_tokenizer": pre_tokenizer}))
        variant.encode_special_tokens = True
        for case in cases:
            case[order] = variant.encode(case["text"], add_special_tokens=False).ids
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (FOLDER / "encodings.json").write_text("[\n" + lines + "\n]\n")

    variant = Tokenizer.from_str(json.dumps(base))
    variant.encode_special_tokens = True
    points = [chr(c) for c in range(1, SWEEP_END) if not 0xD800 <= c < 0xE000]
    ids = variant.encode("".join(f"a{c}1{c} {c}!" for c in points), add_special_tokens=False).ids
    sweep = {"end": SWEEP_END, "count": len(ids), "hash": f"{hash_ids(ids):016x}"}
    (FOLDER / "sweep.json").write_text(json.dumps(sweep) + "\n")


if __name__ == "__main__":
    main()
