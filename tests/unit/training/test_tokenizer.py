"""The tokenizer: exact round trips, and the pieces that analyses rely on."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from mudd_interp.axes import END_OF_TEXT
from mudd_interp.training.tokenizer import (
    D_VOCAB,
    TOKENIZER,
    load_packing_tokenizer,
    train_tokenizer,
)

TOKENS = load_packing_tokenizer()
HF = PreTrainedTokenizerFast(
    tokenizer_file=str(TOKENIZER), bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
@example("")
@example("x , y .  \r\n\t\t \x00\ufeff\u200b\u2028 e\u0301 \U0001f600\n\n   \n")
@example("<|endoftext|> <|endoftext|>")
@example("don 't , 's ! ?  .")
def test_every_text_comes_back_exactly(text):
    assert TOKENS.decode(TOKENS.encode(text).ids, skip_special_tokens=False) == text
    assert HF.decode(HF.encode(text)) == text


@given(TEXT)
def test_only_the_packer_places_the_special_token(text):
    assert 0 not in TOKENS.encode(text + END_OF_TEXT).ids


def test_vocabulary_size_and_special_token():
    assert TOKENS.get_vocab_size() == len(HF) == D_VOCAB
    assert TOKENS.token_to_id(END_OF_TEXT) == HF.bos_token_id == 0


def test_a_newline_is_always_one_token_of_its_own():
    holders = [
        token for token in TOKENS.get_vocab() if "\u010a" in token
    ]  # how ByteLevel writes \n
    assert holders == ["\u010a"]


def test_indentation_words_and_digits():
    pieces = [TOKENS.decode([i]) for i in TOKENS.encode("\n        return self.x + 128\n").ids]
    assert pieces == ["\n", " " * 8, "return", " self", ".", "x", " +", " 1", "2", "8", "\n"]


def test_training_is_deterministic():
    texts = ["def area(radius):\n    return 3 * radius\n" * 3, "class Area:\n    pass\n"]
    first, second = (train_tokenizer(texts, 280).to_str() for _ in range(2))
    assert first == second


def test_too_little_text_is_refused():
    with pytest.raises(ValueError, match=r"expected 4096 entries, the texts gave .*: give more"):
        train_tokenizer(["x = 1"])
