"""The parameters of a bridged model, each at its place among the bridge's components."""

from collections.abc import Generator
from typing import Any

from torch import Tensor, nn


def placed_parameters(bridge: Any) -> Generator[tuple[str, nn.Module, Tensor]]:
    """Every parameter of the Hugging Face model below a bridge, at every place where it stands.

    A place is spelled by the bridge's names as far as they reach, and by Hugging Face's from there
    on (``blocks.0.attn.q.weight``, ``blocks.1.mlp.experts.down_proj``): what no component of the
    bridge holds has Hugging Face's name. A parameter that is tied comes once for each place. The
    copies that a bridge makes of a combined projection, to hook its parts, are left out.

    Yields:
        The place, the module that holds the parameter, and the parameter.
    """
    yield from _below(bridge.original_model, "", _component_names(bridge))


def _component_names(bridge: Any) -> dict[int, str]:
    """The bridge's name of each of its components, by identity."""
    return {
        id(module): name.replace("_original_component.", "")
        for name, module in _own_children(bridge, "")
    }


def _own_children(module: Any, prefix: str) -> Generator[tuple[str, nn.Module]]:
    """Components below a component, without what is Hugging Face's."""
    for name, child in module.named_children():
        if name not in ("original_model", "_original_component"):
            yield prefix + name, child
            yield from _own_children(child, f"{prefix}{name}.")


def _below(
    module: Any, place: str, names: dict[int, str]
) -> Generator[tuple[str, nn.Module, Tensor]]:
    if id(module) in names:
        place = f"{names[id(module)]}."
    original = getattr(module, "original_component", None)
    if original is not None:
        yield from _below(original, place, names)
        return
    for name, parameter in module.named_parameters(recurse=False):
        yield place + name, module, parameter
    for name, child in module.named_children():
        yield from _below(child, f"{place}{name}.", names)
