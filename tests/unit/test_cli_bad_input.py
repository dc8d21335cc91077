"""Anything wrong with the input is one message and exit code 2, and nothing is left behind."""

import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

from mudd_interp.checkpoints import save_model
from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.figures import FORMAT
from tests.parity.family import FAMILY, random_model
from tests.unit.checkpoints import released_folder
from tests.unit.checkpoints.released_folder import in_order
from tests.unit.command import full_beyond, run

OUT = ["figures", "--out", "OUT"]

BAD: dict[str, tuple[list[str], list[str]]] = {
    # Models by name.
    "unknown model": ([*OUT, "--model", "mud-tiny"], ["`mud-tiny`", "did you mean `mudd-tiny`"]),
    "unknown baseline": ([*OUT, "--baseline", "pythia-161m"], ["`pythia-160m`"]),
    "unknown model to inspect": (["inspect", "tfm-tny"], ["did you mean `tfm-tiny`"]),
    "no such folder": ([*OUT, "--model", "./nowhere"], ["no folder './nowhere'"]),
    "folder without config": ([*OUT, "--model", "EMPTY"], ["holds no model", "config.json"]),
    "file for a model": ([*OUT, "--model", "EMPTY_FILE"], ["is a file", "give the folder"]),
    "unknown precision": ([*OUT, "--dtype", "float3"], ["dtype must be one of", "'float3'"]),
    "unknown device": ([*OUT, "--device", "warp"], ["the device 'warp' cannot be used"]),
    "device without memory": ([*OUT, "--device", "meta"], ["the device 'meta' cannot be used"]),
    # Texts.
    "empty text": ([*OUT, "--text", "EMPTY_FILE"], ["EMPTY_FILE is empty"]),
    "folder of empty texts": ([*OUT, "--text", "EMPTY_FILES"], ["every document is empty"]),
    "folder without texts": ([*OUT, "--text", "EMPTY"], ["no file in", "EMPTY"]),
    "missing text": ([*OUT, "--text", "nowhere.txt"], ["no text file nowhere.txt"]),
    "text in another encoding": ([*OUT, "--text", "LATIN"], ["LATIN is not UTF-8", "byte 3"]),
    "dataset without a name": (
        [*OUT, "--dataset", ""],
        ["dataset is empty"],
    ),
    "text without a name": ([*OUT, "--text", ""], ["text is empty", "leave it out"]),
    "model without a name": ([*OUT, "--model", ""], ["model is empty", "a folder or a hub id"]),
    "baseline without a name": ([*OUT, "--baseline", ""], ["baseline is empty", "or none"]),
    "split without a name": ([*OUT, "--dataset", "d", "--split", ""], ["split is empty"]),
    "device without a name": ([*OUT, "--device", ""], ["device is empty"]),
    "figures without a name": ([*OUT, "--only", ""], ["--only is empty", "leave it out"]),
    "formats without a name": ([*OUT, "--format", ","], ["--format is empty"]),
    "output without a name": (["figures", "--out", ""], ["'--out'", "is empty: give a path"]),
    "manifest without a name": ([*OUT, "--manifest", ""], ["'--manifest'", "is empty"]),
    "states without a name": ([*OUT, "--resume", ""], ["'--resume'", "is empty"]),
    "runs without a name": (["train", "toy", "--out", ""], ["'--out'", "is empty"]),
    "tokens without a name": (["train", "toy", "--out", "OUT", "--data", ""], ["'--data'"]),
    "cost of no model": (["cost", ""], ["no model or preset ``", "a config.json or a hub id"]),
    "cost without a name": (["cost", "mudd-tiny", "--json", ""], ["'--json'", "is empty"]),
    "bench without a name": (["bench", "--json", ""], ["'--json'", "is empty"]),
    "picture without a name": (["bench", "growth", "--figure", ""], ["'--figure'", "is empty"]),
    "cache without a name": (["app", "--cache", ""], ["'--cache'", "is empty"]),
    "dashboard of no model": (["app", "--model", ""], ["--model is empty"]),
    "dashboard nowhere": (["app", "--host", ""], ["--host is empty"]),
    "two texts": ([*OUT, "--text", "LATIN", "--dataset", "d"], ["a text or a dataset, not both"]),
    "too long a context": ([*OUT, "--context", "300"], ["300 tokens do not fit", "256"]),
    # Prompts, and places in them and in the models.
    "empty prompt": ([*OUT, "--prompt", ""], ["the prompt is empty"]),
    "empty ids": ([*OUT, "--prompt-ids", ""], ["--prompt-ids", "token ids such as 5,17,9"]),
    "empty sinks": ([*OUT, "--sinks", ""], ["--sinks", "token ids such as 5,17,9"]),
    "two prompts": ([*OUT, "--prompt", "x", "--prompt-ids", "5"], ["not both"]),
    "ids that are none": ([*OUT, "--prompt-ids", "5,x"], ["--prompt-ids", "such as 5,17,9"]),
    "id outside the vocabulary": (
        [*OUT, "--prompt-ids", "5,4096"],
        ["token id 4096 is outside the vocabulary of 4096"],
    ),
    "id beyond all vocabularies": (
        [*OUT, "--prompt-ids", "9" * 20],
        ["prompt_ids holds 9999", "at most"],
    ),
    "prompt in another encoding": ([*OUT, "--prompt", "caf\udce9"], ["not text, at character 3"]),
    "prompt longer than the context": (
        [*OUT, "--prompt", "\n".join(map(str, range(100, 400)))],
        ["tokens do not fit the context of 256"],
    ),
    "no such layer": ([*OUT, "--layer", "12"], ["layer must lie in 0..11", "got 12"]),
    "head without its layer": (
        [*OUT, "--only", "head_composition", "--head", "3"],
        ["head 3 needs its layer", "give --layer too"],
    ),
    "no such layer, or final norm": (
        [*OUT, "--only", "routes", "--layer", "13"],
        ["layer must lie in 0..12", "12 is the final norm", "got 13"],
    ),
    "no corrupted prompt": ([*OUT, "--only", "edge_patch"], ["no corrupted prompt", "give one"]),
    "corrupted prompt of another length": (
        [*OUT, "--only", "edge_patch", "--prompt", "a = b", "--corrupted", "a"],
        ["of one shape", "position by position"],
    ),
    "no edits, and no figure that makes them": (
        [*OUT, "--edits", "cut everything"],
        ["expected an edit such as", "'cut everything'"],
    ),
    "no such stream": ([*OUT, "--stream", "w"], ["stream must be one of q, k, v, r", "'w'"]),
    # Figures and where they go.
    "unknown figure": ([*OUT, "--only", "head_activty"], ["did you mean `head_activity`"]),
    "figure without its baseline": (
        [*OUT, "--baseline", "none", "--only", "dense_weights_baseline"],
        ["dense_weights_baseline needs a baseline"],
    ),
    "unknown format": ([*OUT, "--format", "gif"], ["one of png, svg, pdf", "'gif'"]),
    "no output": (["figures"], ["give --out DIR"]),
    "other things in the output": (["figures", "--out", "MINE"], ["MINE holds thesis.txt"]),
    "figures in the output": (
        ["figures", "--out", "OLD"],
        ["holds figures already", "--overwrite"],
    ),
    "file for an output": (["figures", "--out", "EMPTY_FILE"], ["EMPTY_FILE is a file"]),
    "output that is all there is": (["figures", "--out", "/"], ["/ holds", "not a figure"]),
    "output below a file": (
        ["figures", "--out", "EMPTY_FILE/new/OUT"],
        ["cannot make the folder EMPTY_FILE/new/OUT", "Not a directory"],
    ),
    "output with too long a name": (
        ["figures", "--out", "x" * 230],
        ["cannot make the folder xxx", "too long"],
    ),
    "output below too long a name": (
        ["figures", "--out", "y" * 300 + "/OUT"],
        ["cannot make the folder yyy", "too long"],
    ),
    "output that is where one works": (
        ["figures", "--out", "."],
        [". holds EMPTY", "not a figure"],
    ),
    "output above where one works": (["figures", "--out", ".."], [".. holds ", "not a figure"]),
    "output in nobody's home": (
        ["figures", "--out", "~nobody-such/OUT"],
        ["~nobody-such/OUT", "a user that does not exist"],
    ),
    "device for an output": (["figures", "--out", "/dev/null"], ["/dev/null is not a folder"]),
    "link to other things": (["figures", "--out", "LINK"], ["LINK holds thesis.txt"]),
    "folder named as a figure": (
        ["figures", "--out", "FOLDERS", "--overwrite"],
        ["FOLDERS holds routes.csv, which is not a figure"],
    ),
    "states in a file": (
        [*OUT, "--resume", "EMPTY_FILE"],
        ["cannot write to EMPTY_FILE", "Not a directory"],
    ),
    "bench into a folder": (["bench", "--json", "EMPTY"], ["EMPTY is a folder"]),
    "bench below a file": (
        ["bench", "--json", "EMPTY_FILE/a.json"],
        ["cannot write EMPTY_FILE/a.json", "Not a directory"],
    ),
    "figure of a bench into a folder": (
        ["bench", "growth", "--figure", "EMPTY/a.html/"],
        ["EMPTY/a.html/ is a folder"],
    ),
    "cache in a file": (["app", "--cache", "EMPTY_FILE"], ["cannot write to EMPTY_FILE"]),
    "no manifest": ([*OUT, "--manifest", "nowhere.json"], ["cannot read a manifest from nowhere"]),
    "empty manifest": ([*OUT, "--manifest", "EMPTY_FILE"], ["cannot read a manifest"]),
    "half a manifest": ([*OUT, "--manifest", "HALF"], ["complete manifest", "look at 'request'"]),
    "manifest and model": ([*OUT, "--manifest", "HALF", "--model", "x"], ["give no others"]),
    # Training, and the command itself.
    "unknown preset": (["train", "tiny-pear", "--out", "OUT"], ["did you mean `tiny-pair`"]),
    "training below a file": (
        ["train", "toy", "--out", "EMPTY_FILE/OUT"],
        ["cannot write to EMPTY_FILE/OUT", "give another folder"],
    ),
    "training where something else is": (
        ["train", "toy", "--out", "RUNS"],
        ["holds thesis.txt", "not part of a saved model"],
    ),
    "training on data below a file": (
        ["train", "toy", "--out", "OUT", "--data", "EMPTY_FILE/data"],
        ["cannot write to OUT", "Not a directory"],
    ),
    "unknown option": (["figures", "--outt", "OUT"], ["No such option: --outt"]),
    "number out of range": (
        [*OUT, "--sequences", "0"],
        ["'--sequences'", "greater than or equal to 1"],
    ),
    "unknown verb": (["figure"], ["No such command 'figure'"]),
}


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands above name, in the working directory."""
    for folder in ("EMPTY", "EMPTY_FILES", "MINE", "OLD"):
        (tmp_path / folder).mkdir()
    (tmp_path / "EMPTY_FILE").touch()
    (tmp_path / "EMPTY_FILES" / "a.txt").touch()
    (tmp_path / "LATIN").write_bytes(b"caf\xe9")
    (tmp_path / "HALF").write_text(json.dumps({"format": FORMAT}))
    (tmp_path / "MINE" / "thesis.txt").write_text("mine")
    (tmp_path / "OLD" / "head_activity.csv").write_text("old numbers")
    (tmp_path / "LINK").symlink_to("MINE")
    (tmp_path / "FOLDERS" / "routes.csv").mkdir(parents=True)
    (tmp_path / "RUNS" / "toy" / "model").mkdir(parents=True)
    (tmp_path / "RUNS" / "toy" / "model" / "thesis.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """A command ends with one message that has these words in this order; nothing changes."""

    def check(arguments: list[str], *words: str) -> None:
        before = contents()
        assert run(*arguments, monkeypatch=monkeypatch) == 2
        out, message = capsys.readouterr()
        assert re.search(in_order(*words), message), message
        assert message.startswith(("mudd-interp: ", "Usage: "))
        assert message.count("mudd-interp: ") == message.startswith("mudd-interp: ")
        assert "Traceback" not in message
        assert out == ""
        assert contents() == before

    return check


def contents() -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_command(case: str, refused: Callable[..., None]):
    arguments, words = BAD[case]
    refused(arguments, *words)


def test_no_browser(refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROWSER_PATH", "no-browser")
    refused([*OUT, "--format", "png"], "'no-browser'", "install Chromium")


# --- Models -------------------------------------------------------------------------------------


def config(**changes: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        released_folder.write(folder, released_folder.weights(), **changes)

    return make


def weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        tensors = released_folder.weights()
        change(tensors)
        released_folder.write(folder, tensors)

    return make


def files(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: change(released_folder.copy(folder))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def own_with_an_unknown_field(folder: Path) -> None:
    path = save_model(random_model(FAMILY["MUDDFormer"]), folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_laeyrs": 3}))


class Runs:
    """A pickle of this makes a folder if it is run as code."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("WAS_RUN",)


