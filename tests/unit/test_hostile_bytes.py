"""Bytes from outside: read, or refused with a ValueError; never anything else."""

import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from mudd_interp.analysis import Result
from mudd_interp.checkpoints.weight_files import open_weights
from mudd_interp.cli import TRACEBACK
from mudd_interp.config import ModelConfig
from mudd_interp.edits import Edit, as_edits, edits_from_json, edits_text, edits_to_json
from mudd_interp.figures import read_manifest
from mudd_interp.files import parse_json, read_object, sealed, unsealed
from mudd_interp.files.json_files import DEEPEST
from mudd_interp.files.staging import REPLACES, move_in
from tests.hostile import READERS, SOURCE, attempt, mutated
from tests.hostile_results import sample
from tests.unit.command import run

CASES = 20
"""Of each reader; ``python -m tests.fuzz 10000`` runs more."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch and transformers, about what they refuse
@pytest.mark.parametrize("name", READERS)
def test_damaged_and_forged_files_are_read_or_refused(name: str, tmp_path: Path):
    reader, folder = READERS[name], tmp_path / ("0" * 64)
    folder.mkdir()
    reader.write(folder)
    valid, rng = (folder / reader.name).read_bytes(), random.Random(1)
    assert attempt(reader, folder, valid) == "read"
    for _ in range(CASES):
        data = mutated(reader, valid, rng)
        assert attempt(reader, folder, data) in ("read", "refused"), data[:300]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested deeper"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested deeper than 64 levels"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("[NaN]", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1e999", "beyond float64"),
        (str(2**63), "beyond int64"),
        ("9" * 5000, "limit"),
        ("{", "Expecting"),
        (b"\xff", "utf-8"),
        (b" " * (2**26 + 1), "larger than"),
    ],
)
def test_json_is_refused_with_its_name_and_the_reason(text: str | bytes, reason: str):
    with pytest.raises(ValueError, match=reason) as found:
        parse_json(text, "here.json")
    assert str(found.value).startswith("here.json is not JSON (")


def test_a_key_twice_among_many_is_found_in_one_walk():
    text = json.dumps(dict.fromkeys(map(str, range(200_000))))[:-1] + ', "x": 1, "x": 2}'
    begun = time.process_time()
    with pytest.raises(ValueError, match="the key 'x' twice"):
        parse_json(text, "it")
    assert time.process_time() - begun < 10  # name by name it takes minutes


def test_json_that_is_read():
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(deep, "it")) == deep
    assert parse_json(b"\xef\xbb\xbf[1]", "it") == parse_json("\ufeff[1]", "it") == [1]
    assert parse_json(f"[{2**63 - 1}, {10**30}]", "it", largest=None) == [2**63 - 1, 10**30]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "loop"):
        if path.name == "loop":
            path.symlink_to(path)
        with pytest.raises(ValueError, match=f"{path} is not JSON"):
            read_object(path)


def test_a_seal_is_broken_by_any_change():
    values = sealed({"a": 1, "b": ["x"]})
    assert unsealed(json.loads(json.dumps(values)), "it") == {"a": 1, "b": ["x"]}
    assert unsealed({"a": 1}, "it") == {"a": 1}
    for change in ({"a": 2}, {"c": None}, {"sha256": "0" * 64}, {"sha256": 1}):
        with pytest.raises(ValueError, match="it is damaged"):
            unsealed(values | change, "it")


def saved(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A saved result: its file, its header without the digest, its arrays."""
    READERS["result"].write(folder)
    path = folder / "r.safetensors"
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["mudd_interp"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["sha256"]
    return path, header, arrays


SEQUENCES = {"sequences": True}


@pytest.mark.parametrize(
    ("header", "arrays", "reason"),
    [
        ([], {}, "should be an object"),
        ({}, {}, "result"),
        ({"streams": None}, {}, "streams"),
        ({"streams": []}, {}, "no streams"),
        ({"streams": ["r", "q"]}, {}, "in this order"),
        ({"streams": ["q", "q"]}, {}, "each once"),
        ({"streams": ["w"]}, {}, "streams"),
        ({"result": "Nothing"}, {}, "holds a Nothing"),
        ({"extra": 1}, {}, "extra"),
        ({"provenance": SEQUENCES}, {}, "sequences"),
        ({"provenance": {"sequences": 0}}, {}, "0 sequences"),
        ({"provenance": {"tokens": 1.0}}, {}, "tokens"),
        ({"provenance": {"tokens": 10**20}}, {}, "int64"),
        ({"provenance": {"token_digest": "x"}}, {}, "token_digest"),
        ({"provenance": {"options": {}}}, {}, "lack `edits`"),
        ({"provenance": {"options": {"edits": [1]}}}, {}, "edits"),
        ({"provenance": {"options": {"edits": ["cut q 1<-0"] * 2}}}, {}, "loss_change|kl_sum"),
        (None, {"more": np.ones(2)}, "has more"),
        (None, {"loss_sum": np.ones(2, np.float32)}, "float32"),
        (None, {"loss_sum": np.ones(3)}, "one length"),
        (None, {"loss_sum": np.ones((2, 1))}, "loss_sum"),
        (None, {"loss_sum": np.full(2, np.nan)}, "is NaN"),
        (None, {"predicted": np.array([-1, 1])}, "0 or more"),
        (None, {"predicted": np.ones(2)}, "predicted"),
    ],
)
def test_a_result_that_was_forged_is_refused(header, arrays, reason, tmp_path: Path):
    path, true, numbers = saved(tmp_path)
    save_file(numbers, path, {"mudd_interp": json.dumps(true)})
    Result.load(path)  # as in version 0.1
    if header:
        inner = true["provenance"] | header.get("provenance", {})
        true = true | header | {"provenance": inner}
    elif header is not None:
        true = header
    save_file(numbers | arrays, path, {"mudd_interp": json.dumps(true)})
    with pytest.raises(ValueError, match=reason) as found:
        Result.load(path)
    assert str(path) in str(found.value)


SIX = list("abcdef")
FORGED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "no head of layer 2147483648 reads": ("HeadInputs", {"layer": 2**31, "components": SIX}, {}),
    "no head of layer -1 reads": ("HeadInputs", {"layer": -1, "components": SIX}, {}),
    "no head of layer 0 reads": ("HeadInputs", {"layer": 0, "components": SIX}, {}),
    "9223372036854775808 of bin, as no array": ("WeightDistribution", {"bins": 2**63 - 2}, {}),
    "0 of bin, as no array": ("WeightDistribution", {"bins": -2}, {}),
    "counts of .* one length": ("WeightDistribution", {"bins": 2**62}, {}),
    "their contexts do not belong": ("LossComparison", {}, {"context_ids": np.ones(3, int)}),
    "contexts do not": ("LossComparison", {}, {"ranked": np.array([[0, 1, 1], [1, 0, 1]])}),
    "contexts do not belong": ("LossComparison", {}, {"ranked": np.full((2, 3), 2**62)}),
    "no token is predicted": ("LossComparison", {}, {"counts": np.zeros(4, int)}),
    "weight_sum of .* one length": ("HeadScores", {}, {"weight_sum": np.ones((1, 3, 2))}),
    "expected .*, and axes of one name": ("HeadInputs", {}, {"tokens": np.ones(0, int)}),
}


