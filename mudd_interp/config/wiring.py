"""How a model is wired, as a value: a frozen dataclass for each architecture, by its kind."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

from mudd_interp.axes import STREAMS, Stream, unknown_name

HOMES = {
    "plain": "plain.Plain",
    "mudd": "mudd.MUDD",
    "prepost": "prepost.PrePost",
    "static": "static.Static",
    "hyper": "hyper.Hyper",
    "scalars": "scalars.Scalars",
    "attnres": "attnres.AttnRes",
}
"""Where each kind is: a module of ``mudd_interp.model.wirings``, and the class in it. These modules
load torch, so a kind is imported only when a configuration of it is made.
"""


@dataclass(frozen=True, kw_only=True)
class WiringConfig:
    """What a configuration says about a wiring; an architecture is a subclass with a kind.

    Attributes:
        kind: Its name.
        states: Whether a block's output is a state X_j, which contains what the block read.
    """

    kind: ClassVar[str]
    states: ClassVar[bool] = True

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The distinct input streams of a block: q k v r, or r alone when all four are one."""
        return ("r",)

    def check(self, cfg: Any) -> None:
        """Refuse a model configuration that this wiring is not for.

        Raises:
            ValueError: With the field that does not fit.
        """

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, tagged by its kind; :func:`wiring_from_dict` reads it back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind, **values}


def wiring(kind: str, **values: Any) -> WiringConfig:
    """A wiring by its kind.

    Raises:
        ValueError: If there is no such kind or field, with the nearest, or a value does not fit.
    """
    if kind not in HOMES:
        raise ValueError(unknown_name("wiring", kind, HOMES) + f" There are {', '.join(HOMES)}.")
    module, _, name = HOMES[kind].partition(".")
    found: type[WiringConfig] = getattr(import_module(f"mudd_interp.model.wirings.{module}"), name)
    known = [field.name for field in fields(found)]
    for name in values:
        if name not in known:
            raise ValueError(unknown_name(f"field of a wiring of kind {kind}", name, known))
    return found(**values)


def wiring_from_dict(values: Any) -> WiringConfig:
    """Read what :meth:`WiringConfig.to_dict` wrote.

    Raises:
        ValueError: If it is not an object with a kind, or as :func:`wiring`.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise ValueError(
            f"wiring must be an object with a kind ({', '.join(HOMES)}), got {str(values)[:60]}."
        )
    return wiring(**{str(name): value for name, value in values.items()})


# --- The flags of version 0.1, which wirings were before they were values -------------------------

FLAGS: Mapping[str, Any] = {
    "dense": "dynamic",
    "multiway": True,
    "plain_streams": (),
    "expand_last": False,
    "round64": False,
    "pre_post_norm": "none",
}
"""The fields of configurations saved by version 0.1 that make up a wiring, with their defaults."""

_CHOICES = {"dense": ("none", "static", "dynamic"), "pre_post_norm": ("none", "all", "residual")}


def wiring_of_flags(given: Mapping[str, Any]) -> WiringConfig:
    """The wiring that flags of version 0.1 mean.

    Raises:
        ValueError: If they contradict each other, or have values that are not allowed.
    """
    flags = {**FLAGS, **given}
    for name, allowed in _CHOICES.items():
        if flags[name] not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {flags[name]!r}.")
    for name in ("multiway", "expand_last", "round64"):
        if not isinstance(flags[name], bool):
            raise ValueError(f"{name} must be true or false, got {flags[name]!r}.")
    plain, normed = tuple(flags["plain_streams"]), flags["pre_post_norm"]
    if flags["dense"] == "none":
        if plain or normed != "none":
            raise ValueError(
                "plain_streams and pre_post_norm need dense connections, but dense is 'none'."
            )
        return wiring("plain")
    if plain and not flags["multiway"]:
        raise ValueError("plain_streams needs multiway=True: a single way has no streams.")
    unknown = [stream for stream in plain if stream not in STREAMS]
    if unknown:
        raise ValueError(f"plain_streams may hold q, k, v and r, got {unknown[0]!r}.")
    values = {
        "ways": "".join(s for s in STREAMS if s not in plain) if flags["multiway"] else "one",
        "dynamic": flags["dense"] == "dynamic",
        "expand_last": flags["expand_last"],
        "round64": flags["round64"],
    }
    if normed == "none":
        return wiring("mudd", **values)
    return wiring("prepost", variant=normed, **values)


def flags_of_wiring(given: WiringConfig) -> dict[str, Any]:
    """The flags that version 0.1 had for a wiring; for a later kind, the wiring itself.

    A model's digest covers them, so that results of then and now are of the same model.
    """
    values = given.to_dict()
    if given.kind == "plain":
        return {**FLAGS, "plain_streams": [], "dense": "none", "multiway": False}
    if given.kind not in ("mudd", "prepost"):
        return {"wiring": values}
    ways = values["ways"]
    return {
        "dense": "dynamic" if values["dynamic"] else "static",
        "multiway": ways != "one",
        "plain_streams": [] if ways == "one" else [s for s in STREAMS if s not in ways],
        "expand_last": values["expand_last"],
        "round64": values["round64"],
        "pre_post_norm": values.get("variant", "none"),
    }
