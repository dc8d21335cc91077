"""Packing: every token predicted once, and a pack that says correctly where it comes from."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mudd_interp.training.corpus import SourceFile, read_corpus, read_manifest
from mudd_interp.training.packing import (
    STAMP,
    PackedText,
    is_prepared,
    load_stream,
    pack,
    rows,
    stamp,
)
from mudd_interp.training.tokenizer import load_packing_tokenizer
from mudd_interp.training.validation import draw_pack, file_windows, load_pack, save_pack

TOKENS = load_packing_tokenizer()


def source(name: str) -> SourceFile:
    return SourceFile("package", "1.0", name, "", "validation")


@pytest.fixture
def text() -> PackedText:
    documents = [
        (source("a.py"), "x = 1\n" * 40),
        (source("b.py"), "y"),
        (source("c.py"), "z\n" * 30),
    ]
    return pack(documents, TOKENS)


@given(n_ctx=st.integers(1, 20), n_rows=st.integers(1, 9), tail=st.integers(0, 19))
def test_every_token_but_the_first_is_predicted_once(n_ctx, n_rows, tail):
    stream = np.arange(n_rows * n_ctx + 1 + min(tail, n_ctx - 1), dtype=np.uint16)
    cut = rows(stream, n_ctx)
    assert cut[:, :-1].ravel().tolist() == list(range(n_rows * n_ctx))
    assert cut[:, 1:].ravel().tolist() == list(range(1, n_rows * n_ctx + 1))


def test_a_stream_without_a_row_is_refused():
    with pytest.raises(ValueError, match="expected more than 8 tokens, got 8"):
        rows(np.zeros(8, dtype=np.uint16), 8)


def test_documents_stand_behind_the_special_token(text):
    assert text.starts.tolist() == np.flatnonzero(text.stream == 0).tolist()
    assert TOKENS.decode(text.document(1)[1:].tolist()) == "y"
    joined = np.concatenate([text.document(i) for i in range(3)])
    assert np.array_equal(joined, text.stream)


def test_windows_lie_in_one_file_and_name_it(text):
    windows = file_windows(text, 16)
    assert {origin.path for origin in windows.origins} == {"a.py", "c.py"}  # b.py is too short
    for tokens, origin in zip(windows.tokens, windows.origins, strict=True):
        document = text.document([file.path for file in text.files].index(origin.path))
        assert tokens.tolist() == document[origin.offset : origin.offset + 16].tolist()


def test_a_pack_is_drawn_without_repeats_and_round_trips(text, tmp_path):
    drawn = draw_pack(text, np.random.default_rng(0), n_sequences=6, n_ctx=16)
    assert len(set(drawn.origins)) == 6
    save_pack(drawn, tmp_path / "pack.safetensors")
    loaded = load_pack(tmp_path / "pack.safetensors")
    assert loaded.origins == drawn.origins
    assert loaded.tokens.equal(drawn.tokens)
    with pytest.raises(ValueError, match="expected 600 sequences, the text has"):
        draw_pack(text, np.random.default_rng(0), n_sequences=600, n_ctx=16)


def test_the_bundled_pack_is_what_the_held_out_files_say():
    bundled = load_pack()
    assert bundled.tokens.shape == (400, 256)
    held_out = {file.path: file for file in read_manifest() if file.split == "validation"}
    assert {origin.path for origin in bundled.origins} <= set(held_out)
    for index in range(0, 400, 50):
        origin = bundled.origins[index]
        document = pack(list(read_corpus([held_out[origin.path]])), TOKENS).document(0)
        expected = document[origin.offset : origin.offset + 256]
        assert bundled.tokens[index].tolist() == expected.tolist()


def headed(text: str, version: int = 1) -> bytes:
    """A NumPy file with a header of this text, and room for 32 tokens."""
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + bytes(64)


def shaped(shape: str, descr: str = "'<u2'") -> bytes:
    values = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return headed(values.ljust(117) + "\n")


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    """A folder as if it had been prepared."""
    for split, count in (("train", 32), ("validation", 9)):
        np.save(tmp_path / f"{split}.npy", np.arange(count, dtype=np.uint16))
    (tmp_path / STAMP).write_text(json.dumps(stamp(tmp_path)))
    return tmp_path


def test_a_stream_is_read_as_it_was_written(streams):
    assert is_prepared(streams)
    assert (streams / "train.npy").read_bytes()[:128] == shaped("(32,)")[:128]
    assert load_stream(streams, "train").tolist() == list(range(32))
    assert load_stream(streams, "validation").tolist() == list(range(9))
    assert load_stream(streams, "train").dtype == np.uint16


DAMAGED = {
    "empty": b"",
    "zip": b"PK\x03\x04" + bytes(200),
    "pickle": b"\x80\x04.",
    "objects": shaped("(32,)", "'|O'"),
    "other order": shaped("(32,)", "'>u2'"),
    "other precision": shaped("(16,)", "'<u4'"),
    "two axes": shaped("(4, 8)"),
    "longer": shaped("(33,)"),
    "shorter": shaped("(31,)"),
    "huge": shaped(f"({2**62},)"),
    "beyond int64": shaped(f"({10**30},)"),
    "negative": shaped("(-32,)"),
    "truth": shaped("(True,)"),
    "nested": headed("(" * 9000),
    "signs": headed("-" * 9000 + "1"),
    "unclosed": headed("{'descr': '''"),
    "indented": headed("if a:\n  b\n c"),
    "unhashable": headed("{1, [2]}"),
    "long": headed(" " * 2**20, 2),
    "cut": shaped("(32,)")[:-1],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_stream_is_refused(data: bytes, streams: Path):
    (streams / "train.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.npy is damaged or not a stream of tokens"):
        load_stream(streams, "train")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, "null", '{"manifest": 1}'])
def test_a_stamp_that_says_something_else_is_that_of_no_streams(text: str, streams: Path):
    (streams / STAMP).write_text(text)
    assert not is_prepared(streams)


def test_one_bit_of_a_stream_is_seen(streams):
    path = streams / "validation.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert not is_prepared(streams)
    path.unlink()
    assert not is_prepared(streams)
