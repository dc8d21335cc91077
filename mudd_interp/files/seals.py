"""A JSON object that carries a digest of itself, which shows whether it was changed."""

import json
from collections.abc import Mapping
from typing import Any

from mudd_interp.files.digests import sha256

SEAL = "sha256"
"""The key of the digest, which covers all the others."""


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON-ready object with its digest; :func:`unsealed` checks and removes it."""
    return {**values, SEAL: _digest(values)}


def unsealed(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """An object without its digest; files of version 0.1 have none.

    Args:
        values: What was read.
        what: What it is or where it is from, for the message.

    Raises:
        ValueError: If the digest does not match.
    """
    rest = {name: value for name, value in values.items() if name != SEAL}
    if values.get(SEAL) not in (None, _digest(rest)):
        raise ValueError(f"{what} is damaged: its sha256 does not match.")
    return rest


def _digest(values: Mapping[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode())
