"""The weights of a checkpoint folder, read tensor by tensor, and never as code.

These are ``model.safetensors``, ``pytorch_model.bin``, or several of either with their index.
"""

import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mudd_interp.files import read_object, sha256, sha256_file

LAYOUTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What the weights may be called, the preferred name first."""

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
MAPPED_BYTES = 2**28


@dataclass(frozen=True)
class Entry:
    """What a file says about one tensor: its shape and the name of its precision."""

    shape: tuple[int, ...]
    dtype: str


@runtime_checkable
class WeightFile(Protocol):
    """One file of tensors."""

    path: Path

    def entries(self) -> dict[str, Entry]:
        """Every tensor of the file."""
        ...

    def tensor(self, name: str) -> Shaped[Tensor, "*shape"]:
        """One tensor, on the CPU; its memory may be the file's."""
        ...


class SafetensorsFile:
    """A safetensors file; it is mapped again for each tensor, so that no page stays in memory."""

    def __init__(self, path: Path):
        self.path = path

    def entries(self) -> dict[str, Entry]:
        """Every tensor of the file, from its header."""
        try:
            with safe_open(self.path, "pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                return {n: Entry(tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
        except SafetensorError as error:
            raise ValueError(
                f"{self.path} ({self.path.stat().st_size} bytes) is not a whole safetensors file "
                f"({error}): it was cut short or is something else; download or copy it again."
            ) from error

    def tensor(self, name: str) -> Shaped[Tensor, "*shape"]:
        """One tensor; its memory is the file's."""
        with safe_open(self.path, "pt") as file:
            return file.get_tensor(name)


class TorchFile:
    """A file written by ``torch.save``, read with ``weights_only=True``: no code in it can run.

    The file is mapped, and mapped again after every 256 MiB, so that memory stays small.
    """

    def __init__(self, path: Path):
        self.path = path
        self._tensors: dict[str, Tensor] | None = None
        self._read_bytes = 0

    def entries(self) -> dict[str, Entry]:
        """Every tensor of the file."""
        names = {dtype: name for name, dtype in FLOATS.items()}
        return {
            name: Entry(tuple(tensor.shape), names.get(tensor.dtype, str(tensor.dtype)))
            for name, tensor in self._load().items()
        }

    def tensor(self, name: str) -> Shaped[Tensor, "*shape"]:
        """One tensor; its memory is the file's."""
        if self._read_bytes > MAPPED_BYTES:
            self._tensors, self._read_bytes = None, 0
        tensor = self._load()[name]
        self._read_bytes += tensor.nbytes
        return tensor

    def _load(self) -> dict[str, Tensor]:
        if self._tensors is None:
            self._tensors = self._tensors_of(self._unpickle())
        return self._tensors

    def _unpickle(self) -> Any:
        with self.path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles that are refused in any case
                return torch.load(self.path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            # The cause in torch's words, without torch's advice on how to run the code.
            reason = str(error.__context__ or "").partition(" Please ")[0].rstrip(".")
            raise ValueError(
                f"{self.path} is refused: it is damaged, or it holds more than tensors, which "
                f"could run code when it is read ({reason}). Nothing in it was run. Get the "
                "weights as safetensors."
            ) from error
        except Exception as error:  # a damaged file can make torch raise any class
            raise ValueError(
                f"{self.path} ({self.path.stat().st_size} bytes) is not a whole torch file "
                f"({str(error).partition(chr(10))[0]}): download or copy it again."
            ) from error

    def _tensors_of(self, loaded: Any) -> dict[str, Tensor]:
        if not isinstance(loaded, dict):
            raise ValueError(
                f"{self.path} holds a {type(loaded).__name__}: expected a dict of tensors by name."
            )
        for name, value in loaded.items():
            plain = isinstance(value, Tensor) and value.layout == torch.strided
            if plain and value.is_meta:
                raise ValueError(
                    f"{self.path} holds {name!r} without its numbers (a meta tensor): get the "
                    "weights again."
                )
            if not isinstance(name, str) or not plain:
                raise ValueError(
                    f"{self.path} holds {name!r}, a {type(value).__name__}: expected tensors by "
                    "name and nothing else (the state dict of a model)."
                )
        return dict(loaded)


class Weights:
    """All tensors of a folder.

    Attributes:
        files: The weight files.
        entries: Shape and precision of every tensor, by its name in the files.
    """

    def __init__(self, files: list[WeightFile], placed: dict[str, str] | None = None):
        self.files = files
        self.entries: dict[str, Entry] = {}
        self._holder: dict[str, WeightFile] = {}
        for file in files:
            entries = file.entries()
            _check_placed(file.path, entries, placed or {})
            for name in entries:
                if (placed or {}).get(name, file.path.name) == file.path.name:
                    self.entries[name], self._holder[name] = entries[name], file

    def tensor(self, name: str) -> Shaped[Tensor, "*shape"]:
        """One tensor, on the CPU; copy it, since its memory may be the file's."""
        return self._holder[name].tensor(name)

    def digest(self) -> str:
        """sha256 of the weight file; of several, sha256 over the lines ``name digest``."""
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda file: sha256_file(file.path), self.files)
        digests = {file.path.name: each for file, each in zip(self.files, found, strict=True)}
        if len(digests) == 1:
            return next(iter(digests.values()))
        return sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode())


def _check_placed(path: Path, entries: dict[str, Entry], placed: dict[str, str]) -> None:
    for name, file in placed.items():
        if file == path.name and name not in entries:
            raise ValueError(
                f"the index says that parameter `{name}` is in {path}, but it is not: index and "
                "files do not belong together; get both again."
            )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights in a layout that is read here."""
    return any((folder / name).is_file() for name in LAYOUTS)


def open_weights(folder: Path) -> Weights:
    """The weights of a folder; headers are read, tensors not yet.

    Raises:
        ValueError: If there are none, or a file is damaged, refused, missing or outside the folder.
    """
    found = next((name for name in LAYOUTS if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"{folder} holds no weights: expected one of {', '.join(LAYOUTS)}.")
    if not found.endswith(".index.json"):
        return Weights([_open(folder / found)])
    placed = _read_index(folder / found)
    suffix = PurePosixPath(found.removesuffix(".index.json")).suffix
    paths = [_shard(folder, file, suffix, found) for file in sorted(set(placed.values()))]
    return Weights([_open(path) for path in paths], placed)


def _open(path: Path) -> WeightFile:
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def _read_index(path: Path) -> dict[str, str]:
    placed = read_object(path).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(v, str) for v in placed.values()):
        raise ValueError(f"{path} has no weight_map of parameter names to file names.")
    if not placed:
        raise ValueError(f"{path} has an empty weight_map: download or copy it again.")
    return placed


def _shard(folder: Path, file: str, suffix: str, index: str) -> Path:
    """The path of a file that an index names; it must be a plain name in the index's folder."""
    path = folder / file
    plain = file == path.name and "\\" not in file and ":" not in file and "\0" not in file
    if not plain or file in (".", "..") or not _inside(folder, path):
        raise ValueError(
            f"{folder / index} names the file {file!r}, which is outside its folder: refused. An "
            "index may name files of its own folder only."
        )
    if path.suffix != suffix:
        raise ValueError(f"{folder / index} names {file!r}: expected {suffix} files only.")
    if not path.is_file():
        raise ValueError(f"{folder / index} names {file!r}, which is missing: download it too.")
    return path


def _inside(folder: Path, path: Path) -> bool:
    """Whether a file is in its folder; files of the hub's cache are links to its ``blobs``."""
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    # Path.resolve raises if links go round in a circle.
    return Path(os.path.realpath(path)).is_relative_to(root)
