"""Batches: documents packed without padding, the tail kept, and bad input named."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mudd_interp import data
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.data import Packing
from tests.parity.family import letters_tokenizer
from tests.unit.analysis.fakes import FakeModel


class Letters:
    """A tokenizer of letters: ``a`` is 1, ``b`` is 2; 0 separates, if it has that token."""

    def __init__(self, separator: bool = True):
        self.separator = separator

    def get_vocab(self):
        return {"<|endoftext|>": 0} if self.separator else {}

    def __call__(self, text, add_special_tokens, split_special_tokens, verbose):
        assert not add_special_tokens
        assert split_special_tokens
        return {"input_ids": [ord(letter) - ord("a") + 1 for letter in text]}


def lists(batches):
    return [tokens.tolist() for tokens in batches]


def test_rows_fill_up_across_documents_and_the_tail_comes_last():
    documents = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11]]
    found = list(data.pack(documents, n_ctx=2, batch_size=2))
    assert lists(found) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10]], [[11]]]
    assert {tokens.dtype for tokens in found} == {torch.int64}


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=9),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_no_token_is_lost_added_or_moved(documents, n_ctx, batch_size):
    found = list(data.pack(documents, n_ctx, batch_size))
    stream = [token for tokens in found for token in tokens.flatten().tolist()]
    assert stream == [token for ids in documents for token in ids]
    assert all(tokens.shape == (batch_size, n_ctx) for tokens in found[:-2])
    assert all(tokens.shape[0] <= batch_size and tokens.shape[1] <= n_ctx for tokens in found)


def test_each_document_stands_behind_a_separator_where_there_is_one(tmp_path):
    for name, text in (("b.txt", "cd"), ("a.txt", "ab"), ("empty.txt", "")):
        (tmp_path / name).write_text(text)
    packing = Packing(n_ctx=4, batch_size=8)
    assert lists(data.folder_batches(tmp_path, Letters(), packing)) == [[[0, 1, 2, 0]], [[3, 4]]]
    plain = data.folder_batches(tmp_path, Letters(separator=False), packing)
    assert lists(plain) == [[[1, 2, 3, 4]]]
    none = Packing(n_ctx=4, separator=None)
    assert lists(data.folder_batches(tmp_path, Letters(), none)) == [[[1, 2, 3, 4]]]
    files = [tmp_path / "b.txt", str(tmp_path / "a.txt")]
    assert lists(data.file_batches(files, Letters(), packing)) == [[[0, 3, 4, 0]], [[1, 2]]]


def test_batches_can_be_walked_twice_and_say_what_they_are():
    batches = data.text_batches("abc", Letters(), Packing(n_ctx=2))
    assert lists(batches) == lists(batches) == [[[0, 1], [2, 3]]]
    assert batches.description == "text of 3 characters"


def test_sequences_are_counted_by_a_walk_only_where_their_number_is_not_known():
    batches = data.text_batches("abcde", Letters(), Packing(n_ctx=2, batch_size=2))
    assert batches.n_sequences is None
    assert data.count_sequences(batches) == 3
    assert data.count_sequences(data.take(batches, 2)) == 2

    def walk():
        raise AssertionError

    assert data.count_sequences(data.Batches(walk, "known", n_sequences=7)) == 7


def test_line_ends_stay_as_they_are(tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"a\r\nb")
    assert data.read_text(tmp_path / "dos.txt") == "a\r\nb"


def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path, monkeypatch):
    mark = "\ufeff"
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"{mark}ab", encoding="utf-8")
    packing, expected = Packing(n_ctx=8), [[[0, 1, 2]]]
    assert lists(data.file_batches([tmp_path / "a.txt"], Letters(), packing)) == expected
    assert lists(data.folder_batches(tmp_path, Letters(), packing)) == [[[0, 1, 2, 0, 1, 2]]]
    assert lists(data.text_batches(f"{mark}ab", Letters(), packing)) == expected
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([{"text": f"{mark}ab"}]))
    assert lists(data.dataset_batches("some/data", Letters(), packing)) == expected


def test_what_a_folder_leaves_out_is_said(tmp_path):
    texts = tmp_path / "texts"
    (texts / "in").mkdir(parents=True)
    (texts / "a.txt").write_text("ab")
    (texts / "empty.txt").touch()
    (texts / ".hidden").write_text("no")
    (texts / "in" / "up").symlink_to(texts)
    packing = Packing(n_ctx=8)
    batches = data.folder_batches(texts, Letters(), packing)
    assert lists(batches) == [[[0, 1, 2]]]
    said = "1 empty, 1 hidden, 1 read already by another path"
    assert batches.description == f"1 file of texts/**/* (left out: {said})"
    assert {path.name for path in batches.left_out} == {"empty.txt", ".hidden", "up"}
    for other in (data.take(batches, 1), data.shuffled(batches)):
        assert other.left_out == batches.left_out


def test_linked_folders_are_read(tmp_path):
    for folder, text in (("texts", "ab"), ("more", "cd")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(text)
    (tmp_path / "texts" / "more").symlink_to(tmp_path / "more")
    batches = data.folder_batches(tmp_path / "texts", Letters(), Packing(n_ctx=8))
    assert lists(batches) == [[[0, 1, 2, 0, 3, 4]]]
    assert batches.description == "2 files of texts/**/*"
    assert not batches.left_out


def test_a_path_that_is_empty_or_can_be_read_once_only_is_refused(tmp_path):
    packing = Packing(n_ctx=4)
    with pytest.raises(ValueError, match="the path of the text is empty"):
        data.folder_batches("", Letters(), packing)
    with pytest.raises(ValueError, match="the path of the text is empty"):
        data.file_batches([""], Letters(), packing)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match="it is not a regular file, and a text is read more than once"
    ):
        data.file_batches([tmp_path / "pipe"], Letters(), packing)


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(ValueError, match="not text, at character 1"):
        list(data.text_batches("a\ud83d", Letters(), Packing(n_ctx=4)))


def test_bad_text_is_named(tmp_path):
    packing = Packing(n_ctx=4)
    with pytest.raises(ValueError, match="the text is empty"):
        data.text_batches("", Letters(), packing)
    with pytest.raises(ValueError, match=r"no text file .*missing\.txt"):
        data.file_batches([tmp_path / "missing.txt"], Letters(), packing)
    with pytest.raises(ValueError, match="at least one text file"):
        data.file_batches([], Letters(), packing)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text \(byte 3\)"):
        list(data.file_batches([tmp_path / "latin.txt"], Letters(), packing))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty\.txt is empty"):
        list(data.file_batches([tmp_path / "empty.txt"], Letters(), packing))


def test_bad_folders_are_named(tmp_path):
    packing = Packing(n_ctx=4)
    with pytest.raises(ValueError, match="no folder"):
        data.folder_batches(tmp_path / "missing", Letters(), packing)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"matches '\*\.py'"):
        data.folder_batches(tmp_path, Letters(), packing, "*.py")
    with pytest.raises(ValueError, match="every document is empty"):
        list(data.folder_batches(tmp_path, Letters(), packing))


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot read"):
        data.read_text(tmp_path)


@pytest.mark.parametrize("sizes", [{"n_ctx": 0}, {"n_ctx": 4, "batch_size": 0}])
def test_sizes_are_positive(sizes):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        Packing(**sizes)


def fake_datasets(rows):
    def load_dataset(name, config, *, split, streaming):
        assert streaming
        if config == "two":
            return [*rows, *rows]
        if split != "validation":
            raise ValueError(f"Bad split: {split}")
        return rows

    return SimpleNamespace(load_dataset=load_dataset)


def test_a_dataset_is_one_document_a_row(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([{"text": "ab"}, {"text": "c"}]))
    batches = data.dataset_batches("some/data", Letters(), Packing(n_ctx=4))
    assert lists(batches) == lists(batches) == [[[0, 1, 2, 0]], [[3]]]
    assert batches.description == "some/data (validation)"
    of_config = data.dataset_batches("some/data", Letters(), Packing(n_ctx=4), config="two")
    assert lists(of_config) == [[[0, 1, 2, 0], [3, 0, 1, 2]], [[0, 3]]]
    assert of_config.description == "some/data (two, validation)"


def test_bad_datasets_are_named(monkeypatch):
    packing = Packing(n_ctx=4)
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([{"content": "ab", "stars": 3}]))
    with pytest.raises(ValueError, match="column 'text'; columns with text: content"):
        data.dataset_batches("some/data", Letters(), packing)
    with pytest.raises(ValueError, match=r"cannot read split 'test' of dataset 'some/data' \(Bad"):
        data.dataset_batches("some/data", Letters(), packing, split="test")

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'mudd-interp\[datasets\]'"):
        data.dataset_batches("some/data", Letters(), packing)


def test_a_dataset_that_breaks_off_is_named(monkeypatch):
    def load_dataset(*_, **__):
        yield {"text": "ab"}
        raise KeyError("network")  # not a class of error that is documented

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    batches = data.dataset_batches("some/data", Letters(), Packing(n_ctx=2))
    with pytest.raises(ValueError, match=r"cannot read split 'validation' .*network"):
        list(batches)


def test_token_ids_are_batches_already():
    tokens = torch.arange(10).view(5, 2)
    batches = data.token_batches(tokens, batch_size=2)
    assert lists(batches) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9]]]
    assert batches.n_sequences == 5
    for form in (tokens.int(), tokens.tolist(), tokens.numpy().astype("u2")):
        assert lists(data.token_batches(form, batch_size=2)) == lists(batches)
    with pytest.raises(ValueError, match=r"at least one token, got shape \[0, 2\]"):
        data.token_batches(tokens[:0])
    with pytest.raises(ValueError, match=r"expected \[sequence pos\].*got shape \[10\]"):
        data.token_batches(range(10))
    with pytest.raises(ValueError, match="must be integers, got float32"):
        data.token_batches(tokens.float())


def test_ids_are_packed_as_texts_are():
    packing = Packing(n_ctx=3)
    batches = data.id_batches([[1, 2], [3, 4, 5]], Letters(), packing, "ids")
    assert lists(batches) == lists(data.document_batches(["ab", "cde"], Letters(), packing, "t"))
    assert batches.description == "ids"


def test_the_bundled_pack_is_held_out_token_ids():
    batches = data.bundled_batches(n_sequences=10, batch_size=4)
    assert [tuple(tokens.shape) for tokens in batches] == [(4, 256), (4, 256), (2, 256)]
    everything = torch.cat(list(data.bundled_batches()))
    assert everything.shape == (400, 256)
    assert everything.dtype == torch.int64
    assert 0 <= int(everything.min()) <= int(everything.max()) < 4096
    with pytest.raises(ValueError, match="holds 400 sequences, not 401"):
        data.bundled_batches(401)


def shape(d_vocab=30, tokenizer=None):
    return FakeModel(lambda _: {}, n_layers=1, d_vocab=d_vocab, n_ctx=64, tokenizer=tokenizer)


def repeated(model, **options):
    return torch.cat(list(data.repeated_batches(model, **options)))


def test_repeated_tokens_are_a_separator_and_copies_of_different_tokens():
    tokenizer = letters_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "b"})
    batches = data.repeated_batches(
        shape(tokenizer=tokenizer), length=5, repeats=3, n_sequences=200, batch_size=150
    )
    assert [tuple(tokens.shape) for tokens in batches] == [(150, 16), (50, 16)]
    assert batches.description == "5 random tokens, 3 times over (seed 0)"
    tokens = torch.cat(list(batches))
    assert tokens[:, 0].unique().tolist() == [0]
    first = tokens[:, 1:6]
    assert torch.equal(tokens[:, 1:], first.repeat(1, 3))
    assert all(len(set(row)) == 5 for row in first.tolist())
    # The separator 0 and the pad token 2 are special; 27 to 29 have no text.
    assert sorted(set(first.flatten().tolist())) == [1, *range(3, 27)]


def test_repeated_tokens_without_a_tokenizer_are_of_the_whole_vocabulary():
    tokens = repeated(shape(d_vocab=7), length=5, repeats=2, n_sequences=50)
    assert tokens.shape == (50, 10)
    assert tokens.dtype == torch.int64
    assert sorted(set(tokens.flatten().tolist())) == list(range(7))


def test_repeated_tokens_are_the_same_on_every_machine():
    expected = [[11, 3, 20, 13] * 2, [29, 23, 18, 2] * 2]
    assert repeated(shape(), length=4, repeats=2, n_sequences=2).tolist() == expected
    assert repeated(shape(), length=4, repeats=2, n_sequences=1).tolist() == expected[:1]
    assert repeated(shape(), length=4, repeats=2, n_sequences=2, seed=1).tolist() != expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "length and repeats must be 2 or more, got 1 and 3"),
        ({"repeats": 1}, "length and repeats must be 2 or more, got 50 and 1"),
        ({}, "3 times 50 random tokens need a context of 150, the model has 64"),
        ({"length": 31, "repeats": 2}, "there are 30 tokens to draw from, not 31"),
        ({"n_sequences": 0}, "n_sequences must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_repeats_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        repeated(shape(), **options)


def test_take_cuts_the_last_batch():
    batches = data.token_batches(torch.arange(10).view(5, 2), batch_size=2)
    assert lists(data.take(batches, 3)) == [[[0, 1], [2, 3]], [[4, 5]]]
    assert lists(data.take(batches, 4)) == lists(batches)[:2]
    assert lists(data.take(batches, 9)) == lists(batches)
    assert [data.take(batches, n).n_sequences for n in (3, 9)] == [3, 5]


def test_shards_share_out_every_batch_once():
    batches = data.token_batches(torch.arange(10).view(5, 2), batch_size=1, description="ids")
    shares = [lists(data.shard(batches, rank, 2)) for rank in (0, 1)]
    assert shares == [[[[0, 1]], [[4, 5]], [[8, 9]]], [[[2, 3]], [[6, 7]]]]
    assert data.shard(batches, 0, 2).description == "ids"
    with pytest.raises(ValueError, match=r"rank must lie in 0\.\.1, got 2"):
        data.shard(batches, 2, 2)


def test_a_separator_that_is_written_in_a_text_is_text():
    tokenizer = load_tokenizer(data.BUNDLED_PACK.with_name("tokenizer.json"))
    text = "x = '<|endoftext|>'"
    batches = data.text_batches(text, tokenizer, data.Packing(n_ctx=64))
    ids = next(iter(batches))[0].tolist()
    assert ids.count(0) == 1
    assert ids[0] == 0
    assert tokenizer.decode(ids[1:]) == text
