"""What a model reads and what it is for, as values: its front and its task, each by its kind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from mudd_interp.axes import unknown_name
from mudd_interp.config.widths import LARGEST_SIZE

Positions = Literal["sine_cosine", "learned"]
Pooling = Literal["mean", "first"]


@dataclass(frozen=True, kw_only=True)
class EndConfig:
    """What a configuration says about one of a model's two ends."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, tagged by its kind."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return {"kind": self.kind, **lists}


class FrontConfig(EndConfig):
    """What a model reads."""


class TaskConfig(EndConfig):
    """What a model is for."""


@dataclass(frozen=True, kw_only=True)
class TokenInput(FrontConfig):
    """Token ids ``[batch pos]``.

    Attributes:
        normed: RMSNorm without a gain on each token's embedding, before all else.
        smear: Each token's embedding has some of the one before added to it, by a gate that reads
            the first 24 channels: ``lambda * sigmoid(x W)`` (nanochat).

    Raises:
        ValueError: If one of them is neither true nor false.
    """

    kind = "tokens"

    normed: bool = False
    smear: bool = False

    def __post_init__(self) -> None:
        """Check the flags."""
        for name in ("normed", "smear"):
            given: Any = getattr(self, name)
            if not isinstance(given, bool):
                raise ValueError(f"{name} must be true or false, got {given!r}.")


@dataclass(frozen=True, kw_only=True)
class Patches(FrontConfig):
    """Square images, cut into square patches: one position each, row by row.

    Attributes:
        image_size: Rows, and columns, of an image, in pixels.
        patch_size: The same of a patch; it divides ``image_size``.
        n_channels: 1 for grey, 3 for red, green and blue.
        n_prefix: Positions before the patches that stand for nothing in the image, with learned
            vectors: a class token, registers.
        positions: What is added to a patch for where it stands: ``"sine_cosine"`` is fixed, in two
            dimensions (big_vision's ``vit.py``); ``"learned"`` has a vector for each position.
        mean: For each channel, what is subtracted from brightness in 0..1 before it is divided by
            ``std``; ``None`` for one half of both, which is -1..1 as images come.
        std: See ``mean``.

    Raises:
        ValueError: If a number is out of range, or the patches do not fill the image.
    """

    kind = "patches"

    image_size: int = 224
    patch_size: int = 16
    n_channels: int = 3
    n_prefix: int = 0
    positions: Positions = "sine_cosine"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("image_size", "patch_size", "n_channels", "n_prefix"):
            value, least = getattr(self, name), int(name != "n_prefix")
            if type(value) is not int or not least <= value <= LARGEST_SIZE:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {value!r}."
                )
        if self.positions not in get_args(Positions):
            allowed = " or ".join(get_args(Positions))
            raise ValueError(f"positions must be {allowed}, got {self.positions!r}.")
        self._check_scale()
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patches of {self.patch_size} x {self.patch_size} pixels do not fill an image of "
                f"{self.image_size} x {self.image_size}: patch_size must divide image_size."
            )

    def _check_scale(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both, or neither.")
        for name in ("mean", "std"):
            given: Any = getattr(self, name)
            numbers = isinstance(given, tuple) and all(isinstance(x, int | float) for x in given)
            if given is not None and (not numbers or len(given) != self.n_channels):
                raise ValueError(
                    f"{name} must have a number for each of {self.n_channels} channels, got "
                    f"{given!r}."
                )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}.")

    @property
    def side(self) -> int:
        """How many patches stand beside each other, and how many below each other."""
        return self.image_size // self.patch_size

    @property
    def n_patches(self) -> int:
        """How many patches an image has."""
        return self.side**2

    @property
    def n_positions(self) -> int:
        """How many positions a model reads of an image."""
        return self.n_prefix + self.n_patches

    @property
    def pixels(self) -> int:
        """How many numbers a patch has."""
        return self.n_channels * self.patch_size**2


@dataclass(frozen=True, kw_only=True)
class NextTokenTask(TaskConfig):
    """Every position predicts the token that follows it.

    Attributes:
        softcap: The bound of logits, ``c * tanh(logits / c)``; ``None`` for none. What components
            contribute is of the logits before it.

    Raises:
        ValueError: If it is not a positive number.
    """

    kind = "next_token"

    softcap: float | None = None

    def __post_init__(self) -> None:
        """Check the bound."""
        given: Any = self.softcap
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if given is not None and not (number and math.isfinite(given) and given > 0):
            raise ValueError(f"softcap must be a positive number, or none, got {given!r}.")


@dataclass(frozen=True, kw_only=True)
class Classes(TaskConfig):
    """The class of an input, from the normed final stream.

    Attributes:
        pooling: What of it is read: the ``"mean"`` over positions, or the ``"first"``, where a
            class token stands.
        pre_logits: Whether a layer with tanh stands between the mean and the classes, as wide as
            the model (big_vision's ``rep_size``). Class logits are then not linear in the stream.
        names: What the classes are called, by number; ``None`` where that is not known.

    Raises:
        ValueError: If a value is not one of those, or the names are not different words.
    """

    kind = "classes"

    pooling: Pooling = "mean"
    pre_logits: bool = False
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the flag and the names."""
        flag, names = cast(Any, self.pre_logits), cast(Any, self.names)
        if self.pooling not in get_args(Pooling):
            allowed = " or ".join(get_args(Pooling))
            raise ValueError(f"pooling must be {allowed}, got {self.pooling!r}.")
        if not isinstance(flag, bool):
            raise ValueError(f"pre_logits must be true or false, got {flag!r}.")
        if names is None:
            return
        words = isinstance(names, tuple) and all(isinstance(n, str) and n.strip() for n in names)
        if not words or not names or len(set(names)) < len(names):
            raise ValueError(f"names must be different words, one for each class, got {names!r}.")


FRONTS: Mapping[str, type[FrontConfig]] = {each.kind: each for each in (TokenInput, Patches)}
TASKS: Mapping[str, type[TaskConfig]] = {each.kind: each for each in (NextTokenTask, Classes)}

End = TypeVar("End", bound=EndConfig)


def end_from_dict(what: str, values: Any, kinds: Mapping[str, type[End]]) -> End:
    """Read what :meth:`EndConfig.to_dict` wrote.

    Args:
        what: Which end, for the message: ``front`` or ``task``.
        values: What was written.
        kinds: The classes that it may be, by kind.

    Raises:
        ValueError: If it is not an object with a known kind and fields, or a value does not fit.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise ValueError(
            f"{what} must be an object with a kind ({', '.join(kinds)}), got {str(values)[:60]}."
        )
    if values["kind"] not in kinds:
        raise ValueError(unknown_name(what, values["kind"], kinds))
    found = kinds[values["kind"]]
    given: dict[str, Any] = {
        str(name): tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name != "kind"
    }
    known = [field.name for field in fields(found)]
    for name in given:
        if name not in known:
            raise ValueError(unknown_name(f"field of a {what} of kind {found.kind}", name, known))
    return found(**given)