@pytest.mark.parametrize("reason", FORGED)
def test_lengths_and_places_that_do_not_fit_each_other_are_refused(reason: str, tmp_path: Path):
    name, options, arrays = FORGED[reason]
    header, true = sample(name, SOURCE.to_dict())
    header["provenance"]["options"] |= options
    path = tmp_path / "r.safetensors"
    save_file(true | arrays, path, {"mudd_interp": json.dumps(header)})
    with pytest.raises(ValueError, match=reason) as found:
        Result.load(path)
    assert str(path) in str(found.value)


def test_estimates_over_no_token_have_no_interval(tmp_path: Path):
    header, arrays = sample("EdgeAttribution", SOURCE.to_dict())
    arrays["predicted"][:] = 0
    save_file(arrays, tmp_path / "r", {"mudd_interp": json.dumps(header)})
    frame = Result.load(tmp_path / "r").frame
    assert frame["estimate_low"].isna().to_numpy().all()


def test_one_bit_of_a_result_is_seen(tmp_path: Path):
    path, _, _ = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its sha256 does not match"):
        Result.load(path)


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path):
    READERS["manifest"].write(tmp_path)
    path = tmp_path / "manifest.json"
    values = sealed(json.loads(path.read_text()))
    path.write_text(json.dumps(values))
    assert read_manifest(path).names == ("layer_similarity",)
    path.write_text(json.dumps(values | {"figures_asked": []}))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        read_manifest(path)


ANY = st.none() | st.booleans() | st.sampled_from([10**20, 10**400]) | st.integers() | st.floats()
ACTION = st.sampled_from(["cut", "mean", "plain"]) | st.text(max_size=5) | ANY
VALUES = {
    "part": st.sampled_from(["edge", "head", "mlp"]) | ANY,
    "stream": st.sampled_from(["q", "r"]) | ANY,
    **{name: st.integers(0, 2 * 10**9) | ANY for name in ("layer", "source", "head")},
    "positions": st.lists(st.integers(0, 2**21), max_size=4).map(sorted) | st.lists(ANY) | ANY,
}


