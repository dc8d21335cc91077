"""The tokenizer that comes with a model: one ``tokenizer.json``."""

import json
from pathlib import Path
from typing import Any

from mudd_interp.axes import END_OF_TEXT
from mudd_interp.files import write_text


def load_tokenizer(path: Path) -> Any:
    """A Hugging Face tokenizer from a ``tokenizer.json``, or ``None`` if there is none.

    Its end-of-text token (also the beginning-of-text token) is ``<|endoftext|>`` or, if a
    ``tokenizer_config.json`` beside it names another ``eos_token``, that one.

    Raises:
        ValueError: If the file is not a tokenizer.
    """
    if not path.is_file():
        return None
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no other class
        raise ValueError(
            f"{path} is not a tokenizer ({error}): download or copy it again, or remove it and "
            "work on token ids."
        ) from error
    end = _end_of_text(path.with_name("tokenizer_config.json"))
    known = end if tokenizer.token_to_id(end) is not None else None
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=known,
        bos_token=known,
        clean_up_tokenization_spaces=False,
    )


def _end_of_text(path: Path) -> str:
    try:
        token = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return END_OF_TEXT
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else END_OF_TEXT


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write what :func:`load_tokenizer` reads.

    Raises:
        ValueError: If the tokenizer is not of the fast kind, which has a ``tokenizer.json``.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"cannot save a {type(tokenizer).__name__}: expected a fast Hugging Face tokenizer. "
            "Set model.tokenizer = None, and save the tokenizer by itself."
        )
    write_text(folder / "tokenizer.json", backend.to_str())
    config = {"eos_token": tokenizer.eos_token}
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
