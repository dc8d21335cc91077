"""The state of a training run on disk: written whole, and verified before any of it is used."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from mudd_interp.files import replacing

_KINDS: dict[str, type] = {
    "model": dict,
    "optimizer": dict,
    "step": int,
    "rng": Tensor,
    "recipe": dict,
}
_AGAIN = "choose another output folder, or remove the file to start again."


@dataclass(frozen=True, kw_only=True)
class State:
    """What a run needs in order to resume.

    Attributes:
        model: The model's tensors by name.
        optimizer: The optimizer's state.
        step: Optimiser steps so far.
        rng: The state of torch's random numbers.
        recipe: How the model is trained, JSON-ready.
    """

    model: dict[str, Shaped[Tensor, "..."]]
    optimizer: dict[str, Any]
    step: int
    rng: UInt8[Tensor, " byte"]
    recipe: dict[str, Any]


def write_state(state: State, path: Path) -> None:
    """Write a state, with a digest of it.

    Raises:
        ValueError: If it cannot be written; a file that was there stays as it was.
    """
    values = dict(vars(state))
    try:
        with replacing(path) as temporary:
            torch.save({**values, "sha256": _digest(values)}, temporary)
    except (OSError, RuntimeError) as error:  # the latter comes from torch's writer
        raise ValueError(
            f"cannot write {path}, the disk may be full: the previous checkpoint stays; make room, "
            "and the same command resumes from there."
        ) from error


def read_state(path: Path) -> State:
    """Read what :func:`write_state` wrote; files of version 0.1 have no digest.

    Raises:
        ValueError: If the file is damaged, or is not a checkpoint.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        given = found.pop("sha256", None)
        wrong = {*found} ^ {*_KINDS}
        wrong |= {name for name in {*found} & {*_KINDS} if type(found[name]) is not _KINDS[name]}
        whole = not wrong and given in (None, _digest(found)) and found["step"] >= 0
    except Exception as error:  # a damaged file can make torch raise any class
        raise ValueError(f"{path} is damaged or not a checkpoint: {_AGAIN}") from error
    if not whole:
        raise ValueError(f"{path} is damaged or not a checkpoint: {_AGAIN}")
    return State(**found)


def load_state(state: State, path: Path, model: nn.Module, optimizer: Any) -> None:
    """Restore a state: the model's, its optimizer's, and that of torch's random numbers.

    Raises:
        ValueError: If it is damaged, or belongs to another model.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    held = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in state.model.items()}
    differing = sorted(name for name in wanted | held if wanted.get(name) != held.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"{path} is of another model: its `{name}` is {_shape(held.get(name))}, this model's "
            f"{_shape(wanted.get(name))}. Choose another output folder, or remove this one."
        )
    try:
        model.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.rng)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or belongs to another run: {_AGAIN}") from error


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _digest(values: Any) -> str:
    """The sha256 of nested values; of a tensor, it covers dtype, shape and bytes."""
    digest = hashlib.sha256()
    _feed(digest, values)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)}".encode())
        for name, inner in value.items():
            _feed(digest, name)
            _feed(digest, inner)
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)}".encode())
        for inner in value:
            _feed(digest, inner)
    else:
        digest.update(json.dumps(value).encode())
