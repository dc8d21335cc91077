"""Numbers that are not finite: found where they begin, and kept out of results."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.protocol import Hook, HookedModel, Observer


def finite_hooks(model: HookedModel) -> list[Hook]:
    """Hooks that end a forward pass at the first block (or sublayer) whose output is not finite.

    They keep the streams that enter it until its output is seen to be finite, so the error, a
    ValueError, says where it began: the hook, the sequence of the batch, the position.
    """
    watch, wiring = _Watch(model), model.wiring
    reads = [wiring.reads[0], *wiring.rows]
    streams = [read.hook for read in reads if read.layer < model.cfg.n_layers]
    last = [read.hook for read in reads if read.layer == model.cfg.n_layers]
    outputs = [write.hook for write in wiring.sources]
    return [
        *((name, Observer(partial(watch.keep, name))) for name in streams),
        *((name, Observer(partial(watch.look, name))) for name in (*outputs, *last)),
    ]


class _Watch:
    """The streams that entered the block that is running, in the order of their hooks."""

    def __init__(self, model: HookedModel):
        self._model = model
        self._entered: dict[str, Tensor] = {}

    def keep(self, name: str, x: Float[Tensor, "batch pos d_model"], hook: Any) -> None:  # noqa: ARG002 (a hook's signature)
        """A stream enters the block."""
        self._entered[name] = x

    def look(self, name: str, x: Float[Tensor, "batch pos d_model"], hook: Any) -> None:  # noqa: ARG002 (a hook's signature)
        """The block has put something out."""
        # The sum is forty times as fast as a look at each number, and finite only if they all are.
        total = x.detach().sum(dtype=torch.promote_types(x.dtype, torch.float32))
        if not total.isfinite():
            for entered, stream in self._entered.items():
                self._check(entered, stream)
            self._check(name, x)
        self._entered.clear()

    def _check(self, name: str, x: Float[Tensor, "batch pos d_model"]) -> None:
        finite = x.isfinite()
        if not finite.all():
            sequence, position, _ = (~finite).nonzero()[0].tolist()
            what = "NaN" if x[sequence, position].isnan().any() else "infinity"
            raise ValueError(
                f"`{name}` of {self._model.info.name} holds {what} at position {position} of "
                f"sequence {sequence} of its batch: {advice(str(x.dtype).removeprefix('torch.'))}"
            )


def advice(dtype: str) -> str:
    """What to do about numbers that are not finite, in a model of this precision."""
    largest = torch.finfo(getattr(torch, dtype)).max
    if dtype == "float16":
        return (
            f"float16 ends at {largest:,.0f}, which this text goes beyond; load the model with "
            "dtype bfloat16 or float32."
        )
    return "check the model's parameters, and its edits if there are any."


def freeze(
    result: Any, dtype: str, absent: Collection[str] = (), impossible: Collection[str] = ()
) -> None:
    """Seal a new result: its numbers are checked, and its arrays are read-only from then on.

    Args:
        result: A dataclass with NumPy arrays, annotated with their axes.
        dtype: The precision of the model, for the advice.
        absent: Fields in which NaN means that there is nothing.
        impossible: Fields of logits, in which minus infinity means that a token cannot be.

    Raises:
        ValueError: With the field, the place in it and what to do.
    """
    for name, array in arrays_of(result).items():
        array.setflags(write=False)
        if array.dtype.kind != "f":
            continue
        meant = (name in absent) & np.isnan(array) | (name in impossible) & np.isneginf(array)
        wrong = ~(np.isfinite(array) | meant)
        if wrong.any():
            at = np.argwhere(wrong)[0].tolist()
            axes_at = zip(axes_of(result, name), at, strict=True)
            place = ", ".join(f"{axis} {index}" for axis, index in axes_at)
            what = "NaN" if np.isnan(array[tuple(at)]) else "infinite"
            raise ValueError(
                f"{type(result).__name__}.{name} is {what} at {place} "
                f"({int(wrong.sum()):,} of {array.size:,} numbers are not finite): {advice(dtype)}"
            )


def arrays_of(result: Any) -> Mapping[str, np.ndarray]:
    """The arrays of a dataclass by field."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def axes_of(result: Any, name: str) -> list[str]:
    """The names of an array's axes, from its annotation."""
    annotation: Any = next(field.type for field in fields(result) if field.name == name)
    return annotation.dim_str.split()
