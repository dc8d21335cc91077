"""What ``load_model`` may be given: a name, a folder or a hub id, and where that leads."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from transformer_lens.supported_models import get_official_model_name

from mudd_interp.checkpoints.hub import fetch_small

BUNDLED = ("mudd-tiny", "tfm-tiny")
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"

RELEASED = {
    name: f"Caiyun-AI/{name}" for name in ("MUDDPythia-1.4B", "MUDDPythia-2.8B", "MUDDFormer-2.8B")
}
"""The released models, by short name."""

PYTHIAS = tuple(
    f"pythia-{size}" for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b")
)


@dataclass(frozen=True)
class Place:
    """Where a name leads.

    Attributes:
        name: What was asked for.
        target: The folder or hub id, for whoever loads it.
        folder: Where its ``config.json`` is; ``None`` for a baseline's short name.
        repository: The hub id, for a model from the hub.
        tokenizer: Where its ``tokenizer.json`` would be.
    """

    name: str
    target: str
    folder: Path | None = None
    repository: str | None = None
    tokenizer: Path | None = None


def locate(name: str, revision: str | None, local_files_only: bool) -> Place:
    """Find out what a name means: bundled, a folder, a short name, or a hub id, in this order.

    Of a hub model only the configuration and the tokenizer are downloaded.

    Raises:
        ValueError: If it is none of them, with the nearest names, it cannot be had, or a revision
            is asked of what is not on the hub.
    """
    if name in BUNDLED:
        _refuse_revision(revision, f"{name} comes with the package")
        folder = BUNDLED_FOLDER / name
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"the bundled model {name} is not in this installation (expected {folder}): "
                "install mudd-interp again, or train it with `mudd-interp train tiny-pair`."
            )
        return Place(name, str(folder), folder, tokenizer=BUNDLED_FOLDER / "tokenizer.json")
    path = Path(name).expanduser()
    if name and path.is_dir():
        _refuse_revision(revision, f"{name} is a folder")
        return Place(name, str(path), path, tokenizer=path / "tokenizer.json")
    _refuse_paths(name, path)
    repository = RELEASED.get(name, name)
    if "/" not in repository:
        return Place(name, _baseline(name))
    folder = fetch_small(repository, revision, local_files_only)
    return Place(name, repository, folder, repository, folder / "tokenizer.json")


def _refuse_revision(revision: str | None, why: str) -> None:
    if revision is not None:
        raise ValueError(
            f"revision={revision!r} is for repositories of the hub, but {why} and has only what is "
            "there: leave revision out, or give a hub id."
        )


def _refuse_paths(name: str, path: Path) -> None:
    if path.is_file():
        raise ValueError(f"{name} is a file: give the folder that it is in.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name:
        raise ValueError(
            f"there is no folder {name!r}: expected a folder with config.json and weights, "
            f"{_known()}."
        )


def _baseline(name: str) -> str:
    """The hub id of a Transformer that TransformerLens knows by a short name."""
    try:
        return get_official_model_name(name)
    except ValueError:
        raise ValueError(_unknown(name)) from None


def _unknown(name: str) -> str:
    known = {known.casefold(): known for known in (*BUNDLED, *RELEASED, *PYTHIAS)}
    near = difflib.get_close_matches(name.casefold(), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(f'`{known[n]}`' for n in near)}?" if near else "."
    return f"no model and no folder `{name}`{hint} Expected a folder, {_known()}."


def _known() -> str:
    return (
        f"a name ({', '.join((*BUNDLED, *RELEASED))}, pythia-160m, ...) or a hub id "
        "(EleutherAI/pythia-160m)"
    )
