"""A depth-routing model of transformers in a folder, behind our names, its variant checked."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mudd_interp.checkpoints.bridged import load_auto_tokenizer, load_module, opened
from mudd_interp.checkpoints.digest import model_digest
from mudd_interp.checkpoints.names import Location
from mudd_interp.checkpoints.sums import check_sums
from mudd_interp.checkpoints.weight_files import Entry
from mudd_interp.model.backed import KINDS, BackedModel, Kind
from mudd_interp.protocol import ModelInfo
from mudd_interp.schema import shown

WIDE = ("F32", "F64")


def load_backed(
    location: Location,
    config: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
    local_files_only: bool,
    check: bool,
) -> BackedModel:
    """A model of :data:`~mudd_interp.model.backed.KINDS`, as ``save_pretrained`` writes it.

    Weights that are asked for in float64 are read in float32 and widened, constants that the code
    keeps in buffers with them.

    Args:
        location: Where it is.
        config: What its ``config.json`` says.
        device: Where to put the weights.
        dtype: Their precision; ``None`` means float32. In half precision transformers leaves the
            parameters of gates in float32.
        local_files_only: Use what was downloaded before, and no network.
        check: Run the model on a few tokens: its hooks, what its gates say of its reads, and what
            its mixing keeps.

    Raises:
        ValueError: If the weights cannot be had, do not fit the configuration, hold NaN, or are of
            another variant.
    """
    kind = KINDS[config["model_type"]]
    _refuse_own_code(location.folder, config)
    folder, weights = opened(location, local_files_only)
    _check_variant(folder, kind, config, weights.entries)
    dtype = dtype or torch.float32
    read_in = torch.float32 if dtype == torch.float64 else dtype
    module = load_module(folder, read_in, experts_implementation="eager")
    tokenizer = load_auto_tokenizer(folder, module.config)
    module.to(device)
    if dtype != read_in:
        module.to(dtype)
    checks = ("all parameters found and used, none with NaN", *_stored(kind, weights.entries))
    info = ModelInfo(location.name, location.revision, model_digest(config, weights), checks)
    model = BackedModel(module, tokenizer, info, check)
    if check:
        model.info = replace(model.info, checks=(*model.info.checks, *check_sums(model)))
    return model


def _refuse_own_code(folder: Path, config: Mapping[str, Any]) -> None:
    """A copy that brings code of its own computes something else than transformers' may."""
    if "auto_map" in config:
        raise ValueError(
            f"the model in {folder} comes with code of its own (auto_map in its config.json), "
            f"which need not compute what transformers' {config['model_type']} does: known copies "
            "mix streams the other way round. mudd-interp never runs such code; if the weights are "
            "for transformers' own, take auto_map out of config.json."
        )


def _check_variant(
    folder: Path, kind: Kind, config: Mapping[str, Any], entries: Mapping[str, Entry]
) -> None:
    """Refuse weights of another number of streams, or of another variant, before they are read."""
    if kind.needed is not None and not any(kind.needed[0] in name for name in entries):
        raise ValueError(f"the weights in {folder} have no {kind.needed[1]}.")
    n, width = config.get(kind.streams), config.get("hidden_size")
    if not isinstance(n, int) or not isinstance(width, int):
        return  # transformers' own defaults, or its own refusal
    for name, entry in entries.items():
        if name.endswith(kind.gates[0]) and entry.shape != kind.shape(n, width):
            raise ValueError(
                f"{kind.streams} is {shown(n)} in {folder / 'config.json'}, with which `{name}` "
                f"has shape {list(kind.shape(n, width))}, but it has {list(entry.shape)}: correct "
                "config.json, or get it and the weights from the same place."
            )


def _stored(kind: Kind, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    """In which precision gates are stored, and computed, where it is half precision."""
    stored = Counter(entry.dtype for name, entry in entries.items() if name.endswith(kind.gates))
    half = [dtype for dtype in stored if dtype not in WIDE]
    if not half:
        return ()
    computed = "float32" if kind.in_float32 else "the precision of the model"
    return (f"gates: stored in {', '.join(half)}, computed in {computed}",)
