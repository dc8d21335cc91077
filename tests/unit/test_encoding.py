"""Text to ids: a document in pieces as a whole, and what no tokenizer may do silently."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from mudd_interp import data, encoding
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.encoding import check_text, decode, encode, encode_document, token_text

ByteLevel = pre_tokenizers.ByteLevel
BUNDLED = data.BUNDLED_PACK.with_name("tokenizer.json")
LLAMA3 = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def text_of_all_kinds(characters: int) -> str:
    draw = random.Random(0)
    kinds: list[Callable[[], str]] = [
        lambda: draw.choice(["area", "return", "_x", "it's", "<|endoftext|>", "1234567", "x = y"]),
        lambda: draw.choice([" ", "  ", "\n", "\n\n\n", "\t", "\r\n", " " * draw.randint(1, 60)]),
        lambda: draw.choice(["é", "e\u0301", "😀", "👩‍👩‍👧", "漢字", "ﬁ", '"', "'", "..."]),
        lambda: draw.choice("a─ ") * draw.randint(1, 300),
    ]
    parts = [draw.choices(kinds, [5, 5, 3, 1])[0]() for _ in range(characters // 5)]
    return "".join(parts)[:characters]


TEXTS = {
    "of all kinds": text_of_all_kinds(60_000),
    "spaces": " " * 15_000 + "x" + "\n" * 10_000,
    "one letter": "a" * 20_000,
    "no spaces": "漢字仮名交じり文" * 2_500,
    "long quotes": ("x" + "y z" * 500 + '"' + "b c" * 3000) * 3,
    "a window": "a b " * 2**11,
    "a window and a letter": "a b " * 2**11 + "b",
    "short": "ab",
}
SAMPLE = TEXTS["of all kinds"][:30_000]


def trained(model, trainer, pre_tokenizer=None, normalizer=None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator([SAMPLE], trainer)
    return tokenizer


def byte_level(pre_tokenizer, normalizer=None) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    return trained(models.BPE(), trainer, pre_tokenizer, normalizer)


def split_by(pattern: str | Regex) -> Tokenizer:
    split = pre_tokenizers.Split(pattern, "isolated")
    byte = ByteLevel(add_prefix_space=False, use_regex=False)
    return byte_level(pre_tokenizers.Sequence([split, byte]))


def neox() -> Tokenizer:
    tokenizer = byte_level(ByteLevel(add_prefix_space=False), normalizers.NFC())
    tokenizer.add_tokens([AddedToken(" " * n, normalized=False) for n in range(2, 25)])
    return tokenizer


def metaspace(pre_tokenizer) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=["<unk>"], show_progress=False)
    tokenizer = trained(models.BPE(unk_token="<unk>", fuse_unk=True), trainer, pre_tokenizer)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def llama2() -> Tokenizer:
    tokenizer = metaspace(pre_tokenizers.Metaspace())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def unsplit() -> Tokenizer:
    tokenizer = metaspace(pre_tokenizers.Metaspace())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def word_piece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(
        vocab_size=1000, special_tokens=["[UNK]"], show_progress=False
    )
    model = models.WordPiece(unk_token="[UNK]")
    splits = pre_tokenizers.BertPreTokenizer()
    return trained(model, trainer, splits, normalizers.BertNormalizer())


def unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    return trained(models.Unigram(), trainer, pre_tokenizers.Metaspace(), normalizers.NFKC())


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bundled": lambda: Tokenizer.from_file(str(BUNDLED)),
    "GPT-2": lambda: byte_level(ByteLevel(add_prefix_space=False)),
    "GPT-2 with a space in front": lambda: byte_level(ByteLevel(add_prefix_space=True)),
    "GPT-NeoX": neox,
    "Llama 3": lambda: split_by(LLAMA3),
    "whole lines": lambda: split_by(Regex(r"[^\n]*\n|[^\n]+")),
    "quotes as words": lambda: split_by(Regex(r'"[^"]*"|[^"]+|"')),
    "Metaspace": lambda: metaspace(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "Metaspace, unsplit": unsplit,
    "Llama 2": llama2,
    "WordPiece": word_piece,
    "Unigram": unigram,
}


def fast(tokenizer: Tokenizer) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_document_in_pieces_has_the_ids_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "_WINDOW", 2**13)
    tokenizer = fast(TOKENIZERS[name]())
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    for kind, text in TEXTS.items():
        whole = tokenizer(text, **options)["input_ids"]
        for size in (len(text), 1_009):
            pieces = (text[start : start + size] for start in range(0, len(text), size))
            found = [token for ids in encode_document(tokenizer, pieces) for token in ids]
            assert found == whole, (kind, size)


def test_a_document_is_given_out_as_it_is_read():
    tokenizer, read = fast(TOKENIZERS["bundled"]()), list[int]()

    def pieces():
        for number in range(1000):
            read.append(number)
            yield "x = 1\n" * 1000

    next(iter(encode_document(tokenizer, pieces())))
    assert len(read) < 30


PEAK = """
import sys
from pathlib import Path
from mudd_interp import data
from mudd_interp.checkpoints.tokenizer import load_tokenizer

