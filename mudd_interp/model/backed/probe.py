"""What is tried on a backed model, on a few tokens: its gates, its hooks, its head."""

from collections.abc import Mapping
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.model.bridge.probe import close, nudge
from mudd_interp.model.language import LanguageModel
from mudd_interp.sublayers import SublayerWiring
from mudd_interp.wiring import total

APART = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far a read may be from what its gates say, in units of its length: rounding, many times."""

APART_IN_HALF = 2e-2
"""The same for one sublayer, where streams are rounded to half precision behind each."""


def probe(model: LanguageModel, wiring: SublayerWiring) -> tuple[dict[str, str], float]:
    """Run a model on an example, and see which hooks are live.

    Returns:
        Hooks whose edits change nothing, each with the reason; and how far reads are from what
        their gates say, in units of their length.

    Raises:
        ValueError: If logits are not finite, or the reads are not what the gates say.
    """
    tokens = model.front.example().to(model.cfg.device)
    with torch.no_grad():
        logits, tape = model.run_with_cache(
            tokens, names_filter=lambda _: True, return_cache_object=False
        )
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the logits of {model.cfg.model_name} are not finite in {model.cfg.dtype}: load it "
            "with dtype=torch.float32, or look at its weights."
        )
    worst = check_reads(model, wiring, tape)
    check_head(model, tape, logits)
    nudged, dead = nudge(model, list(model.hook_dict), tokens)
    if not close(nudged, logits):
        raise ValueError(
            f"to hook {model.info.name} changes its logits, although nothing is edited: this "
            "transformers computes it otherwise than the version that it was tried with."
        )
    return dead, worst


@torch.no_grad()
def check_reads(
    model: LanguageModel, wiring: SublayerWiring, tape: Mapping[str, Float[Tensor, "..."]]
) -> float:
    """How far reads are from ``sum_j W_j * write_j``, at most, in units of their length.

    Raises:
        ValueError: If one is further away than rounding explains.
    """
    worst, allowed = 0.0, APART.get(model.cfg.dtype, APART_IN_HALF * sqrt(len(wiring.sites)))
    for read, weights in wiring.deltas_of(wiring.inputs, tape):
        parts = total(weights, [tape[write.hook].to(weights) for write in wiring.seen(read)])
        whole = tape[read.hook].to(weights)
        apart = (parts - whole).norm(dim=-1) / whole.norm(dim=-1).clamp_min(1e-30)
        found = float(apart.max())
        if not found <= allowed:
            raise ValueError(
                f"in {model.info.name} what `{read.label}` reads is not what its gates say, but "
                f"{found:.2g} of its length away: this is the code of another variant (T the other "
                "way round, or gates of the sublayer before, as in DeepSeek-V4.1)."
            )
        worst = max(worst, found)
    return worst


def check_head(
    model: LanguageModel,
    tape: Mapping[str, Float[Tensor, "..."]],
    logits: Float[Tensor, "batch pos d_vocab"],
) -> None:
    """See whether logits are the normed final stream times ``W_U``, where they should be.

    Raises:
        ValueError: If they are not.
    """
    if not model.wiring.finals:
        return
    final = (tape["ln_final.hook_normalized"] * model.ends.gain()).to(model.cfg.dtype)
    decoded = final.to(model.W_U.dtype) @ model.W_U
    if not close(decoded.detach().to(model.cfg.dtype), logits.to(model.cfg.dtype)):
        raise ValueError(
            f"the logits of {model.info.name} are not its normed final stream times the "
            f"unembedding, as far as `{axes.RESID_FINAL}` shows."
        )
