"""TransformerLens' switches for hooks, which are always there here, or not at all."""

from collections.abc import Callable, Iterable
from typing import NoReturn

from mudd_interp import axes
from mudd_interp.model.live_config import FLAGS


class HookSwitches:
    """``set_use_*``: nothing to do where a hook needs no switch, else a refusal.

    ``False`` always passes, since all are off.

    Args:
        require: Refuses names that are not hooks of the model.
        n_layers: How many blocks it has.
    """

    def __init__(self, require: Callable[[Iterable[str]], None], n_layers: int):
        self.require, self.n_layers = require, n_layers

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Nothing to do: ``attn.hook_result`` is there without, and computed when it is named.

        Raises:
            ValueError: If it is to be used, and this model's attention has none.
        """
        if use_attn_result:
            self.require(axes.attn(layer, "hook_result") for layer in range(self.n_layers))

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Refused: the inputs of q, k and v are hooked one by one, and not head by head.

        Raises:
            NotImplementedError: If it is to be used.
        """
        if use_split_qkv_input:
            _refuse(
                "use_split_qkv_input",
                "For one head patch its `attn.hook_q`, `hook_k` or `hook_v`, [batch pos head "
                "d_head]; for paths patch dense edges, mudd_interp.analysis.edge_patch",
            )

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Refused, as :meth:`set_use_split_qkv_input` is.

        Raises:
            NotImplementedError: If it is to be used.
        """
        if use_attn_in:
            _refuse("use_attn_in", "All three together are `ln1.hook_normalized`, in a plain block")

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Refused: there is no ``hook_mlp_in``.

        Raises:
            NotImplementedError: If it is to be used.
        """
        if use_hook_mlp_in:
            _refuse("use_hook_mlp_in", "Hook one of them")


def _refuse(flag: str, advice: str) -> NoReturn:
    raise NotImplementedError(f"{flag} switches nothing on here: {FLAGS[flag]}. {advice}.")
