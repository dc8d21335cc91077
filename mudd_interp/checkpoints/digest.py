"""Which model it is: one digest over configuration and weights."""

import json
from collections.abc import Mapping
from typing import Any

from mudd_interp.checkpoints.weight_files import Weights
from mudd_interp.files import sha256


def model_digest(config: Mapping[str, Any], weights: Weights) -> str:
    """sha256 over a configuration and the weight files: two that differ in either are two models.

    Args:
        config: JSON-ready; equal ones give equal digests, whatever the order of their fields.
        weights: Files with other names or bytes are other weights.

    Returns:
        64 hexadecimal digits.
    """
    # 1 == 1.0, but JSON spells them differently.
    values = json.loads(json.dumps(config), parse_int=float)
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return sha256(f"{canonical}\n{weights.digest()}\n".encode())
