"""Looking an activation up in a cache: by name, or by TransformerLens' shorthand for one."""

import re
from numbers import Integral
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities.components_utils import get_act_name

from mudd_interp import axes
from mudd_interp.axes import Stream, unknown_name

GRADIENT = "_grad"


class NotKeptError(KeyError, ValueError):
    """The cache does not hold an activation, or there is no such activation."""

    def __str__(self) -> str:
        """The message as it is: a KeyError's is put in quotes."""
        return str(self.args[0])


class LookupCache(ActivationCache):
    """A cache that finds what it holds by every name of it, and says what it does not hold."""

    model: Any

    def __getitem__(self, key: Any) -> Float[Tensor, "..."]:
        """An activation by its name or its shorthand.

        ``("pattern", 3)``, ``("scale", 3, "ln2")``, ``"k6"`` and so on are TransformerLens';
        ``("weights_v", 5)`` is ``dense.5.hook_weights_v``, what the dense weights of aggregation 5
        are for stream v. The output of each head, ``("result", 3)``, is computed from
        ``attn.hook_z`` if only that was kept. A negative layer counts from the end.

        Raises:
            NotKeptError: If there is no such activation, with the nearest names, or it was not
                kept. It is a KeyError and a ValueError.
        """
        if isinstance(key, str) and key in self.cache_dict:
            return self.cache_dict[key]
        name = self._spelled(key)
        if name not in self.cache_dict and name.endswith(".attn.hook_result"):
            layer = int(name.split(".")[1])
            if axes.attn(layer, "hook_z") in self.cache_dict:
                return self.head_results(layer, self.cache_dict[axes.attn(layer, "hook_z")])
        self._require(name)
        return self.cache_dict[name]

    def head_results(
        self, layer: int, z: Float[Tensor, "*token head d_head"]
    ) -> Float[Tensor, "*token head d_model"]:
        """What each head of a block wrote, from the values that it mixed; no bias."""
        weight = self.model.blocks[layer].attn.W_O
        wide = torch.promote_types(z.dtype, weight.dtype)
        return torch.einsum("...he,hed->...hd", z.to(wide), weight.to(wide))

    def stack_activation(
        self, activation_name: str, layer: int | None = -1, sublayer_type: str | None = None
    ) -> Float[Tensor, "layer ..."]:
        """One activation of the blocks below ``layer``, stacked; arguments as in ``cache[...]``.

        Raises:
            NotKeptError: If one is not there.
            ValueError: If the blocks' differ in shape, as the dense weights of aggregations do.
        """
        n_layers = self.model.cfg.n_layers
        upto = n_layers if layer in (None, -1) else layer
        if not 1 <= upto <= n_layers:
            raise ValueError(f"layer must lie in 1..{n_layers}, or be -1 for all, got {layer}.")
        found = [self[activation_name, each, sublayer_type] for each in range(upto)]
        shapes = {tuple(each.shape): None for each in found}
        if len(shapes) > 1:
            raise ValueError(
                f"{activation_name} differs in shape from block to block, "
                f"{', '.join(str(list(shape)) for shape in shapes)}: take them one by one."
            )
        return torch.stack(found)

    def _spelled(self, key: Any) -> str:
        """The full name that a key stands for; it need not exist."""
        parts = (key,) if isinstance(key, str) else key
        if not isinstance(parts, tuple) or not _is_shorthand(parts):
            raise NotKeptError(
                "a key is a hook's name, or a shorthand: (name, layer) or (name, layer, part) with "
                f"a whole number as layer, such as ('pattern', 3); got {key!r}."
            )
        name: str = parts[0]
        layer: Any = parts[1] if len(parts) > 1 else None
        part: Any = parts[2] if len(parts) > 2 else None
        if layer is not None:
            layer = self._layer(int(layer))
        weights = re.fullmatch(r"weights_([qkvr])(\d+)?", name)
        if weights is not None and (layer is not None or weights[2] is not None):
            aggregation = int(weights[2]) if layer is None else layer
            return axes.dense_weights(aggregation, cast(Stream, weights[1]))
        if layer is not None and re.match(r"[a-z]+\d", name):  # "ln1": a number is not its layer
            return axes.block(layer, f"hook_{name}")
        return get_act_name(name, layer, part)

    def _layer(self, layer: int) -> int:
        n_layers = self.model.cfg.n_layers
        if not -n_layers <= layer < n_layers:
            raise NotKeptError(f"layer must lie in -{n_layers}..{n_layers - 1}, got {layer}.")
        return layer + n_layers if layer < 0 else layer

    def _require(self, name: str) -> None:
        if name not in self.cache_dict:
            raise NotKeptError(self._why_not(name))

    def _why_not(self, name: str) -> str:
        if self.model is None:
            return unknown_name("activation", name, self.cache_dict)
        hook = name.removesuffix(GRADIENT)
        reason = getattr(self.model, "absent", {}).get(hook)
        if reason is not None:
            return f"this model has no hook `{hook}`: {reason}."
        if axes.block(0, hook) in self.model.hook_dict:
            example = axes.block(0, hook)
            return f"`{hook}` is a hook of each block: give its layer, as in `{example}`."
        if hook not in self.model.hook_dict:
            return unknown_name("hook", hook, self.model.hook_dict)
        if hook != name:
            return f"the cache does not hold `{name}`: gradients are kept with incl_bwd=True."
        if self.model.on_request(hook):
            return f"the cache does not hold `{name}`, which is kept when names_filter names it."
        return f"the cache does not hold `{name}`: keep it too, with names_filter, or keep all."


def _is_shorthand(parts: tuple[Any, ...]) -> bool:
    return (
        1 <= len(parts) <= 3
        and isinstance(parts[0], str)
        and all(part is None or isinstance(part, Integral) for part in parts[1:2])
        and all(part is None or isinstance(part, str) for part in parts[2:])
    )
