"""A byte-level BPE tokenizer made for Python source."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mudd_interp.axes import END_OF_TEXT
from mudd_interp.files import replacing

TOKENIZER = Path(__file__).parent.parent / "bundled" / "tokenizer.json"
END_OF_TEXT_ID = 0
D_VOCAB = 4096

# Each newline by itself, so that "\n" is one token and the indentation after it another; runs of
# two or more spaces by themselves; a single space belongs to the name, digit or operator after it.
_PIECES = (
    r"\n",
    r" {2,}",
    r" ?[\p{L}\p{M}_]+",
    r" ?\p{N}",
    r" ?[^\s\p{L}\p{M}\p{N}_]+",
    r"[^\S\n ]+",
    r" ",
)


def train_tokenizer(texts: Iterable[str], d_vocab: int = D_VOCAB) -> Tokenizer:
    """Learn the merges from texts; the same texts in the same order give the same tokenizer.

    Args:
        texts: Training documents.
        d_vocab: The number of entries, ``<|endoftext|>`` (id 0) and the 256 bytes included.

    Raises:
        ValueError: If there is too little text for that many entries.
    """
    tokenizer = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != d_vocab:
        got = tokenizer.get_vocab_size()
        raise ValueError(f"expected {d_vocab} entries, the texts gave {got}: give more text.")
    return tokenizer


def _untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join(_PIECES)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def save_trained_tokenizer(tokenizer: Tokenizer, path: Path = TOKENIZER) -> None:
    """Write the tokenizer as one JSON file that ``transformers`` reads too."""
    with replacing(path) as temporary:
        tokenizer.save(str(temporary), pretty=False)


def load_packing_tokenizer(path: Path = TOKENIZER) -> Tokenizer:
    """Read a tokenizer for packing: where a text spells ``<|endoftext|>``, it stays text.

    The sources of ``transformers`` spell the special token in string literals; only the packer may
    insert the real one.
    """
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer
