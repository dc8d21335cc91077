"""Each bad input: one message with the words that matter, nothing run, nothing left behind."""

import difflib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mudd_interp.checkpoints import load_model
from mudd_interp.checkpoints.assemble import NAMED
from mudd_interp.model.wirings import mudd
from tests.unit.checkpoints import released_folder
from tests.unit.checkpoints.released_folder import in_order

Tensors = dict[str, Tensor]


def refused(target: str | Path, *words: str, **kwargs: Any) -> None:
    """The words are in the message, in this order."""
    with pytest.raises(ValueError, match=in_order(*words)):
        load_model(target, **kwargs)


# --- Names and folders --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mud-tiny", "did you mean `mudd-tiny`"),
        ("muddpythia-1.4b", "did you mean `MUDDPythia-1.4B`"),
        ("pythia-161m", "`pythia-160m`"),
        (
            "xyzzy",
            "Expected a folder, a name (mudd-tiny, tfm-tiny, mudd-vit-tiny, vit-tiny, MUDD",
        ),
    ],
)
def test_unknown_name(name: str, nearest: str):
    refused(name, f"no model and no folder `{name}`", nearest)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "a\\b", ""])
def test_missing_folder(name: str):
    refused(name, f"there is no folder {name!r}", "config.json")


def test_a_file_instead_of_a_folder(tmp_path: Path):
    folder = released_folder.copy(tmp_path)
    refused(folder / "model.safetensors", "is a file", "give the folder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["holds no model", "expected a config.json"]),
        ("{'model_type': 1}", ["is not JSON", "download or copy it again"]),
        ("[1, 2]", ["holds a list", "expected a JSON object"]),
        ("{}", ["no model_type", "muddformer, muddpythia", "mudd-interp", "gpt_neox"]),
    ],
)
def test_config_that_is_none(tmp_path: Path, text: str | None, words: list[str]):
    folder = released_folder.copy(tmp_path)
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    refused(folder, str(folder), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": None}, ["lacks dim"]),
        ({"n_laeyr": 3}, ["`n_laeyr`", "did you mean `n_layer`"]),
        ({"head_dim": 8}, ["head_dim 8 contradicts", "make 16"]),
        ({"sepln": False}, ["sepln is False", "cannot run"]),
    ],
)
def test_config_with_a_bad_field(tmp_path: Path, change: dict[str, Any], words: list[str]):
    folder = released_folder.copy(tmp_path)
    (folder / "config.json").write_text(json.dumps(released_folder.config() | change))
    refused(folder, str(folder / "config.json"), *words)


@pytest.mark.parametrize("text", ["not json", '{"model": "?"}'])
def test_damaged_tokenizer(tmp_path: Path, text: str):
    folder = released_folder.copy(tmp_path)
    (folder / "tokenizer.json").write_text(text)
    refused(folder, "tokenizer.json is not a tokenizer", "remove it")


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"dtype": "float8"}, ["dtype must be one of torch.float16", "'float8'"]),
        ({"dtype": torch.int64}, ["dtype must be one of", "torch.int64"]),
        ({"device": "warp"}, ["the device 'warp' cannot be used here"]),
    ],
)
def test_bad_dtype_or_device(kwargs: dict[str, Any], words: list[str]):
    refused(released_folder.GOLDEN, *words, **kwargs)


def test_a_revision_of_what_has_none(tmp_path: Path):
    refused("mudd-tiny", "revision='step1000'", "mudd-tiny comes with", revision="step1000")
    folder = released_folder.copy(tmp_path)
    refused(folder, "revision='main'", f"{folder} is a folder", "leave", revision="main")
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    refused(folder, f"{folder} is a folder", "give a hub id", revision="main")


# --- Weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 5, 2000, -1])
def test_truncated_safetensors(tmp_path: Path, length: int):
    folder = released_folder.copy(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, str(path), "not a whole safetensors file", "cut short", "download")


def test_a_pointer_instead_of_a_file(tmp_path: Path):
    folder = released_folder.copy(tmp_path)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(folder, "(43 bytes) is not a whole safetensors file")


def test_no_weights(tmp_path: Path):
    folder = released_folder.copy(tmp_path)
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no weights", "model.safetensors", "pytorch_model.bin.index.json")


def without(tensors: Tensors) -> None:
    del tensors["layers.1.attention.wk.bias"]


def with_another(tensors: Tensors) -> None:
    tensors["layers.1.attention.wkk.bias"] = torch.zeros(32)


def reshaped(tensors: Tensors) -> None:
    tensors["dense_bs.0"] = torch.zeros(4, 3)


def of_integers(tensors: Tensors) -> None:
    tensors["norm.weight"] = torch.ones(32, dtype=torch.int64)


def with_nan(tensors: Tensors) -> None:
    tensors["layers.2.feed_forward.w1.weight"][3, 4] = float("nan")


def with_infinity(tensors: Tensors) -> None:
    tensors["output.weight"][0, :2] = float("-inf")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without, ["missing parameter `layers.1.attention.wk.bias`", "shape [32]"]),
        (
            with_another,
            [
                "unexpected parameter `layers.1.attention.wkk.bias` of shape [32]",
                "did you mean `layers.1.attention.wk.bias`",
            ],
        ),
        (reshaped, ["`dense_bs.0` has shape [4, 3], expected [4, 2]"]),
        (of_integers, ["`norm.weight` holds I64, expected one of F16, BF16, F32, F64"]),
        (with_nan, ["`layers.2.feed_forward.w1.weight` holds NaN", "(1 of 12288 numbers"]),
        (with_infinity, ["`output.weight` holds infinity", "(2 of 3232 numbers"]),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, spoil: Callable[[Tensors], None], words: list[str]
):
    tensors = released_folder.weights()
    spoil(tensors)
    refused(released_folder.write(tmp_path, tensors), *words)


def test_many_problems_are_one_message(tmp_path: Path):
    tensors = {name: t for name, t in released_folder.weights().items() if "attention" not in name}
    refused(released_folder.write(tmp_path, tensors), "missing parameter", "and 33 more")


def test_many_unexpected_names_are_not_each_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    near = difflib.get_close_matches

    def counted(word: str, *args: Any, **kwargs: Any) -> list[str]:
        asked.append(word)
        return near(word, *args, **kwargs)

    monkeypatch.setattr("difflib.get_close_matches", counted)
    tensors = released_folder.weights() | {f"more.{i}": torch.ones(1) for i in range(99)}
    tensors["y" * 10_000] = torch.ones(1)
    refused(released_folder.write(tmp_path, tensors), "unexpected parameter", "and 95 more")
    assert len(asked) <= NAMED
    assert max(map(len, asked)) < 1000


def test_numbers_too_large_for_the_dtype(tmp_path: Path):
    tensors = released_folder.weights()
    tensors["norm.weight"][0] = 1e6
    folder = released_folder.write(tmp_path, tensors)
    refused(
        folder, "`norm.weight` holds 1e+06, which is infinite in torch.float16", dtype="float16"
    )


def test_dense_parameters_of_a_dense_model_are_not_optional(tmp_path: Path):
    tensors = released_folder.weights()
    del tensors["dense_bs.1"], tensors["dynamic_dense.0.w2.weight"]
    words = ("missing parameter `dynamic_dense.0.w2.weight`", "missing parameter `dense_bs.1`")
    refused(released_folder.write(tmp_path, tensors), *words)


def test_a_model_that_an_edit_cannot_change(tmp_path: Path):
    tensors = released_folder.weights()
    tensors["output.weight"].zero_()
    words = (
        "editing `blocks.1.hook_q_input`",
        "`blocks.1.hook_resid_pre`",
        "`dense.0.hook_weights_r` does not change the logits",
        "all zero",
        "check=False",
    )
    refused(released_folder.write(tmp_path, tensors), *words)


def test_a_stream_that_an_edit_cannot_change(tmp_path: Path):
    """Values that do not depend on their stream: only its two hooks are named."""
    tensors = released_folder.weights()
    tensors["layers.1.attention.wv.weight"].zero_()
    words = "editing `blocks.1.hook_v_input`, `dense.0.hook_weights_v` does not change the logits"
    refused(released_folder.write(tmp_path, tensors), words)


def test_a_hook_whose_edit_goes_nowhere(monkeypatch: pytest.MonkeyPatch):
    """Rounding is not taken for an effect: an edit that is lost changes nothing at all."""

    def lose(point: HookPoint, x: Tensor) -> Tensor:
        point(x.clone())
        return x

    monkeypatch.setattr(mudd, "enter", lose)
    names = ", ".join(f"`dense.0.hook_weights_{stream}`" for stream in "qkvr")
    refused(released_folder.GOLDEN, f"editing {names} does not change the logits")


# --- Torch files --------------------------------------------------------------------------------


