"""How the cost of a forward pass grows with the length of the text and the depth of the model."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from mudd_interp.bench.child import FREED_AT_ONCE, in_child
from mudd_interp.bench.measure import interleaved
from mudd_interp.bench.options import Options
from mudd_interp.bench.sizes import Size, growing, random_tokens

AXES = ("tokens", "layers")
MODELS = ("MUDDPythia", "plain twin")


@torch.no_grad()
def growth(options: Options) -> pd.DataFrame:
    """Time and peak memory of a forward pass, batch 1, by tokens and by layers.

    Returns:
        Columns ``axis`` (what varies), ``tokens``, ``layers``, ``model``, ``seconds`` (median) and
        ``MB``, the peak above the model's own memory.
    """
    points: list[dict[str, Any]] = []
    for axis, size in _sizes(options.size):
        models = {name: growing(name, size, options.device, options.dtype) for name in MODELS}
        tokens = random_tokens(size, size.tokens, options.device)
        calls = {name: partial(model, tokens) for name, model in models.items()}
        seconds = interleaved(min(3, options.repeats), options.device, calls)
        del models, calls
        place = {"device": str(options.device), "dtype": options.dtype_name}
        shape = {"layers": size.n_layers, "tokens": size.tokens}
        for name in MODELS:
            memory = in_child(
                "forward", FREED_AT_ONCE, size=options.size_name, model=name, **shape, **place
            )
            points.append(
                {"axis": axis, **shape, "model": name}
                | {"seconds": float(np.median(seconds[name])), "MB": memory["peak"]}
            )
    return pd.DataFrame(points)


def exponents(points: pd.DataFrame) -> pd.DataFrame:
    """The slopes of straight lines through log cost against log size.

    Returns:
        Columns ``axis``, ``model``, ``cost`` (``seconds`` or ``MB``) and ``exponent``.
    """
    rows: list[dict[str, Any]] = []
    for axis, model in points[["axis", "model"]].drop_duplicates().itertuples(index=False):
        group = points[(points["axis"] == axis) & (points["model"] == model)]
        for cost in ("seconds", "MB"):
            slope = np.polyfit(np.log(group[axis]), np.log(group[cost]), 1)[0]
            rows.append({"axis": axis, "model": model, "cost": cost, "exponent": float(slope)})
    return pd.DataFrame(rows)


def _sizes(size: Size) -> list[tuple[str, Size]]:
    by_tokens = [("tokens", replace(size, tokens=tokens)) for tokens in size.growth_tokens]
    by_layers = [("layers", replace(size, n_layers=layers)) for layers in size.growth_layers]
    return [*by_tokens, *by_layers]
