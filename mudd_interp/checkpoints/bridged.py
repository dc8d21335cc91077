"""A bridged model: the Hugging Face model and tokenizer that a folder holds, behind our names."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from mudd_interp.checkpoints.digest import model_digest
from mudd_interp.checkpoints.marks import refuse_marks
from mudd_interp.checkpoints.names import Location, complete
from mudd_interp.checkpoints.unknown import unknown_type
from mudd_interp.checkpoints.weight_files import Weights, open_weights
from mudd_interp.model.bridge import BridgeModel, build_bridge
from mudd_interp.protocol import ModelInfo

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_bridged(
    location: Location,
    config: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
    local_files_only: bool,
    check: bool,
) -> BridgeModel:
    """A Transformer as a bridged model, from a folder as ``save_pretrained`` writes it.

    Args:
        location: Where it is.
        config: What its ``config.json`` says.
        device: Where to put the weights.
        dtype: Their precision; ``None`` means float32.
        local_files_only: Use what was downloaded before, and no network.
        check: Run the model on a few tokens, to find the hooks that are live and exact. Otherwise
            hooks whose edits may be lost stay, and no residual directions are known.

    Raises:
        ValueError: If the weights cannot be had, it needs code of its own, lacks or has unknown
            parameters, holds NaN, or is not a plain decoder-only Transformer.
    """
    _refuse_code(location.folder, config)
    folder, weights = opened(location, local_files_only)
    module = load_module(folder, dtype or torch.float32)
    tokenizer = load_auto_tokenizer(folder, module.config)
    module.to(device)
    checks = ("all parameters found and used, none with NaN",)
    info = ModelInfo(location.name, location.revision, model_digest(config, weights), checks)
    return BridgeModel(build_bridge(module, tokenizer, info.name), tokenizer, info, check)


def opened(location: Location, local_files_only: bool) -> tuple[Path, Weights]:
    """A folder of transformers' with all that belongs to it, and its weights, not read yet.

    Raises:
        ValueError: If something cannot be had or is damaged, or a file is a pickle or outside.
    """
    folder = complete(location, local_files_only)
    refuse_marks(folder)
    return folder, open_weights(folder)


def load_module(folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """The Hugging Face model in a folder, complete, with eager attention.

    Args:
        folder: Where it is.
        dtype: The precision of its weights.
        **options: For transformers.

    Raises:
        ValueError: If it cannot be read, its parameters do not fit its configuration, or one of
            them holds NaN.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    unreadable = (OSError, ValueError, TypeError, RuntimeError, SafetensorError, UnpicklingError)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with _silent():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation="eager",
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # these are refused below, by name
                weights_only=True,
                **options,
            )
    except (*unreadable, StrictDataclassError) as error:
        raise ValueError(f"the model in {folder} cannot be read: {error}") from error
    module, loading = loaded
    _check_parameters(folder, module, loading)
    return module


@contextmanager
def _silent() -> Generator[None]:
    """Without transformers' bar and report: what is wrong is said once, by us."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _refuse_code(folder: Path, config: dict[str, Any]) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        raise ValueError(unknown_type(folder, config, CONFIG_MAPPING))


def _check_parameters(folder: Path, module: Any, loading: Any) -> None:
    together = f"{folder / 'config.json'} and the weights beside it do not belong together"
    for key, fault in (("missing_keys", "is missing"), ("unexpected_keys", "is not expected")):
        if loading[key]:
            name, *others = sorted(loading[key])
            more = f" (and {len(others)} more)" if others else ""
            raise ValueError(f"parameter `{name}` {fault}{more}: {together}.")
    for name, found, expected in loading["mismatched_keys"]:
        raise ValueError(
            f"parameter `{name}` has shape {list(found)}, expected {list(expected)}: {together}."
        )
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(
                f"parameter `{name}` in {folder} holds NaN or infinity: download or copy the "
                "weights again."
            )


def load_auto_tokenizer(folder: Path, config: Any) -> Any:
    """The tokenizer in a folder, of any kind that transformers knows, or ``None`` if there is none.

    Raises:
        ValueError: If it cannot be read, or needs code of its own.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ValueError(
            f"the tokenizer in {folder} cannot be read ({error}): remove its files to work on "
            "token ids."
        ) from error