def pickle_that_runs_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"norm.weight": Runs()}, folder / "pytorch_model.bin")


def index_out_of_the_folder(folder: Path) -> None:
    released_folder.write_shards(folder)
    released_folder.copy(Path("OUTSIDE"))
    names = released_folder.weights()
    released_folder.write_index(folder, dict.fromkeys(names, "../OUTSIDE/model.safetensors"))


def larger_tokenizer(folder: Path) -> None:
    shutil.copy(BUNDLED_FOLDER / "tokenizer.json", folder / "tokenizer.json")


def baseline_without_a_parameter(folder: Path) -> None:
    folder.mkdir()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    values = {"model_type": "gpt_neox", "num_hidden_layers": 1, "vocab_size": 8, **sizes}
    (folder / "config.json").write_text(json.dumps(values))
    save_file({"embed_out.weight": torch.zeros(8, 16)}, folder / "model.safetensors")


MODELS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "config that is no JSON": (
        files(lambda folder: (folder / "config.json").write_text("{'dim': 32}")),
        ["config.json is not JSON"],
    ),
    "missing field": (config(dim=None), ["config.json", "lacks dim"]),
    "unknown field": (config(n_laeyr=3), ["`n_laeyr`", "did you mean `n_layer`"]),
    "contradictory field": (config(head_dim=8), ["head_dim 8 contradicts"]),
    "unknown field in a folder of our own": (own_with_an_unknown_field, ["`n_laeyrs`"]),
    "truncated safetensors": (files(truncate), ["model.safetensors", "cut short"]),
    "missing parameter": (
        weights(lambda tensors: tensors.pop("norm.weight")),
        ["missing parameter `norm.weight`"],
    ),
    "unexpected parameter": (
        weights(lambda tensors: tensors.update({"norm.wieght": torch.ones(32)})),
        ["unexpected parameter `norm.wieght`", "did you mean `norm.weight`"],
    ),
    "wrong shape": (
        weights(lambda tensors: tensors.update({"dense_bs.0": torch.zeros(4, 3)})),
        ["`dense_bs.0` has shape [4, 3], expected [4, 2]"],
    ),
    "NaN": (
        weights(lambda tensors: tensors["norm.weight"].fill_(torch.nan)),
        ["`norm.weight` holds NaN"],
    ),
    "pickle that runs code": (
        files(pickle_that_runs_code),
        ["is refused", "Nothing in it was run"],
    ),
    "index out of its folder": (index_out_of_the_folder, ["outside its folder: refused"]),
    "baseline without a parameter": (baseline_without_a_parameter, ["parameter `", "is missing"]),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model(case: str, refused: Callable[..., None]):
    make, words = MODELS[case]
    make(Path("MODEL"))
    refused(["inspect", "MODEL"], *words)
    refused(["figures", "--out", "OLD", "--overwrite", "--model", "MODEL"], *words)
    refused([*OUT, "--baseline", "MODEL"], *words)


