"""What a pass has in common with the equations written out."""

from typing import Any

import torch

from mudd_interp import axes
from mudd_interp.config import ModelConfig


def assert_states_agree(
    cache: Any,
    row: int,
    expected: dict[str, torch.Tensor],
    cfg: ModelConfig,
    tolerance: float,
) -> None:
    """Every state X_j, every stream of every block and the final stream of one input of a batch."""
    names = {f"X.{source}": axes.source_output(source) for source in range(cfg.n_layers + 1)}
    for layer in range(cfg.n_layers):
        for stream in axes.STREAMS:
            names[f"stream.{layer}.{stream}"] = axes.stream_input(layer, stream)
    names["final"] = axes.RESID_FINAL
    for name, hook in names.items():
        torch.testing.assert_close(cache[hook][row], expected[name], rtol=0, atol=tolerance)
