"""The tokenizer that comes with a model: ``tokenizer.json``, and what the files beside it name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mudd_interp.axes import END_OF_TEXT
from mudd_interp.files import MOST_BYTES, read_object, write_text
from mudd_interp.panics import is_failure
from mudd_interp.schema import validated

SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
EXTRA = "additional_special_tokens"
SETTINGS = ("model_max_length", "padding_side", "truncation_side", "chat_template")
"""What else is kept from a ``tokenizer_config.json``."""

CHAT_TEMPLATE = "chat_template.jinja"

_CONTAINERS: dict[str, Any] = {
    "added_tokens_decoder": dict[int, str | dict[str, Any]],
    EXTRA: list[Any] | dict[str, Any],
    "extra_special_tokens": list[Any] | dict[str, Any],
}
"""What is searched in the files beside a ``tokenizer.json``."""


def load_tokenizer(path: Path) -> Any:
    """A Hugging Face tokenizer from a ``tokenizer.json``, or ``None`` if there is none.

    Its special tokens are those that the files beside it name (``tokenizer_config.json``, else
    ``special_tokens_map.json``), as far as it knows them; ``added_tokens.json`` adds tokens. Where
    no end-of-text token is named it is ``<|endoftext|>``, and where no beginning-of-text token is
    named, that one. A byte order mark in front of a file is accepted.

    Raises:
        ValueError: If a file cannot be read, or one names a token under another id.
    """
    if not path.is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    tokenizer, named = _read_backend(path), _named(path.parent)
    _add_tokens(tokenizer, named, path.parent)
    given: dict[str, Any] = {name: _content(named.get(name)) for name in SPECIAL}
    given["eos_token"] = given["eos_token"] or END_OF_TEXT
    given["bos_token"] = given["bos_token"] or given["eos_token"]
    known = {name: token for name, token in given.items() if _knows(tokenizer, token)}
    extra = [token for token in _extra(named) if _knows(tokenizer, token)]
    settings = {name: named[name] for name in SETTINGS if named.get(name) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        **known,
        **settings,
        **({EXTRA: extra} if extra else {}),
    )


def _read_backend(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(_read_text(path))
    except BaseException as error:  # a plain Exception, or a panic
        if not is_failure(error):
            raise
        raise ValueError(
            f"{path} is not a tokenizer ({error}): download or copy it again, or remove it and "
            "work on token ids."
        ) from error


def _read_text(path: Path) -> str:
    """The text of a file, which may be as long as a JSON file.

    Raises:
        ValueError: If it is longer, or not UTF-8.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES:,} bytes: get it again.")
    return data.decode("utf-8-sig")


def _named(folder: Path) -> dict[str, Any]:
    """What the files beside a ``tokenizer.json`` say."""
    named: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            # model_max_length is 10^30 where there is none.
            found = read_object(folder / name, largest=None)
            for key, kind in _CONTAINERS.items():
                if found.get(key) is not None:
                    validated(kind, found[key], f"`{key}` of {folder / name}")
            named |= {key: value for key, value in found.items() if value is not None}
    if (folder / CHAT_TEMPLATE).is_file():
        named["chat_template"] = _read_text(folder / CHAT_TEMPLATE)
    return named


def _add_tokens(tokenizer: Any, named: dict[str, Any], folder: Path) -> None:
    """Add the tokens that only ``added_tokens.json`` or ``tokenizer_config.json`` has, by id."""
    from tokenizers import AddedToken

    added: dict[int, Any] = {}
    if (folder / "added_tokens.json").is_file():
        path = folder / "added_tokens.json"
        ids = validated(dict[str, int], read_object(path), str(path))
        added = {i: token for token, i in ids.items()}
    added |= {int(i): token for i, token in named.get("added_tokens_decoder", {}).items()}
    special = {*filter(None, (_content(named.get(name)) for name in SPECIAL)), *_extra(named)}
    new: list[Any] = []
    for _, token in sorted(added.items(), key=lambda item: item[0]):
        content = _content(token) or ""
        if not _knows(tokenizer, content):
            is_special = content in special or (isinstance(token, dict) and token.get("special"))
            new.append(AddedToken(content, special=bool(is_special), normalized=False))
    tokenizer.add_tokens(new)  # in one call: each call rebuilds the search for all of them
    for i, token in sorted(added.items(), key=lambda item: item[0]):
        content = _content(token) or ""
        if tokenizer.token_to_id(content) != i:
            raise ValueError(
                f"the tokenizer files in {folder} do not belong together: {content!r} is id "
                f"{tokenizer.token_to_id(content)} and named as {i}. Get them from the same place."
            )


def _extra(named: dict[str, Any]) -> Iterator[str]:
    """The special tokens without a role, as different versions of transformers wrote them."""
    for name in (EXTRA, "extra_special_tokens"):
        listed = named.get(name, [])
        for token in listed.values() if isinstance(listed, dict) else listed:
            if content := _content(token):
                yield content


def _content(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _knows(tokenizer: Any, token: str | None) -> bool:
    return token is not None and tokenizer.token_to_id(token) is not None


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
    config = {name: getattr(tokenizer, name, None) for name in (*SPECIAL, *SETTINGS)}
    roles = {token for name in SPECIAL if (token := config[name]) is not None}
    config[EXTRA] = [token for token in tokenizer.all_special_tokens if token not in roles]
    kept = {name: value for name, value in config.items() if value}
    write_text(folder / "tokenizer_config.json", json.dumps(kept, indent=2) + "\n")
