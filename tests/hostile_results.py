"""Every kind of result, each with a valid file to start from, and forged ones."""

import json
import random
from collections.abc import Mapping
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from mudd_interp.analysis import Result
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.axes import STREAMS

SIZES = {
    "offset_row": 3,
    "offset_column": 3,
    **{"stream": 4, "layer": 3, "layer_plus_1": 4, "layer_minus_1": 2, "source": 4, "head": 2},
    **{"bin": 4, "component": 6},
    "context": 2,
}
"""Lengths of axes, as for a model of three blocks; all others have length two."""

OPTIONS: dict[str, dict[str, Any]] = {
    "HeadActivity": {"sink_token_ids": [1, 2], "sink_texts": None, "first_positions": 2},
    "SinkSensitivity": {"sink_token_ids": [1, 2], "sink_texts": ["a", "b"], "most_positions": 1},
    "WeightDistribution": {"limit": 3.0, "bins": 2},
    "LossComparison": {"top": 1},
    "HeadInputs": {"layer": 1, "head": 0},
    "InContextLoss": {"late": 1, "reach": 0},
    "AblationSweep": {"edits": ["cut v 1<-0", "cut mlp 1"]},
    "EdgeAttribution": {"edits": ["cut v 1<-0", "cut q 1<-1"]},
    "DeltaWeights": {"reads": ["attn.0", "final"], "writes": ["embed", "attn.0"]},
    "StreamMixing": {"sublayers": ["attn.0", "mlp.0"]},
    "EdgePatch": {
        "edges": ["cut v 1<-0", "cut q 1<-1"],
        "aggregates": ["cut v 1<-*", "cut q 1<-*"],
    },
}
KINDS = {name: kind for name, kind in Result.kinds.items() if kind.__module__.startswith("mudd")}


def sample(name: str, source: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a valid result of one kind."""
    kind = KINDS[name]
    sizes = {**SIZES, **kind.lengths}
    options = OPTIONS.get(name, {})
    if name == "LossComparison":
        own = ("model", "revision", "digest", "dtype")
        options = options | {"baseline": {each: source[each] for each in own}}
    arrays = {
        each.name: _array(each.type, sizes)
        for each in fields(kind)
        if each.name not in ("provenance", "streams")
    }
    if name == "LossComparison":
        arrays |= {"ranked": np.array([[0, 0, 1], [1, 0, 1]])}
    header = {
        "result": name,
        "streams": list(STREAMS),
        "provenance": {**source, "options": options},
    }
    return header, arrays


def _array(annotation: Any, sizes: Mapping[str, int]) -> np.ndarray:
    shape = [int(a) if a.isdigit() else sizes.get(a, 2) for a in annotation.dim_str.split()]
    return np.ones(shape, annotation.dtypes[0])


def write(name: str, source: Provenance, path: Path) -> None:
    """A file of a kind, as version 0.1 wrote it: without a digest, so that a forger needs none."""
    header, arrays = sample(name, source.to_dict())
    path.write_bytes(save(arrays, {"mudd_interp": json.dumps(header)}))


def use(path: Path) -> object:
    """Everything that is done with a result that was read."""
    found: Any = Result.load(path)
    found.frame  # noqa: B018 (made anew each time)
    found.save(path.with_suffix(".again"))
    assert type(Result.load(path.with_suffix(".again"))) is type(found)
    return getattr(found, "summary", None)


def with_other_arrays(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with one array of another shape, precision or numbers."""
    size = int.from_bytes(data[:8], "little")
    meta = json.loads(data[8 : 8 + size]).get("__metadata__")
    arrays = {name: array.copy() for name, array in load(data).items()}
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    match rng.randrange(6):
        case 0:
            arrays[name] = array[: rng.randrange(len(array) + 1)]
        case 1:
            arrays[name] = np.concatenate([array, array])
        case 2:
            arrays[name] = np.zeros([rng.choice([0, 1, 2, 5]) for _ in array.shape], array.dtype)
        case 3:
            array.flat[rng.randrange(prod(array.shape))] = rng.choice(_numbers(array.dtype))
        case 4:
            arrays[name] = array.astype(rng.choice([np.float32, np.int64, np.float64, np.uint8]))
        case _:
            del arrays[name]
    return save(arrays, meta)


def _numbers(dtype: np.dtype) -> list[float]:
    """What an array of a precision can hold that has no meaning."""
    if dtype.kind == "f":
        return [np.nan, np.inf, float(np.finfo(dtype).min), 0]
    return [0, -1, int(np.iinfo(dtype).max)]
