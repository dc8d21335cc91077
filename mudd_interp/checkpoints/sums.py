"""What hyper-connections keep: sums that a wrong orientation or a wrong T lets drift."""

import torch

from mudd_interp import axes
from mudd_interp.model.core import HookedCore
from mudd_interp.model.wirings.hyper_wiring import HyperWiring
from mudd_interp.precision import wide

ROUNDING = 64
"""How many times the precision's smallest step a sum of one T may be off."""


@torch.no_grad()
def check_sums(model: HookedCore) -> tuple[str, ...]:
    """Run a model on an example and see whether the sums that its mixing keeps stay put.

    Returns:
        What was found, in words; nothing where no sum is kept.

    Raises:
        ValueError: If one drifted, with how far.
    """
    wiring = model.wiring
    if not isinstance(wiring, HyperWiring):
        return ()
    example = model.front.example().to(model.cfg.device)
    names = {name for read in wiring.reads for name in wiring.needs(read)}
    _, tape = model.run_with_cache(example, names_filter=names.__contains__, return_type=None)
    drifts = wiring.conserved(tape)
    step = torch.finfo(wide(tape[axes.EMBED]).dtype).eps
    for what, drift in drifts.items():
        sublayers = 1 if " of T " in what else 2 * model.cfg.n_layers
        allowed = (ROUNDING * step + wiring.slack) * sublayers
        if not drift <= allowed:
            raise ValueError(
                f"in {model.info.name} {what} only to {drift:.2g}, and it should to "
                f"{allowed:.1g}: its weights are of another variant than config.json says (T the "
                "other way round, or not bounded as it should be)."
            )
    return tuple(f"hyper-connections: {what} (to {drift:.1g})" for what, drift in drifts.items())
