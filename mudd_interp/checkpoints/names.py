"""What ``load_model`` may be given: a name, a folder or a hub id, and where that leads."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from transformer_lens.supported_models import get_official_model_name

from mudd_interp.checkpoints.hub import fetch_small, fetch_weights

PAIRS = (("mudd-tiny", "tfm-tiny"), ("mudd-vit-tiny", "vit-tiny"))
"""The bundled models, each with its baseline: of text, and of images."""

BUNDLED = tuple(name for pair in PAIRS for name in pair)
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"

RELEASED = {
    name: f"Caiyun-AI/{name}" for name in ("MUDDPythia-1.4B", "MUDDPythia-2.8B", "MUDDFormer-2.8B")
}
"""The released models, by short name."""

PYTHIAS = tuple(
    f"pythia-{size}" for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b")
)


@dataclass(frozen=True)
class Location:
    """Where a name leads.

    Attributes:
        name: What the model is called: as it was asked for, or the hub id of a Transformer that
            has a short name.
        folder: Where its ``config.json`` is, and its weights are or will be.
        tokenizer: Where its ``tokenizer.json`` would be.
        repository: The hub id, for a model from the hub.
    """

    name: str
    folder: Path
    tokenizer: Path
    repository: str | None = None

    @property
    def revision(self) -> str | None:
        """The commit on the hub, or ``None``."""
        return None if self.repository is None else self.folder.name


def locate(name: str, revision: str | None, local_files_only: bool) -> Location:
    """Find out what a name means: bundled, a folder, a short name, or a hub id, in this order.

    Of a hub model only the configuration and the tokenizer are downloaded.

    Raises:
        ValueError: If it is none of them, with the nearest names, it cannot be had, or a revision
            is given for something that is not on the hub.
    """
    if name in BUNDLED:
        _refuse_revision(revision, f"{name} comes with the package")
        folder = BUNDLED_FOLDER / name
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"the bundled model {name} is not in this installation (expected {folder}): "
                f"install mudd-interp again, or train it with `mudd-interp train {_plan(name)}`."
            )
        return Location(name, folder, BUNDLED_FOLDER / "tokenizer.json")
    path = Path(name).expanduser()
    if name and path.is_dir():
        _refuse_revision(revision, f"{name} is a folder")
        return Location(name, path, path / "tokenizer.json")
    _refuse_paths(name, path)
    called = name if "/" in name or name in RELEASED else _of_hub(name)
    repository = RELEASED.get(called, called)
    folder = fetch_small(repository, revision, local_files_only)
    return Location(called, folder, folder / "tokenizer.json", repository)


def complete(location: Location, local_files_only: bool) -> Path:
    """The folder of a model with its weights: those of the hub are downloaded into its cache.

    Raises:
        ValueError: If the weights of a hub model cannot be had.
    """
    if location.repository is None:
        return location.folder
    return fetch_weights(location.repository, location.folder.name, local_files_only)


def _plan(name: str) -> str:
    return "tiny-pair" if name in PAIRS[0] else "vit-pair"


def _refuse_revision(revision: str | None, why: str) -> None:
    if revision is not None:
        raise ValueError(
            f"revision={revision!r} is for repositories of the hub, but {why} and has no "
            "revisions: leave revision out, or give a hub id."
        )


def _refuse_paths(name: str, path: Path) -> None:
    if path.is_file():
        raise ValueError(f"{name} is a file: give the folder that it is in.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name:
        raise ValueError(
            f"there is no folder {name!r}: expected a folder with config.json and weights, "
            f"{_known()}."
        )


def _of_hub(name: str) -> str:
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