@settings(max_examples=300)
@given(st.fixed_dictionaries({"action": ACTION}, optional=VALUES))
def test_an_edit_that_is_accepted_can_be_written_and_read(values: dict[str, Any]):
    try:
        edit = Edit.from_dict(values)
    except ValueError:
        return
    assert Edit.parse(str(edit)) == edit
    assert edits_from_json(edits_to_json(edit)) == (edit,) == as_edits(edits_text(edit))


@pytest.mark.parametrize("value", [True, False, 1.0, 10**20, 10**400, -1, "1", [1], {}])
@pytest.mark.parametrize("name", ["layer", "source"])
def test_what_is_no_index_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        Edit.from_dict({"action": "cut", name: value})


@pytest.mark.parametrize("position", [True, 1.0, 10**20, -1, 2**20 + 1])
def test_what_is_no_position_is_refused(position):
    with pytest.raises(ValueError, match="positions must be whole numbers"):
        Edit.from_dict({"action": "cut", "positions": [position]})


@pytest.mark.parametrize(
    "change",
    [
        {"n_layers": 10**9},
        {"n_layers": 10**18},
        {"d_model": 2**40},
        {"d_mlp": [True, True]},
        {"eps": True},
        {"eps": 10**400},
        {"rotary_base": "x"},
        {"rotary_dim": 2.0},
        {"init_std": "x"},
        {"init_std": -1},
    ],
)
def test_a_configuration_of_other_types_is_refused(change):
    values = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_vocab": 11, "d_mlp": 16}
    ModelConfig.from_dict(values)
    with pytest.raises(ValueError, match=next(iter(change))):
        ModelConfig.from_dict(values | change)


def test_links_in_a_circle_among_weights_are_refused(tmp_path: Path):
    READERS["weight index"].write(tmp_path)
    shard = tmp_path / "m-1.safetensors"
    shard.unlink()
    shard.symlink_to(shard)
    with pytest.raises(ValueError, match=r"m-1\.safetensors', which is (missing|outside)"):
        open_weights(tmp_path)


def test_a_tensor_without_numbers_is_refused(tmp_path: Path):
    torch.save({"a": torch.ones(2, device="meta")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="'a' without its numbers"):
        open_weights(tmp_path)


class PanicException(BaseException):
    """Like the panic of a library in Rust: not an ``Exception``."""


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("kind", [RecursionError, MemoryError, RuntimeError, PanicException])
def test_what_nobody_foresaw_is_one_sentence(kind, asked, monkeypatch, capsys, caplog):
    def fail(*args, **kwargs):
        raise kind("too deep\nand more")

    monkeypatch.setattr("mudd_interp.checkpoints.load_model", fail)
    monkeypatch.setenv(TRACEBACK, "1" if asked else "")
    caplog.set_level(logging.INFO, "mudd_interp.cli")
    assert run("inspect", "mudd-tiny", monkeypatch=monkeypatch) == 1
    message = capsys.readouterr().err
    assert f"an unexpected {kind.__name__} (too deep): " in message
    assert ("Traceback" in message) == asked
    (record,) = (each for each in caplog.records if each.name == "mudd_interp.cli")
    assert record.exc_info is not None
    assert record.exc_info[0] is kind


@pytest.mark.parametrize("error", [KeyError("a key"), MemoryError()])
def test_an_error_without_words_is_a_sentence_too(error, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("mudd_interp.checkpoints.load_model", fail)
    assert run("inspect", "mudd-tiny", monkeypatch=monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mudd-interp: an unexpected {type(error).__name__} (")


def test_a_command_that_is_stopped_ends_without_a_traceback(monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mudd_interp.checkpoints.load_model", stop)
    assert run("inspect", "mudd-tiny", monkeypatch=monkeypatch) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("listed", ['["../outside"]', '[".."]', '["a/b"]', "{}", "[1]", "["])
def test_a_list_of_what_is_replaced_names_nothing_outside_its_folder(listed: str, tmp_path: Path):
    ready, outside = tmp_path / "target" / "new", tmp_path / "outside"
    ready.mkdir(parents=True)
    outside.write_text("kept")
    (ready / REPLACES).write_text(listed)
    with pytest.raises(ValueError, match=REPLACES):
        move_in(ready, tmp_path / "target")
    assert outside.read_text() == "kept"
