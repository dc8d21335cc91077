"""The activation cache, and what its additive methods mean where streams are dense aggregates."""

from typing import Any, NoReturn

from transformer_lens import ActivationCache
from transformer_lens.utilities.slice import Slice


class MUDDActivationCache(ActivationCache):
    """TransformerLens' cache for models whose blocks read more than the block below.

    Indexing (``cache["pattern", 3]``), ``to``, ``remove_batch_dim``, ``stack_activation`` and
    ``stack_head_results`` work as documented there. Methods that take the residual stream for the
    plain sum of what was written to it are right for a plain Transformer only: for a MUDD model
    they raise a ``NotImplementedError`` that names what to use.
    """

    def __init__(self, cache_dict: dict[str, Any], model: Any, has_batch_dim: bool = True):
        super().__init__(cache_dict, model, has_batch_dim)

    @property
    def additive(self) -> bool:
        """Whether the residual stream is the plain sum of what was written to it."""
        return getattr(self.model.cfg, "dense", "none") == "none"

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> "MUDDActivationCache":
        """The cache of some sequences of the batch; same class."""
        sliced = super().apply_slice_to_batch_dim(
            batch_slice if isinstance(batch_slice, Slice) else Slice(batch_slice)
        )
        return type(self)(sliced.cache_dict, self.model, sliced.has_batch_dim)

    def decompose_resid(self, *args: Any, **kwargs: Any) -> Any:
        """Components of the residual stream; plain models only."""
        self._require_additive("decompose_resid")
        return super().decompose_resid(*args, **kwargs)

    def accumulated_resid(self, *args: Any, **kwargs: Any) -> Any:
        """The residual stream before each block; plain models only."""
        self._require_additive("accumulated_resid")
        return super().accumulated_resid(*args, **kwargs)

    def get_full_resid_decomposition(self, *args: Any, **kwargs: Any) -> Any:
        """Heads, neurons, embedding and biases; plain models of one FFN width only."""
        self._require_additive("get_full_resid_decomposition")
        self._require_one_width("get_full_resid_decomposition")
        return super().get_full_resid_decomposition(*args, **kwargs)

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
    ) -> Any:
        """What each head wrote; the remainder and ``apply_ln`` are for plain models only."""
        if incl_remainder or apply_ln:
            self._require_additive("stack_head_results with incl_remainder or apply_ln")
        return super().stack_head_results(layer, return_labels, incl_remainder, pos_slice, apply_ln)

    def stack_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        """What each neuron wrote; plain models of one FFN width only."""
        self._require_additive("stack_neuron_results")
        self._require_one_width("stack_neuron_results")
        return super().stack_neuron_results(*args, **kwargs)

    def apply_ln_to_stack(self, *args: Any, **kwargs: Any) -> Any:
        """A stack divided by a norm's scale; for dense models the final norm only."""
        layer = args[1] if len(args) > 1 else kwargs.get("layer")
        if layer not in (None, -1, self.model.cfg.n_layers):
            self._require_additive(f"apply_ln_to_stack(layer={layer})")
        return super().apply_ln_to_stack(*args, **kwargs)

    def logit_lens(self, **kwargs: Any) -> Any:
        """The final norm and unembedding on each residual stream; plain models only."""
        self._require_additive("logit_lens")
        return super().logit_lens(**kwargs)

    def _require_one_width(self, method: str) -> None:
        if not isinstance(self.model.cfg.d_mlp, int):
            raise NotImplementedError(
                f"the neuron labels of {method} assume one FFN width, but this model's varies with "
                "depth: use the cached mlp.hook_post of one block and its mlp.W_out."
            )

    def _require_additive(self, method: str) -> None:
        if not self.additive:
            refuse(method)


def refuse(method: str) -> NoReturn:
    """Say why an additive method would be wrong, and what is right."""
    raise NotImplementedError(
        f"{method} adds up what components wrote, but with dense connections every stream is a "
        "weighted sum of all earlier outputs. Use the streams as they are "
        "(cache['blocks.<l>.hook_q_input'], ..., cache['hook_resid_final']), the outputs "
        "X_j (cache['hook_embed'], cache['resid_post', l]) and their weights "
        "(cache['dense.<i>.hook_weights_r']): X̄ = sum_j weights[..., j] * X_j."
    )
