"""What an architecture gives a model: its modules, what flows in a pass, and its wiring."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.axes import STREAMS, Stream
from mudd_interp.config import ModelConfig
from mudd_interp.config.wiring import WiringConfig
from mudd_interp.model.layers import Norm, make_norm
from mudd_interp.wiring import Wiring

Streams = Mapping[Stream, Float[Tensor, "batch pos d_model"]]


class Flow:
    """One forward pass: what has been written, and what blocks read of it.

    As it is, that of a plain Transformer: the newest state is what every stream of a block reads.

    Args:
        parallel: Whether a block's FFN reads what its attention reads, and not its output too.
    """

    def __init__(self, parallel: bool):
        self.parallel = parallel

    def write(self, x: Float[Tensor, "batch pos *stream d_model"]) -> None:
        """X_0, or a block's output."""
        self.newest = x

    def streams(self) -> Streams:
        """What the next block reads, or on stream r the final norm."""
        return same_streams(self.newest)

    def final(self) -> Float[Tensor, "batch pos *stream d_model"]:
        """What the head reads."""
        return self.streams()["r"]

    def ffn_input(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        attn_out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the FFN of a block reads."""
        return residual if self.parallel else residual + attn_out

    def output(
        self,
        read: Float[Tensor, "batch pos d_model"],
        attn_out: Float[Tensor, "batch pos d_model"],
        mlp_out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos *stream d_model"]:
        """A block's output, from what its FFN read and what its sublayers wrote."""
        return read + attn_out + mlp_out if self.parallel else read + mlp_out


class Connections(ABC):
    """An architecture of one model.

    Attributes:
        wiring: What analyses ask.
    """

    wiring: Wiring

    @property
    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Modules of the model, by name."""

    @abstractmethod
    def init_weights(self) -> None:
        """Draw the weights; a fresh model is its plain twin."""

    @abstractmethod
    def begin(self) -> Flow:
        """A new pass."""

    def reduced(
        self, x: Float[Tensor, "batch pos *stream d_model"]
    ) -> Float[Tensor, "batch pos *row d_model"]:
        """What the final norm is given, of what flows.

        Raises:
            ValueError: If that does not say it.
        """
        return x

    def final(self, cfg: ModelConfig) -> tuple[nn.Module, Norm | Any]:
        """The hook on what the head reads, and the norm that it is put through."""
        return HookPoint(), make_norm(cfg)


@dataclass(frozen=True, kw_only=True)
class Architecture(WiringConfig, ABC):
    """The configuration of an architecture, which can be built."""

    @abstractmethod
    def build(self, cfg: ModelConfig) -> Connections:
        """The connections of a model of this configuration."""


def same_streams(x: Float[Tensor, "batch pos d_model"]) -> Streams:
    """One tensor as all four streams."""
    return dict.fromkeys(STREAMS, x)


def taken(
    weights: Float[Tensor, "... row"], rows: Float[Tensor, "batch pos row d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """A weighted sum of streams, or of candidates, at each token."""
    return (weights[..., None, :] @ rows).squeeze(-2)


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a field of an architecture that is none of the values that it may have.

    Raises:
        ValueError: With these values.
    """
    if value not in allowed or type(value) is not type(allowed[0]):
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}.")


def whole_number(name: str, value: object, least: int = 1) -> None:
    """Refuse a field of an architecture that is not a whole number, or too small.

    Raises:
        ValueError: With the least that it may be.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