def test_a_model_without_a_tokenizer(refused: Callable[..., None]):
    released_folder.copy(Path("MODEL"))
    refused([*OUT, "--model", "MODEL"], "MODEL came without a tokenizer")


def test_a_tokenizer_of_another_model(refused: Callable[..., None]):
    larger_tokenizer(released_folder.copy(Path("MODEL")))
    refused([*OUT, "--model", "MODEL"], "token id", "outside the vocabulary of 101")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model", ["someone/model is not in the hub's cache", "cannot be reached"]),
        ("--baseline", ["someone/model is not in the hub's cache", "cannot be reached"]),
        ("--dataset", ["cannot read split 'validation' of dataset 'someone/model'"]),
    ],
)
def test_no_network(
    option: str,
    words: list[str],
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path_factory: pytest.TempPathFactory,
):
    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's attempts
    logger = logging.getLogger("huggingface_hub")
    logger.addHandler(caplog.handler)
    refused([*OUT, option, "someone/model"], *words)
    logger.removeHandler(caplog.handler)
    assert not caplog.messages


# --- A disk that is full -------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["OLD", "new/folder/OUT"])
def test_a_disk_that_is_full_half_way(out: str, refused: Callable[..., None]):
    command = ["figures", "--out", out, "--overwrite", "--sequences", "1", "--context", "8"]
    # A page is some megabytes.
    with full_beyond(1_000_000):
        refused(command, f"cannot write the figures to {out}", "too large", "it is as it was")
