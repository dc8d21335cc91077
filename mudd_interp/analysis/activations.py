"""The activations at hooks, row by row: what a sparse dictionary, or a probe, is trained on."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.analysis.distributed import rank_and_world_size
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import checked, require_evaluation
from mudd_interp.axes import blocks_needed, of_pairs
from mudd_interp.data import TokenBatches, shard
from mudd_interp.precision import float_dtype
from mudd_interp.protocol import HookedModel, Inputs, Observer

Rows = Float[Tensor, "row _"]
"""A row for each token; of a stream or an output, it has d_model numbers."""


@overload
def activations(
    model: HookedModel,
    batches: TokenBatches,
    hook: str,
    *,
    dtype: torch.dtype | str | None = None,
    flatten_heads: bool = False,
    start: int = 0,
) -> Iterator[Rows]: ...


@overload
def activations(
    model: HookedModel,
    batches: TokenBatches,
    hook: list[str] | tuple[str, ...],
    *,
    dtype: torch.dtype | str | None = None,
    flatten_heads: bool = False,
    start: int = 0,
) -> Iterator[dict[str, Rows]]: ...


def activations(
    model: HookedModel,
    batches: TokenBatches,
    hook: str | list[str] | tuple[str, ...],
    *,
    dtype: torch.dtype | str | None = None,
    flatten_heads: bool = False,
    start: int = 0,
) -> Iterator[Any]:
    """Iterate over what one hook shows, or several in one pass: a tensor for each batch.

    The rows of a tensor are the tokens of its batch, sequence by sequence: row ``s * pos + t`` is
    token ``t`` of sequence ``s``. The forward pass ends with the last block that is needed, nothing
    is kept from one batch to the next, and the model is free in between.

    In a process group (``torchrun``) each process gets the activations of its share of the batches:
    every ``world_size``-th, starting at its rank.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding; the same in every process.
        hook: The name of a hook with a vector for each token, such as ``blocks.6.hook_v_input`` or
            ``blocks.6.hook_resid_post``; or several names.
        dtype: Precision of the rows, e.g. ``"float16"``; ``None`` for that of the hook's tensor.
        flatten_heads: Whether a hook with a vector for each head gives their concatenation ``[row
            head*d_head]``. Otherwise such a hook is refused.
        start: How many batches (of this process' share) to skip without running the model. With it
            an interrupted run resumes, and gives the same bits.

    Returns:
        An iterator of tensors ``[row width]`` on the model's device; for several names, of
        dictionaries by name.

    Raises:
        ValueError: If a hook is unknown (the nearest names are given) or there is none, it holds a
            number for each query and key, ``dtype`` is not a precision, ``start`` is negative, or
            the model is in training mode. While walking: if a batch is not as described, a hook has
            no vector for each token or does not run beside the others, or a value is beyond the
            range of ``dtype``.
    """
    reading = Reading.of(model, hook, dtype, flatten_heads)
    if start < 0:
        raise ValueError(f"start must be 0 or more batches, got {start}.")
    rank, world_size = rank_and_world_size()
    share = islice(shard(checked(batches, model), rank, world_size), start, None)
    if isinstance(hook, str):
        return (reading(model, tokens)[hook] for tokens in share)
    return (reading(model, tokens) for tokens in share)


@dataclass(frozen=True)
class Reading:
    """How the activations of a model are read.

    Attributes:
        hooks: Their names.
        dtype: Precision of the rows; ``None`` for that of each tensor.
        flatten_heads: Whether per-head vectors are concatenated.
    """

    hooks: tuple[str, ...]
    dtype: torch.dtype | None
    flatten_heads: bool

    @classmethod
    def of(
        cls,
        model: HookedModel,
        hooks: str | Iterable[str],
        dtype: torch.dtype | str | None,
        flatten_heads: bool,
    ) -> "Reading":
        """Check what is asked for.

        Raises:
            ValueError: As for :func:`activations`, before anything is run.
        """
        require_evaluation(model)
        names = tuple(dict.fromkeys([hooks] if isinstance(hooks, str) else hooks))
        if not names:
            raise ValueError("expected at least one hook, got none: see model.hook_dict for names.")
        _check_names(model, names)
        return cls(names, float_dtype(dtype), flatten_heads)

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for, JSON-ready."""
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {"hooks": list(self.hooks), "dtype": dtype, "flatten_heads": self.flatten_heads}

    @torch.no_grad()
    def __call__(self, model: HookedModel, tokens: Inputs) -> dict[str, Rows]:
        """The rows of one batch by hook."""
        kept: dict[str, Rows] = {}
        shape = len(tokens), model.front.positions(tokens)
        keep = [(name, Observer(partial(self._keep, kept, name, shape))) for name in self.hooks]
        with model.hooks([*finite_hooks(model), *keep]):
            model(tokens, return_type=None, stop_at_layer=self._last_block())
        return {name: kept[name] for name in self.hooks}

    def _last_block(self) -> int | None:
        needed = [blocks_needed(name) for name in self.hooks]
        return None if None in needed else max(n for n in needed if n is not None)

    def _keep(
        self, kept: dict[str, Rows], name: str, shape: tuple[int, int], tensor: Tensor, _: Any
    ) -> None:
        if tensor.ndim not in (3, 4) or tensor.shape[:2] != shape:
            raise ValueError(
                f"`{name}` has the shape {list(tensor.shape)}: expected a vector for each of the "
                f"{list(shape)} tokens (batch, pos). Give another hook."
            )
        if tensor.ndim == 4 and not self.flatten_heads:
            raise ValueError(
                f"`{name}` has a vector for each head, {list(tensor.shape[2:])}: give "
                "flatten_heads=True for one vector of all heads, side by side."
            )
        # A copy: what runs later may reuse the same memory.
        own = tensor.detach().to(self.dtype, memory_format=torch.contiguous_format, copy=True)
        _check_range(name, tensor, own)
        kept[name] = own.view(math.prod(shape), -1)


def _check_names(model: HookedModel, names: Iterable[str]) -> None:
    with model.hooks([(name, Observer(lambda *_: None)) for name in names]):
        pass  # a model refuses names that it does not have
    for name in names:
        if of_pairs(name):
            raise ValueError(
                f"`{name}` has a number for each query and key, not a vector for each token: give "
                "another hook."
            )


def _check_range(name: str, tensor: Tensor, converted: Tensor) -> None:
    narrower = converted.dtype != tensor.dtype
    if narrower and bool((converted.isinf() & ~tensor.isinf()).any()):
        largest = float(tensor.abs().max())
        raise ValueError(
            f"`{name}` reaches {largest:.3g}, which {converted.dtype} cannot hold: give "
            "dtype=torch.bfloat16 or torch.float32."
        )
