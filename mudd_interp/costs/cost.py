"""``mudd_interp.cost``: what the dense connections of a configuration cost."""

import os
from dataclasses import asdict, dataclass
from typing import Any

from mudd_interp.checkpoints.configs import find_config
from mudd_interp.config import ModelConfig, Patches
from mudd_interp.costs.built import Counts, count
from mudd_interp.costs.formulas import UNKNOWN, Extra, by_paper, by_sums, is_causal

MOST_TOKENS = 2**24


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What dense connections add to the plain twin, three ways.

    Attributes:
        tokens: Length of the sequence, T.
        causal: Whether a token sees only those before it.
        paper: By the paper's closed forms: shares of its base; NaN for other wirings.
        exact: By the sums that they approximate: shares of the same base; likewise.
        built: As counted: shares of the plain twin's blocks as built.
        counts: The numbers behind ``built``.
    """

    tokens: int
    causal: bool
    paper: Extra
    exact: Extra
    built: Extra
    counts: Counts

    @property
    def of_model(self) -> float:
        """What the dense connections are of all parameters, embeddings included: 0 to 1."""
        return sum(self.counts.dense.values()) / self.counts.parameters

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: ``parameters`` of the whole model as built, ``tokens``, ``extra``, counts."""
        ways = {"paper": self.paper, "exact": self.exact, "built": self.built}
        extra = {name: None if way is UNKNOWN else asdict(way) for name, way in ways.items()}
        return {
            "parameters": self.counts.parameters,
            "tokens": self.tokens,
            "attention": "causal" if self.causal else "bidirectional",
            "extra": extra,
            "counts": asdict(self.counts),
        }


def cost(config: ModelConfig | str | os.PathLike[str], tokens: int | None = None) -> Cost:
    """What the dense connections of a model cost beside its plain twin (Table 1, appendix E).

    As built, parameters are counted from the modules, FLOPs by torch's counter over one sequence
    through all blocks, and memory is what autograd keeps of that pass in float32, nothing computed
    again. Models are built without their numbers, so that the largest takes seconds.

    Args:
        config: The model: its configuration, or where that is, by the rules of
            :func:`~mudd_interp.checkpoints.configs.find_config`: a preset, a bundled model, a
            folder, a ``config.json`` or a hub id. Weights are not read. Without dense connections
            nothing is added.
        tokens: Length of the sequence, T; ``None`` means its context, or the patches of an image.

    Returns:
        Shares of a base, dimensionless from 0.

    Raises:
        ValueError: If there is no such model, or ``tokens`` is not a whole number from 1 to
            16,777,216, or more than an image has patches.
    """
    config = config if isinstance(config, ModelConfig) else find_config(config)
    tokens = config.n_ctx if tokens is None else tokens
    if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
        raise ValueError(f"tokens must be a whole number from 1 to {MOST_TOKENS:,}, got {tokens}.")
    if isinstance(config.front, Patches) and tokens > config.n_ctx:
        raise ValueError(f"an image has {config.n_ctx} positions: tokens is at most that.")
    paper, exact = by_paper(config, tokens), by_sums(config, tokens)
    counts = count(config, tokens)
    return Cost(
        tokens=tokens,
        causal=is_causal(config),
        paper=paper,
        exact=exact,
        built=Extra(
            parameters=sum(counts.dense.values()) / counts.twin_blocks,
            flops=counts.flops / counts.twin_flops - 1,
            memory=counts.memory / counts.twin_memory - 1,
        ),
        counts=counts,
    )
