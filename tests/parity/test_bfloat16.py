"""How far the bundled models in bfloat16 are from themselves in float32.

``python -m tests.parity.test_bfloat16`` prints what is measured here.
"""

from functools import cache
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

import mudd_interp as mi
from mudd_interp.training.presets import GROUPS

SEQUENCES = 8
FIGURES = ("layer_similarity", "dense_weights", "head_activity")

TOLERANCES = {
    "loss": 0.001,
    "KL": 0.0005,
    "cosine": 0.002,
    "weight": 0.05,
    "activity": 0.02,
}
"""Loss and mean KL in nats, mean cosine, mean weight, and the share of tokens at which a head is
active: the largest difference from float32."""

COLUMNS = {"cosine": "cosine", "weight": "mean", "activity": "active"}
"""Of the three figures' tables."""


@cache
def measured(name: str) -> dict[str, float]:
    """What differs, by quantity."""
    batches = list(mi.data.bundled_batches(n_sequences=SEQUENCES))
    models: list[Any] = [mi.load_model(name, dtype=dtype) for dtype in ("float32", "bfloat16")]
    with torch.no_grad():
        logits = [torch.cat([model(batch) for batch in batches]).float() for model in models]
    exact, half = (each.log_softmax(-1) for each in logits)
    losses = [models[0].loss_fn(each, torch.cat(batches)).item() for each in logits]
    found = {
        "loss": abs(losses[0] - losses[1]),
        "KL": (exact.exp() * (exact - half)).sum(-1).mean().item(),
    }
    swept = [mi.analysis.sweep(model, batches, FIGURES) for model in models]
    for (quantity, column), of, other in zip(COLUMNS.items(), *swept, strict=True):
        found[quantity] = float((of.frame[column] - other.frame[column]).abs().max())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("quantity", TOLERANCES)
@pytest.mark.parametrize("name", GROUPS["tiny-pair"])
def test_is_near_float32(name: str, quantity: str):
    assert measured(name)[quantity] <= TOLERANCES[quantity]
    assert measured(name)["KL"] > 0  # two precisions were compared


def main() -> None:
    """Print the table."""
    table = Table("bfloat16 against float32", *TOLERANCES)
    for name in GROUPS["tiny-pair"]:
        table.add_row(name, *(f"{measured(name)[quantity]:.1e}" for quantity in TOLERANCES))
    table.add_row("at most", *(f"{each:.1e}" for each in TOLERANCES.values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
