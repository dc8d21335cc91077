"""``load_model``: a name, a folder or a hub id -> a model, checked."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from mudd_interp.checkpoints.assemble import assemble
from mudd_interp.checkpoints.backed import load_backed
from mudd_interp.checkpoints.bridged import load_bridged
from mudd_interp.checkpoints.checks import check_runs
from mudd_interp.checkpoints.configs import config_of, read_config
from mudd_interp.checkpoints.digest import model_digest
from mudd_interp.checkpoints.layout import Layout
from mudd_interp.checkpoints.layouts import LAYOUTS
from mudd_interp.checkpoints.names import BUNDLED, Location, complete, locate
from mudd_interp.checkpoints.sums import check_sums
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.checkpoints.weight_files import open_weights
from mudd_interp.model import FamilyModel, HookedMUDDTransformer, HookedViT
from mudd_interp.model.backed import KINDS
from mudd_interp.model.language import LanguageModel
from mudd_interp.precision import float_dtype
from mudd_interp.protocol import NOT_TRIED, ModelInfo


def load_model(
    name_or_path: str | os.PathLike[str],
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    check: bool = True,
) -> LanguageModel | HookedViT:
    """Load a model with its tokenizer, and check it. Code that comes with a model is never run.

    Args:
        name_or_path: ``"mudd-tiny"`` or ``"tfm-tiny"``, the bundled pair, or ``"mudd-vit-tiny"``
            or ``"vit-tiny"``, that of images; a folder, in the released MUDD layout, from
            :func:`save_model`, of a DenseFormer, of mHC-lite's code, of nanochat, of Qwen3 with
            attention residuals, of transformers' ViT or DeiT, of its DeepSeek-V4, Hy4 or Gemma 3n
            (text), or of any Transformer that TransformerBridge takes; a released model's short
            name (``"MUDDPythia-1.4B"``); a Pythia name (``"pythia-160m"``); or a hub id. A folder
            takes precedence over a hub id of the same name.
        device: Where to put the weights; ``None`` means torch's default device.
        dtype: Their precision, e.g. ``torch.float32`` or ``"bfloat16"``; ``None`` means that of
            the checkpoint, but float32 for bundled and bridged models.
        revision: A branch, tag or commit of a hub repository; what is on this machine has none.
        local_files_only: Use what the hub's cache holds, and no network.
        check: Also run the model on a few tokens: attention rows sum to one, and editing a hooked
            tensor changes the logits. Names, shapes and values are checked in any case. A bridged
            model that is not tried keeps hooks whose edits may be lost, and knows no residual
            directions.

    Returns:
        The model, in evaluation mode: a language model, or a ``HookedViT``. ``model.info`` says
        where it is from, with the digest of its configuration and weights, and what was checked.

    Raises:
        ValueError: If there is no such model, it cannot be had, a check fails, or a revision is
            given for something that has none.
    """
    device, dtype = _device(device), float_dtype(dtype)
    location = locate(os.fspath(name_or_path), revision, local_files_only)
    config = read_config(location.folder)
    layout = LAYOUTS.get(config["model_type"])
    other = load_backed if config["model_type"] in KINDS else load_bridged
    load = other if layout is None else partial(_load, layout)
    return load(location, config, device, dtype, local_files_only, check)


def _load(
    layout: Layout,
    location: Location,
    config: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
    local_files_only: bool,
    check: bool,
) -> FamilyModel:
    opened = cache(lambda: open_weights(complete(location, local_files_only)))
    cfg = config_of(config, location.folder / "config.json", lambda: opened().entries)
    if location.name in BUNDLED and dtype is None:
        dtype = torch.float32
    weights = opened()
    with ThreadPoolExecutor(1) as beside:  # hashing takes as long as reading
        digest = beside.submit(model_digest, layout.identity(config, cfg), weights)
        model = assemble(cfg, weights, layout, device, dtype)
    if isinstance(model, HookedMUDDTransformer):
        model.tokenizer = load_tokenizer(location.tokenizer)
    model.info = ModelInfo(location.name, location.revision, digest.result())
    tried = (*check_runs(model), *check_sums(model)) if check else (NOT_TRIED,)
    checks = (*_found(model), *tried)
    model.info = replace(model.info, checks=checks)
    return model


def _found(model: FamilyModel) -> tuple[str, ...]:
    parameters = list(model.parameters())
    numbers = sum(parameter.numel() for parameter in parameters)
    return (
        f"parameters: all {len(parameters)} found and used ({numbers:,} numbers)",
        "shapes: as config.json says",
        "values: no NaN, no infinity",
    )


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.get_default_device()
    try:
        number = torch.zeros(1, device=device)
        number.item()  # the device "meta" holds no numbers
        return number.device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}): give "
            "'cpu', or one that this machine and this torch have."
        ) from error
