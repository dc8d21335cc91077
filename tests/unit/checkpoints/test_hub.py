"""The hub, as its client sees it: a cache on disk, and a network that is not there."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mudd_interp.checkpoints import configs, load, load_model, names
from mudd_interp.checkpoints import hub as hub_files
from mudd_interp.checkpoints.names import RELEASED, Location
from mudd_interp.files import read_object
from tests.parity.family import FAMILY, random_model
from tests.unit.checkpoints import released_folder
from tests.unit.checkpoints.released_folder import in_order
from tests.unit.checkpoints.test_bridged import tiny_pythia

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cache(root: Path, repository: str, source: Path) -> Path:
    """A repository in the hub's cache: snapshots are links to blobs."""
    base = root / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / COMMIT
    for folder in (snapshot, base / "blobs", base / "refs"):
        folder.mkdir(parents=True)
    (base / "refs" / "main").write_text(COMMIT)
    for path in source.iterdir():
        shutil.copy(path, base / "blobs" / f"blob-of-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-of-{path.name}")
    return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def refused(name: str, *words: str, **kwargs: Any) -> None:
    """The words are in the message, in this order."""
    with pytest.raises(ValueError, match=in_order(*words)):
        load_model(name, **kwargs)


@pytest.mark.parametrize("sharded", [True, False])
def test_a_model_in_the_cache(hub: Path, tmp_path: Path, sharded: bool):
    """Links from a snapshot to its blobs do not count as leading out of the folder."""
    write = released_folder.write_shards if sharded else released_folder.copy
    snapshot = cache(hub, "someone/model", write(tmp_path / "m"))
    model = load_model("someone/model", local_files_only=True)
    assert model.info.name == "someone/model"
    assert model.info.revision == COMMIT
    expected = load_model(released_folder.GOLDEN)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(tokens), expected(tokens))
    assert torch.equal(load_model(snapshot)(tokens), expected(tokens))


def test_torch_files_are_fetched_where_there_are_no_safetensors(hub: Path, tmp_path: Path):
    cache(hub, "someone/model", released_folder.write_shards(tmp_path / "m", "bin"))
    model = load_model("someone/model", local_files_only=True)
    assert model.info.digest is not None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_short_names(monkeypatch: pytest.MonkeyPatch, name: str):
    asked: list[tuple[str, list[str]]] = []

    def nothing(repository: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append((repository, allow_patterns))
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    refused(name, f"Caiyun-AI/{name} is not in the hub's cache")
    repository, patterns = asked[0]
    assert repository == f"Caiyun-AI/{name}"
    assert not any(pattern.endswith(("*", ".py")) for pattern in patterns)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("x"),
        OfflineModeIsEnabled("x"),
        ConnectionError("x"),
        HTTPError("x"),
    ],
)
def test_no_network(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def nothing(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    refused(
        "Caiyun-AI/MUDDPythia-1.4B",
        "the hub cannot be reached",
        "hf download Caiyun-AI/MUDDPythia-1.4B --local-dir FOLDER",
        "config.json, tokenizer.json and the weights",
        "https://huggingface.co/Caiyun-AI/MUDDPythia-1.4B",
        "load_model('FOLDER')",
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (GatedRepoError, ["is gated", "hf auth login"]),
        (RepositoryNotFoundError, ["no folder and no hub repository 'someone/model'", "private"]),
        (RevisionNotFoundError, ["someone/model has no revision 'v2'", "branch, tag or commit"]),
    ],
)
def test_what_the_hub_refuses(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], words: list[str]
):
    def answer(*_: Any, **__: Any) -> str:
        raise kind.__new__(kind)  # its constructor wants the response of a server

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    refused("someone/model", *words, revision="v2")


def test_local_files_only(hub: Path):
    refused("someone/model", "local_files_only is set", "hf download", local_files_only=True)
    assert not hub.exists()


def test_a_cache_with_a_configuration_and_no_weights(hub: Path, tmp_path: Path):
    folder = released_folder.copy(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    cache(hub, "someone/model", folder)
    refused("someone/model", "no weights", "hf download", local_files_only=True)


def test_a_cache_without_one_of_the_shards(hub: Path, tmp_path: Path):
    folder = released_folder.write_shards(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    cache(hub, "someone/model", folder)
    refused("someone/model", "model-00002-of-00002", "missing", local_files_only=True)


def test_an_index_may_not_leave_the_cache_either(hub: Path, tmp_path: Path):
    outside = released_folder.copy(tmp_path / "outside") / "model.safetensors"
    snapshot = cache(hub, "someone/model", released_folder.write_shards(tmp_path / "m"))
    link = snapshot / "model-00001-of-00002.safetensors"
    link.unlink()
    link.symlink_to(outside)
    refused("someone/model", "outside its folder: refused", local_files_only=True)


def test_other_models_are_bridged(
    hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, ...]] = []
    baseline = random_model(FAMILY["GPT-NeoX"])

    def record(*given: Any) -> Any:
        asked.append(given)
        return baseline

    monkeypatch.setattr(load, "load_bridged", record)
    folder, config = tmp_path / "m", {"model_type": "gpt_neox"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder, dtype="float64") is baseline
    snapshot = cache(hub, "EleutherAI/pythia-160m", folder)
    load_model("pythia-160m", revision="main", local_files_only=True, check=False)
    cpu = torch.device("cpu")
    here = Location(str(folder), folder, folder / "tokenizer.json")
    there = Location(
        "EleutherAI/pythia-160m", snapshot, snapshot / "tokenizer.json", "EleutherAI/pythia-160m"
    )
    assert asked == [
        (here, config, cpu, torch.float64, False, True),
        (there, config, cpu, None, True, False),
    ]
    assert there.revision == COMMIT


@pytest.mark.parametrize("kind", ["released", "baseline"])
def test_a_folder_is_located_once_and_its_configuration_read_once(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    name = {"released": "MUDDPythia-1.4B", "baseline": "pythia-160m"}[kind]
    repository = {"released": RELEASED, "baseline": {name: f"EleutherAI/{name}"}}[kind][name]
    if kind == "released":
        released_folder.copy(tmp_path / "m")
    else:
        tiny_pythia().save_pretrained(tmp_path / "m")
    snapshot = cache(hub, repository, tmp_path / "m")
    asked: list[str] = []
    read: list[Path] = []

    def fetch(repository: str, *given: Any) -> Path:
        asked.append(repository)
        return hub_files.fetch_small(repository, *given)

    def reading(path: Path) -> Any:
        read.append(path)
        return read_object(path)

    monkeypatch.setattr(names, "fetch_small", fetch)
    monkeypatch.setattr(configs, "read_object", reading)
    model: Any = load_model(name, local_files_only=True, check=False)
    assert model.info.revision == COMMIT
    assert asked == [repository]
    assert read == [snapshot / "config.json"]
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(tokens), cast(Any, load_model(tmp_path / "m"))(tokens))
