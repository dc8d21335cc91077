"""The bundled pair, loaded once by each process: for tests that are not about loading it."""

import hashlib
from typing import Any

import mudd_interp as mi
from mudd_interp.checkpoints.names import BUNDLED

_held: dict[tuple[str, str | None, str | None], tuple[Any, str]] = {}


def load(name: str, device: str | None = None, dtype: str | None = None) -> Any:
    """As ``mudd_interp.load_model``; a test that alters a bundled model restores it."""
    if name not in BUNDLED:
        return mi.load_model(name, device=device, dtype=dtype)
    key = (name, device, dtype)
    if key not in _held:
        model = mi.load_model(name, device=device, dtype=dtype)
        _held[key] = model, _digest(model)
    return _held[key][0]


def _digest(model: Any) -> str:
    parts = (each.detach().cpu().numpy().tobytes() for each in model.parameters())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def require_unaltered() -> None:
    """Check that every model has the weights with which it was loaded, and no hooks."""
    for key, (model, digest) in _held.items():
        assert _digest(model) == digest, f"a test left {key} with other weights"
        assert not model.is_hooked, f"a test left a hook in {key}"
