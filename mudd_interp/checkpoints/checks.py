"""What is tried on every model that is loaded, by running it on a few tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.model import HookedMUDDTransformer

TOKENS = 6
ROW_SUM = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far the sum of an attention row may be from one: the rounding of its entries."""


@torch.no_grad()
def check_runs(model: HookedMUDDTransformer) -> tuple[str, ...]:
    """Run a model on a few tokens, then run it again with one hooked tensor edited.

    Returns:
        What was found, in words.

    Raises:
        ValueError: If logits are not finite, the rows of a pattern do not sum to one, or an edit
            of a hooked tensor leaves the logits as they were.
    """
    cfg = model.config
    tokens = torch.arange(min(TOKENS, cfg.n_ctx), device=model.cfg.device)[None] % cfg.d_vocab
    names = [axes.pattern(layer) for layer in range(cfg.n_layers)]
    logits, cache = model.run_with_cache(tokens, names_filter=names, return_cache_object=False)
    if not logits.isfinite().all():
        raise ValueError(
            f"the logits of {model.info.name} are not finite in {model.cfg.dtype}, though its "
            "weights are: load it with dtype=torch.float32."
        )
    worst = max(_row_error(name, cache[name]) for name in names)
    edited = axes.resid_pre(cfg.n_layers // 2)
    change = _effect(model, tokens, logits, edited)
    return (
        f"attention: all rows sum to one (to {worst:.1g})",
        f"hooks: editing {edited} changes the logits (by up to {change:.2g})",
    )


def _row_error(name: str, pattern: Float[Tensor, "batch head query key"]) -> float:
    error = float((pattern.double().sum(-1) - 1).abs().max())
    if not error <= ROW_SUM[pattern.dtype]:
        raise ValueError(
            f"the rows of {name} sum to one only to {error:.2g} (in {pattern.dtype}): its weights "
            "or its precision are not what they should be; try dtype=torch.float32."
        )
    return error


def _effect(
    model: HookedMUDDTransformer,
    tokens: Tensor,
    logits: Float[Tensor, "batch pos d_vocab"],
    name: str,
) -> float:
    """The largest change of a logit when the tensor of one hook is negated."""
    with model.hooks([(name, lambda x, hook: -x)]):  # noqa: ARG005 (a hook's signature)
        change = float((model(tokens) - logits).abs().max())
    if change == 0:
        raise ValueError(
            f"editing `{name}` does not change the logits of {model.info.name}: weights that "
            "matter are all zero; is this a checkpoint of a trained model?"
        )
    return change
