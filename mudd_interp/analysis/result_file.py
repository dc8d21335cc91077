"""What a file says about a result: read, and checked against the class before one is made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, jaxtyped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mudd_interp.axes import STREAMS, Stream
from mudd_interp.files import LARGEST, parse_json
from mudd_interp.schema import validated

_HEADER = "mudd_interp"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about its arrays.

    Attributes:
        result: The class of the result.
        streams: The model's streams, in q k v r order.
        provenance: As :meth:`Provenance.to_dict` has it.
        sha256: See :func:`_digest`; ``None`` in files of version 0.1.
    """

    result: str
    streams: tuple[Stream, ...]
    provenance: dict[str, Any]
    sha256: str | None = None


def file_bytes(
    result: str,
    streams: tuple[Stream, ...],
    provenance: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> bytes:
    """A safetensors file of a result, whose header has a digest over all of it."""
    header = {"result": result, "streams": list(streams), "provenance": dict(provenance)}
    # safetensors writes an array as it lies in memory, whatever the order of its axes there.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header["sha256"] = _digest(header, arrays)
    return save(arrays, metadata={_HEADER: json.dumps(header)})


def _digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over the rest of the header, and each array's name, dtype, shape and numbers."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.data)
    return digest.hexdigest()


def read(path: Path) -> tuple[Header, dict[str, np.ndarray]]:
    """The header and the arrays of a file, verified as far as the file itself allows.

    Raises:
        ValueError: If it is missing, damaged, has no header of ours, or is not what was written.
    """
    if not path.is_file():
        raise ValueError(f"no result at {path}: check the path.")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_HEADER)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        # The latter two for a precision that NumPy does not have.
        raise ValueError(f"{path} is damaged or not a saved result: {error}.") from error
    if text is None:
        raise ValueError(f"{path} is not a saved result: expected a file that Result.save wrote.")
    values = parse_json(text, f"the header of {path}")
    header: Header = validated(Header, values, f"the header of {path}")
    if list(header.streams) != [stream for stream in STREAMS if stream in header.streams]:
        raise ValueError(
            f"the header of {path} has the streams {header.streams}: expected some of "
            f"{', '.join(STREAMS)}, in this order, each once."
        )
    if not header.streams:
        raise ValueError(f"the header of {path} has no streams: compute and save it again.")
    if header.sha256 is not None:
        values.pop("sha256")
        if _digest(values, arrays) != header.sha256:
            raise ValueError(f"{path} is damaged: its sha256 does not match. Compute it again.")
    return header, arrays


def check_arrays(
    kind: type[Any],
    arrays: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    labels: frozenset[str],
    path: Path,
) -> None:
    """Refuse arrays that are not those of a class.

    Args:
        kind: The class, a dataclass whose array fields are annotated with dtype and axes.
        arrays: What was read.
        sizes: The lengths of axes that are known, by their name.
        labels: Fields that are not arrays.
        path: Where they are from.

    Raises:
        ValueError: With the first array that is missing, unknown, of another dtype or shape, or a
            count below zero.
    """
    expected: dict[str, Any] = {f.name: f.type for f in fields(kind) if f.name not in labels}
    if missing := sorted(expected.keys() - arrays.keys()):
        raise ValueError(f"{path} lacks {missing[0]}: compute and save it again.")
    if extra := sorted(arrays.keys() - expected.keys()):
        raise ValueError(f"{path} has {extra[0]}, which no {kind.__name__} has.")
    with jaxtyped("context"):
        for axis, size in sizes.items():
            if not 1 <= size < LARGEST:
                raise ValueError(f"{path} says that it has {size} of {axis}, as no array has.")
            known: Any = Shaped[np.ndarray, axis]
            assert isinstance(np.broadcast_to(np.False_, size), known)  # takes no memory
        for name, annotation in expected.items():
            array = arrays[name]
            if not isinstance(array, annotation):
                raise ValueError(
                    f"{name} of {path} is {array.dtype} {list(array.shape)}: expected "
                    f"{annotation.dtypes[0]} [{annotation.dim_str}], and axes of one name of one "
                    "length."
                )
            if array.dtype.kind == "i" and array.size and array.min() < 0:
                raise ValueError(f"{name} of {path} holds {array.min()}: a count is 0 or more.")
