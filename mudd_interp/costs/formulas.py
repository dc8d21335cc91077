"""The paper's formulas for what MUDD costs, and the sums that they approximate.

Each is a ratio to the same base, a Transformer with an FFN of four times its width (section 2.5 and
appendix E): ``12 L D²`` parameters, no embeddings; ``2 L D T (12 D + T)`` FLOPs, where T in
brackets is causal attention, and 2 T without a mask; and the memory of the activations when each
block is computed again in the backward pass, ``B T D (2 L + 34 + 6 N T / D)`` bytes in half
precision. L layers, D width, N heads, T tokens, B sequences.
"""

import math
from dataclasses import dataclass

from mudd_interp.axes import STREAMS
from mudd_interp.config import ModelConfig
from mudd_interp.model.wirings import MUDD, Plain
from mudd_interp.model.wirings.mudd import ONE_WAY


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What dense connections add, as shares of a base: 0.0023 is 0.23 %.

    Attributes:
        parameters: Of the parameters.
        flops: Of the FLOPs of one forward pass.
        memory: Of the memory of the activations, in training.
    """

    parameters: float
    flops: float
    memory: float


NOTHING = Extra(parameters=0.0, flops=0.0, memory=0.0)
UNKNOWN = Extra(parameters=math.nan, flops=math.nan, memory=math.nan)
"""Of a wiring for which the paper has no formula."""


def is_causal(config: ModelConfig) -> bool:
    """Whether a token sees only those before it."""
    return config.attention_dir == "causal"


def by_paper(config: ModelConfig, tokens: int) -> Extra:
    """The closed forms of Table 1, ``η / 6`` and ``η / (3 + ρ / 4)``, and of appendix E.

    ``η = (L + 3) / D`` and ``ρ = T / D``. They leave out the weight MLP's second matrix, which is
    small. The same derivation gives other wirings: a quarter for one way, and for static weights
    the mix alone. :data:`UNKNOWN` for a wiring that is not the paper's.
    """
    mudd = config.wiring
    if not isinstance(mudd, MUDD):
        return NOTHING if isinstance(mudd, Plain) else UNKNOWN
    d_model = config.d_model
    mean = _ways(mudd) * (config.n_layers + 3) / 2  # of K over the aggregations
    if mudd.dynamic:
        parameters, flops = d_model * mean, 4 * d_model * mean
    else:
        parameters, flops = mean, 2 * d_model * mean
    return Extra(
        parameters=parameters / (12 * d_model**2),
        flops=flops / (2 * d_model * _reach(config, tokens)),
        memory=_memory(config, mudd, tokens),
    )


def by_sums(config: ModelConfig, tokens: int) -> Extra:
    """The same without approximation: sums over aggregations i = 1..L with ``K = C (i + 1)``.

    Parameters ``D K + K²`` and FLOPs ``T (4 D K + 2 K²)`` each: the last aggregation has all ways,
    and hidden widths are as wide as the paper says, not rounded. Norms are not counted, nor ``a``
    where there is a weight MLP. The memory is a sum already. :data:`UNKNOWN` as for
    :func:`by_paper`.
    """
    mudd = config.wiring
    if not isinstance(mudd, MUDD):
        return NOTHING if isinstance(mudd, Plain) else UNKNOWN
    d_model = config.d_model
    widths = [_ways(mudd) * (i + 1) for i in range(1, config.n_layers + 1)]
    if mudd.dynamic:
        parameters = sum(d_model * k + k**2 for k in widths)
        flops = sum(4 * d_model * k + 2 * k**2 for k in widths)
    else:
        parameters, flops = sum(widths), sum(2 * d_model * k for k in widths)
    return Extra(
        parameters=parameters / (12 * config.n_layers * d_model**2),
        flops=flops / (2 * config.n_layers * d_model * _reach(config, tokens)),
        memory=_memory(config, mudd, tokens),
    )


def _ways(mudd: MUDD) -> int:
    return 1 if mudd.ways == ONE_WAY else len(mudd.ways)


def _reach(config: ModelConfig, tokens: int) -> int:
    """Twelve times the width, and the tokens: FLOPs of a block in units of ``2 D T``."""
    return 12 * config.d_model + (tokens if is_causal(config) else 2 * tokens)


def _memory(config: ModelConfig, mudd: MUDD, tokens: int) -> float:
    """``(L + 3) / (L + 17 + 3 N T / D)``: one state of each block kept, three streams more."""
    streams = 1
    if mudd.ways != ONE_WAY:
        own = len(mudd.ways)
        streams = own if own == len(STREAMS) else own + 1  # the others read the newest state
    base = config.n_layers + 17 + 3 * config.n_heads * tokens / config.d_model
    return (config.n_layers + streams - 1) / base
