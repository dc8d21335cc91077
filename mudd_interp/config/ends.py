"""What a model reads and what it is for, as values: its front and its task, each by its kind."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, cast

from mudd_interp.axes import unknown_name
from mudd_interp.config.widths import LARGEST_SIZE


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
    """Token ids ``[batch pos]``."""

    kind = "tokens"


@dataclass(frozen=True, kw_only=True)
class Patches(FrontConfig):
    """Square images, cut into square patches: one position each, row by row.

    Where a patch stands is added to it: fixed 2-D sine-cosine positions (big_vision's ``vit.py``).

    Attributes:
        image_size: Rows, and columns, of an image, in pixels.
        patch_size: The same of a patch; it divides ``image_size``.
        n_channels: 1 for grey, 3 for red, green and blue.

    Raises:
        ValueError: If a number is no positive whole number, or the patches do not fill the image.
    """

    kind = "patches"

    image_size: int = 224
    patch_size: int = 16
    n_channels: int = 3

    def __post_init__(self) -> None:
        """Check the numbers."""
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
                raise ValueError(
                    f"{field.name} must be a whole number of at least 1, got {value!r}."
                )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patches of {self.patch_size} x {self.patch_size} pixels do not fill an image of "
                f"{self.image_size} x {self.image_size}: patch_size must divide image_size."
            )

    @property
    def side(self) -> int:
        """How many patches stand beside each other, and how many below each other."""
        return self.image_size // self.patch_size

    @property
    def n_patches(self) -> int:
        """How many patches an image has."""
        return self.side**2

    @property
    def pixels(self) -> int:
        """How many numbers a patch has."""
        return self.n_channels * self.patch_size**2


@dataclass(frozen=True, kw_only=True)
class NextTokenTask(TaskConfig):
    """Every position predicts the token that follows it."""

    kind = "next_token"


@dataclass(frozen=True, kw_only=True)
class Classes(TaskConfig):
    """The class of an input, from the mean over positions of the normed final stream.

    Attributes:
        pre_logits: Whether a layer with tanh stands between the mean and the classes, as wide as
            the model (big_vision's ``rep_size``). Class logits are then not linear in the stream.
        names: What the classes are called, by number; ``None`` where that is not known.

    Raises:
        ValueError: If the flag is neither true nor false, or the names are not different words.
    """

    kind = "classes"

    pre_logits: bool = False
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the flag and the names."""
        flag, names = cast(Any, self.pre_logits), cast(Any, self.names)
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
