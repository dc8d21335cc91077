"""What a layout of checkpoints is: whose parameters, seen how, are which of ours."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mudd_interp.config import ModelConfig

Shape = tuple[int, ...]
View = Callable[[Float[Tensor, "*stored"]], Float[Tensor, "*ours"]]


@dataclass(frozen=True)
class StoredWeight:
    """A parameter as a checkpoint stores it.

    Attributes:
        name: Its name in the checkpoint.
        shape: Its shape there.
        view: From there to ours.
    """

    name: str
    shape: Shape
    view: View


Names = Callable[[], Collection[str]]
"""The names in a checkpoint, where a ``config.json`` does not say all; those of the hub are
downloaded for it.
"""

Placed = Mapping[str, StoredWeight | float]
"""Where each of our parameters is stored; of one that the layout has not, each of its numbers."""


def all_read(cfg: ModelConfig, name: str) -> bool:  # noqa: ARG001 (a layout's)
    """No parameter of the checkpoint is left over."""
    return False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the folders of one ``model_type`` are read as models of this project.

    Attributes:
        config: The contents of ``config.json`` as a configuration; the names in the checkpoint are
            asked for after all that can be refused without them.
        weights: Where each of our parameters is, from the configuration, the shapes of our
            parameters, and the names in the checkpoint.
        never_read: Whether a name of the checkpoint is a parameter that its own code never reads.
        identity: What the model's digest is over besides its weights.
    """

    config: Callable[[Mapping[str, Any], Names], ModelConfig]
    weights: Callable[[ModelConfig, Mapping[str, Shape], Collection[str]], Placed]
    never_read: Callable[[ModelConfig, str], bool] = all_read
    identity: Callable[[Mapping[str, Any], ModelConfig], Mapping[str, Any]]


def as_linear(name: str, shape: Shape) -> tuple[Shape, View]:
    """The shape of a parameter as linear layers store it, and the view that makes it ours."""
    leaf = name.rpartition(".")[2]
    if leaf in ("W_Q", "W_K", "W_V"):
        heads, d_model, d_head = shape
        return (heads * d_head, d_model), partial(_by_head, heads=heads)
    if leaf in ("b_Q", "b_K", "b_V"):
        return (shape[0] * shape[1],), partial(_bias_by_head, heads=shape[0])
    if leaf == "W_O":
        heads, d_head, d_model = shape
        return (d_model, heads * d_head), partial(_out_by_head, heads=heads)
    if leaf.startswith("W_") and leaf not in ("W_E", "W_pos"):
        return shape[::-1], _transposed
    return shape, as_it_is


FUSED = "QKV"
"""GPT-2's ``c_attn`` has the rows of queries, then of keys, then of values."""


def fused(name: str, shape: Shape, stored: str, order: View | None = None) -> StoredWeight:
    """One of queries, keys and values, of which a checkpoint has all three in one linear layer.

    Args:
        name: Our name of it, which ends on Q, K or V.
        shape: Our shape.
        stored: The name of the layer's weight or bias.
        order: From the order of its rows to ours, where they differ.
    """
    linear, view = as_linear(name, shape)
    which = FUSED.index(name[-1])
    rows = slice(which * linear[0], (which + 1) * linear[0])

    def ours(stack: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        part = stack[rows]
        return view(part if order is None else order(part))

    return StoredWeight(stored, (3 * linear[0], *linear[1:]), ours)


def whole(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A field of a ``config.json`` that must be a whole number of at least 1.

    Raises:
        ValueError: If it is anything else.
    """
    value = values.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    return value


def true_or_false(values: Mapping[str, Any], name: str, default: bool) -> bool:
    """A field of a ``config.json`` that must be true or false.

    Raises:
        ValueError: If it is anything else.
    """
    value: Any = values.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}.")
    return value


def as_it_is(stored: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The view of what is stored as ours is."""
    return stored


def _transposed(stored: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_in d_out"]:
    return stored.T


def _by_head(
    stored: Float[Tensor, "heads_d_head d_model"], heads: int
) -> Float[Tensor, "head d_model d_head"]:
    return stored.unflatten(0, (heads, -1)).transpose(1, 2)


def _bias_by_head(
    stored: Float[Tensor, " heads_d_head"], heads: int
) -> Float[Tensor, "head d_head"]:
    return stored.unflatten(0, (heads, -1))


def _out_by_head(
    stored: Float[Tensor, "d_model heads_d_head"], heads: int
) -> Float[Tensor, "head d_head d_model"]:
    return stored.unflatten(1, (heads, -1)).permute(1, 2, 0)