def memory(field):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(field + ":")[2].split()[0])

tokenizer = load_tokenizer(Path(sys.argv[1]))
for name in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = memory("VmRSS")
    batches = data.file_batches([name], tokenizer, data.Packing(n_ctx=256))
    assert data.count_sequences(batches) > 100
    print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_text(tmp_path: Path):
    files = [tmp_path / "short.txt", tmp_path / "long.txt"]
    for path, times in zip(files, (3, 50), strict=True):
        path.write_text(TEXTS["of all kinds"] * times)
    program = [sys.executable, "-c", PEAK, str(BUNDLED), *map(str, files)]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    short, long = map(int, run.stdout.split())
    # 3 MB of text: as one piece it took 500 MB more.
    assert long < short + 50e6, (short, long)


# --- What a tokenizer may not do without a word -------------------------------------------------


def whitespace_split(model) -> Any:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast(tokenizer)


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"a": 0}),
        models.BPE({"a": 0, "b": 1}, []),
        models.WordPiece({"a": 0}),
        models.Unigram([("a", 0.0)]),
    ],
)
def test_an_unknown_character_is_named(model):
    tokenizer = whitespace_split(model)
    assert encode(tokenizer, "a a") == [0, 0]
    for call in (encode, lambda t, text: list(encode_document(t, [text]))):
        with pytest.raises(ValueError, match="has no token for 'é', and none for unknown text"):
            call(tokenizer, "a é a")


def test_what_a_normalizer_removes_is_not_unknown():
    backend = Tokenizer(models.BPE({"a": 0}, []))
    backend.normalizer = normalizers.Replace("\u200b", "")
    assert encode(fast(backend), "a\u200ba") == [0, 0]


def test_merges_are_not_dropped_and_dropout_stays_set():
    merges = models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.9)
    tokenizer = whitespace_split(merges)
    assert all(encode(tokenizer, "abababab") == [2] * 4 for _ in range(20))
    assert list(encode_document(tokenizer, ["abab"])) == [[2, 2]]
    assert tokenizer.backend_tokenizer.model.dropout == pytest.approx(0.9)


def test_a_pattern_that_does_not_end_is_an_error_in_words():
    backend = Tokenizer(models.BPE({"a": 0, "c": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(?:a+a+)+c"), "isolated")
    with pytest.raises(ValueError, match=r"broke down on a text of 60 characters \(.*retry-limit"):
        encode(fast(backend), "a" * 60)
    assert encode(fast(backend), "ac") == [0, 1]


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(ValueError, match="not text, at character 1"):
        check_text("a\ud83d")
    with pytest.raises(ValueError, match="not text, at character 0"):
        encode(fast(TOKENIZERS["bundled"]()), "\ud83d")


def test_other_errors_are_not_the_tokenizers():
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(interrupted, "a")


# --- Special tokens, and what a token reads -----------------------------------------------------


def test_a_special_token_is_itself_in_a_prompt_and_text_in_a_document():
    tokenizer = load_tokenizer(BUNDLED)
    text = "a <|endoftext|> b"
    assert encode(tokenizer, text).count(0) == 1
    (ids,) = encode_document(tokenizer, [text])
    assert 0 not in ids
    assert decode(tokenizer, ids) == text
    assert encode(tokenizer, text).count(0) == 1  # the document left nothing behind


@pytest.mark.parametrize("name", ["Metaspace", "Metaspace, unsplit", "Llama 2"])
def test_a_space_that_belongs_to_a_token_is_shown(name: str):
    tokenizer = fast(TOKENIZERS[name]())
    ids = encode(tokenizer, "area return x")
    assert "".join(token_text(tokenizer, token) for token in ids) == " area return x"
    assert decode(tokenizer, ids) == "area return x"
    (space,) = (tokenizer.get_vocab()[token] for token in ["▁"])
    assert token_text(tokenizer, space) == " "
    longest = max(n for n in range(1, 9) if "▁" * n in tokenizer.get_vocab())
    assert token_text(tokenizer, tokenizer.get_vocab()["▁" * longest]) == " " * longest


def test_tokens_of_one_character_read_as_parts_of_it():
    tokenizer = fast(TOKENIZERS["GPT-2"]())
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    ids = encode(tokenizer, "a🙏 b")
    assert [token_text(tokenizer, token) for token in ids] == ["a", *["�"] * 3, " ", "b"]
    assert decode(tokenizer, ids) == "a🙏 b"


def test_a_space_between_words_is_no_part_of_them():
    tokenizer = whitespace_split(models.WordLevel({"a": 0, "b": 1}))
    assert [token_text(tokenizer, token) for token in encode(tokenizer, "a b")] == ["a", "b"]


def test_an_id_without_a_token_reads_as_that_id():
    tokenizer = fast(TOKENIZERS["bundled"]())
    assert token_text(tokenizer, 5000) == "<5000>"
    assert decode(tokenizer, [5000]) == ""
    with pytest.raises(ValueError, match="token ids must lie in 0"):
        decode(tokenizer, [3, -1])
    assert encoding.token_ids(tokenizer, 10) == list(range(10))
