"""Byte-level BPE of 4096 tokens with single digits, in the Hugging Face tokenizer.json format.

The pre-tokenizer is a Sequence of Digits(individual_digits) and ByteLevel(no prefix space, regex), the decoder is
ByteLevel, there is no normalizer and no post-processor. Ids 0 to 3 are the special tokens, then come all 256 bytes.
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|begin|>", "<|user|>", "<|assistant|>", "<|end|>"]
BEGIN, USER, ASSISTANT, END = range(4)
VOCABULARY = 4096
DEFAULT_PATH = Path(__file__).resolve().parent.parent / "models" / "msa-mini" / "tokenizer.json"


def train_tokenizer(texts, path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=16,
    )
    tokenizer.train_from_iterator(texts, trainer)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def load_tokenizer(path=None):
    return Tokenizer.from_file(str(path or DEFAULT_PATH))
