"""Where a baseline's files are, and the Hugging Face model and tokenizer that they hold."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from mudd_interp.checkpoints.hub import fetch_small, fetch_weights
from mudd_interp.checkpoints.load import read_config
from mudd_interp.checkpoints.marks import refuse_marks
from mudd_interp.checkpoints.names import locate
from mudd_interp.checkpoints.weight_files import open_weights

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Source:
    """A folder with a model in it, and what it is called.

    Attributes:
        name: As it was asked for.
        folder: Where its files are.
        revision: The commit on the hub, or ``None``.
    """

    name: str
    folder: Path
    revision: str | None = None


def find_source(
    name_or_path: str | os.PathLike[str], revision: str | None, local_files_only: bool
) -> Source:
    """The folder of a model, complete; hub files are downloaded into the hub's cache.

    Raises:
        ValueError: If there is no such model, or it cannot be had.
    """
    place = locate(os.fspath(name_or_path), revision, local_files_only)
    if place.folder is not None and place.repository is None:
        return Source(place.name, place.folder)
    repository = place.repository or place.target
    small = place.folder or fetch_small(repository, revision, local_files_only)
    folder = fetch_weights(repository, small.name, local_files_only)
    return Source(place.name, folder, folder.name)


def load_module(folder: Path, dtype: torch.dtype) -> Any:
    """The Hugging Face model in a folder, complete, with eager attention.

    Raises:
        ValueError: If it needs code of its own, its parameters do not fit its configuration, or
            one of them holds NaN.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    unreadable = (OSError, ValueError, TypeError, RuntimeError, SafetensorError, UnpicklingError)
    _refuse_code(folder)
    refuse_marks(folder)
    open_weights(folder)  # refuses damaged files, pickles and paths out of the folder, by name
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
                ignore_mismatched_sizes=True,  # they are refused below, by name
                weights_only=True,
            )
    except (*unreadable, StrictDataclassError) as error:
        raise ValueError(f"the model in {folder} cannot be read: {error}") from error
    module, loading = loaded
    _check_parameters(folder, module, loading)
    return module


@contextmanager
def _silent() -> Generator[None]:
    """Without the bar and the report of transformers: what is wrong is one message, ours."""
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


def _refuse_code(folder: Path) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = read_config(folder)
    if config["model_type"] in CONFIG_MAPPING:
        return
    if "auto_map" in config:
        raise ValueError(
            f"the model in {folder} needs code that comes with it (auto_map in its config.json), "
            "and mudd-interp never runs such code."
        )
    raise ValueError(
        f"the config.json in {folder} has model_type {config['model_type']!r}, which the installed "
        "transformers does not know."
    )


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


def load_auto_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, of any kind that transformers knows, or ``None`` if there is none.

    Raises:
        ValueError: If it cannot be read, or needs code of its own.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ValueError(
            f"the tokenizer in {folder} cannot be read ({error}): remove its files to work on "
            "token ids."
        ) from error
