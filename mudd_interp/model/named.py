"""Names that a model has not: the nearest that it has, or what to use instead."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mudd_interp.axes import unknown_name

ELSEWHERE: dict[str, str] = {
    "W_pos": "positions are rotated in, and have no weights; where they are learned, it is "
    "`embed.W_pos`",
    "W_E_pos": "positions are rotated in, and have no weights; where they are learned, they are "
    "`embed.W_pos`",
    "pos_embed": "positions are rotated in, or part of X_0, which is `hook_embed`",
    "original_model": "the model is no wrapper around another one",
    "enable_compatibility_mode": "no norm is folded and nothing is centred: with dense connections "
    "that would change what the model computes",
    "process_weights": "no norm is folded and nothing is centred: with dense connections that "
    "would change what the model computes",
    "hf_generate": "use generate",
    "diffusion_generate": "use generate",
    "mps": "use model.to('mps')",
    "set_ungroup_grouped_query_attention": "W_K and W_V have one entry for each head of keys and "
    "values, model.QK and model.OV one for each head",
    "QK_for_attn_layers": "every block has attention: use model.QK",
    "OV_for_attn_layers": "every block has attention: use model.OV",
    "blocks_with": "every block has attention and an FFN: use model.blocks",
    "stack_params_for": "use model.W_Q and its relatives, or model.blocks",
    "layer_types": "every block has attention and an FFN",
    "block_hooks": "model.hook_dict has all names",
}
"""Members of TransformerLens' models that ours lack, with the reason or what to use instead."""


class MissingNameError(AttributeError):
    """A module has no such attribute. What it has is looked for when the message is read."""

    def __init__(self, module: "NearestNames", name: str):
        super().__init__(name)
        self.module = module

    def __str__(self) -> str:
        """What is missing, and the nearest names or what to use instead."""
        return self.module.missing(self.args[0])


class NearestNames(nn.Module):
    """A module that says what it has instead of what it has not."""

    elsewhere: Mapping[str, str] = {}
    """Names of other libraries' models, each with what to use instead."""

    def __getattr__(self, name: str) -> Any:
        """Look a parameter or submodule up.

        Raises:
            MissingNameError: If there is none.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise MissingNameError(self, name) from None

    def missing(self, name: str) -> str:
        """The message for an attribute that is not there."""
        kind = type(self).__name__
        if name in self.elsewhere:
            return f"{kind} has no `{name}`: {self.elsewhere[name]}."
        return unknown_name(f"attribute of {kind}", name, filter(_is_public, dir(self)))


def _is_public(name: str) -> bool:
    return not name.startswith("_")