class Runs:
    """A pickle of this writes a file if it is run as code."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def as_torch_file(folder: Path, content: Any, **kwargs: Any) -> Path:
    released_folder.copy(folder)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin", **kwargs)
    return folder


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code(tmp_path: Path, zipped: bool):
    content = released_folder.weights() | {"norm.weight": Runs(tmp_path / "was_run")}
    folder = as_torch_file(tmp_path / "m", content, _use_new_zipfile_serialization=zipped)
    refused(
        folder,
        "pytorch_model.bin is refused",
        "could run code",
        "mkdir",
        "Nothing in it was run",
        "safetensors",
    )
    assert not (tmp_path / "was_run").exists()


def test_a_bare_pickle_that_would_run_code(tmp_path: Path):
    folder = as_torch_file(tmp_path / "m", {})
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(tmp_path / "was_run")))
    refused(folder, "pytorch_model.bin", "refused")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], ["holds a list", "expected a dict of tensors by name"]),
        ({"model": {"norm.weight": torch.zeros(2)}}, ["holds 'model', a dict", "state dict"]),
        ({"a": torch.zeros(2).to_sparse()}, ["holds 'a'", "tensors by name"]),
    ],
)
def test_a_torch_file_of_something_else(tmp_path: Path, content: Any, words: list[str]):
    refused(as_torch_file(tmp_path, content), "pytorch_model.bin", *words)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("length", [0, 100, -2000])
def test_a_truncated_torch_file(tmp_path: Path, length: int, zipped: bool):
    content = released_folder.weights()
    folder = as_torch_file(tmp_path, content, _use_new_zipfile_serialization=zipped)
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, str(path))


def test_a_torch_file_with_one_wrong_byte(tmp_path: Path):
    """An assertion of torch's, which is not a class of error that it documents."""
    content = released_folder.weights()
    folder = as_torch_file(tmp_path, content, _use_new_zipfile_serialization=False)
    path = folder / "pytorch_model.bin"
    before, key, after = path.read_bytes().rpartition(
        str(content["norm.weight"].untyped_storage()._cdata).encode()
    )
    path.write_bytes(before + b"x" + key[1:] + after)
    refused(folder, str(path), "not a whole torch file", "download")


# --- Indexes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["../outside", "absolute", "sub/../../outside", "..\\outside"])
def test_an_index_that_points_outside_its_folder(tmp_path: Path, where: str):
    outside = released_folder.copy(tmp_path / "outside") / "model.safetensors"
    folder = released_folder.write_shards(tmp_path / "m")
    file = str(outside) if where == "absolute" else f"{where}/model.safetensors"
    released_folder.write_index(folder, dict.fromkeys(released_folder.weights(), file))
    refused(folder, "model.safetensors.index.json", repr(file), "outside its folder: refused")


def test_an_index_that_names_a_link_out_of_its_folder(tmp_path: Path):
    outside = released_folder.copy(tmp_path / "outside") / "model.safetensors"
    folder = released_folder.write_shards(tmp_path / "m")
    (folder / "link.safetensors").symlink_to(outside)
    placed = dict.fromkeys(released_folder.weights(), "link.safetensors")
    released_folder.write_index(folder, placed)
    refused(folder, "'link.safetensors'", "outside its folder: refused")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["is not JSON", "download"]),
        ("[]", ["holds a list", "expected a JSON object"]),
        ("{}", ["no weight_map"]),
        ('{"weight_map": {"a": 3}}', ["no weight_map of parameter names to file names"]),
        ('{"weight_map": {}}', ["empty weight_map"]),
        ('{"weight_map": {"a": "x.safetensors"}}', ["'x.safetensors', which is missing"]),
        ('{"weight_map": {"a": "config.json"}}', ["expected .safetensors files only"]),
        ('{"weight_map": {"a": ".."}}', ["outside its folder: refused"]),
        ('{"weight_map": {"a": ""}}', ["refused"]),
    ],
)
def test_a_damaged_index(tmp_path: Path, text: str, words: list[str]):
    folder = released_folder.write_shards(tmp_path)
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "model.safetensors.index.json", *words)


def test_an_index_of_other_files(tmp_path: Path):
    folder = released_folder.write_shards(tmp_path)
    placed = released_folder.read_index(folder)
    placed["norm.bias"] = placed["norm.weight"]
    released_folder.write_index(folder, placed)
    refused(folder, "the index says that parameter `norm.bias` is in", "but it is not")
