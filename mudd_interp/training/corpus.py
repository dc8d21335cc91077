"""The training text: Python sources of packages that are pinned as dependencies anyway.

:func:`build_manifest` chooses the files once; the manifest (with digests) ships with the package.
:func:`read_corpus` reads the files that it names from the running interpreter's site-packages.
"""

import csv
import gzip
import hashlib
import io
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from mudd_interp.files import replacing
from mudd_interp.training.dedup import distinct

Split = Literal["train", "validation"]

MANIFEST = Path(__file__).parent.parent / "bundled" / "corpus.tsv.gz"
PACKAGES = (
    "torch",
    "transformers",
    "sympy",
    "pandas",
    "plotly",
    "numpy",
    "networkx",
    "streamlit",
    "altair",
    "transformer-lens",
    "huggingface_hub",
    "beartype",
    "datasets",
    "narwhals",
    "mpmath",
    "accelerate",
    "rich",
    "fsspec",
    "jaxtyping",
    "pillow",
    "pydantic",
)
SMALLEST, LARGEST = 1_000, 100_000  # bytes
VALIDATION_SHARE = 0.04
_LEFT_OUT_PATH = re.compile(
    r"(^|/)(__config__|_?version|_version_meson|_generated_version|.*_pb2(_grpc)?)\.py$"
    r"|(^|/)(_?vendor|_?vendored|third_party|extern|externals)/"
    r"|^plotly/(graph_objs|validators)/"
    r"|(^|/)tests?/"  # tests are mostly expected values
)
_GENERATED_HEADER = re.compile(
    r"auto-?\s?generated|automatically (generated|written|created)|generated (by|from|with)"
    r"|@generated|do not (edit|modify)|code generat",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SourceFile:
    """One file of the corpus, as the manifest names it.

    Attributes:
        package: The distribution's name, as pip spells it.
        version: Its version, without a local part such as ``+cpu``.
        path: Relative to site-packages, with forward slashes.
        sha256: Digest of the file's bytes, in hexadecimal.
        split: ``"train"`` or ``"validation"``.
    """

    package: str
    version: str
    path: str
    sha256: str
    split: Split


def public_version(dist: Distribution) -> str:
    """A version without its local part: builds for other hardware share the sources."""
    return dist.version.split("+")[0]


def is_handwritten(path: str, text: str) -> bool:
    """Whether a file is real source: not generated, vendored, a test or a table of data."""
    header = "\n".join(text.split("\n", 40)[:40])
    if _LEFT_OUT_PATH.search(path) or _GENERATED_HEADER.search(header):
        return False
    longest = max(len(line) for line in text.split("\n"))
    digits = sum(map(str.isdigit, text)) / len(text)
    letters = sum(map(str.isalpha, text)) / len(text)
    return longest <= 400 and digits <= 0.12 and letters >= 0.35


def candidates(package: str) -> Iterator[tuple[SourceFile, str]]:
    """The hand-written sources of an installed package with their text, sorted by path."""
    dist = distribution(package)
    for entry in sorted(str(file) for file in dist.files or () if file.suffix == ".py"):
        file = Path(str(dist.locate_file(entry)))
        if entry.startswith("..") or not SMALLEST <= file.stat().st_size <= LARGEST:
            continue
        raw = file.read_bytes()
        try:
            text = raw.decode()
        except UnicodeDecodeError:  # a legacy encoding, or a test of one
            continue
        if is_handwritten(entry, text):
            yield _describe(dist, package, entry, raw), text


def _describe(dist: Distribution, package: str, path: str, raw: bytes) -> SourceFile:
    digest = hashlib.sha256(raw).hexdigest()
    return SourceFile(package, public_version(dist), path, digest, split_of(path))


def split_of(path: str) -> Split:
    """The split of a file, by a hash of its path, so that a file never changes sides."""
    fraction = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64
    return "validation" if fraction < VALIDATION_SHARE else "train"


def build_manifest(
    train_bytes: int, validation_bytes: int, packages: Iterable[str] = PACKAGES, seed: int = 0
) -> list[SourceFile]:
    """Choose files of installed packages at random until both byte budgets are spent.

    Args:
        train_bytes: About how many bytes of training text to take.
        validation_bytes: About how many bytes of held-out text to take.
        packages: The packages to take them from.
        seed: Of the choice, and of the order of training.

    Returns:
        The files in training order, the held-out ones last.
    """
    found = [pair for package in packages for pair in candidates(package)]
    random.Random(seed).shuffle(found)
    unique = [found[index] for index in distinct(text for _, text in found)]
    return [
        *_spend(unique, "train", train_bytes),
        *_spend(unique, "validation", validation_bytes),
    ]


def _spend(found: list[tuple[SourceFile, str]], split: Split, budget: int) -> Iterator[SourceFile]:
    for source, text in found:
        if source.split == split and budget > 0:
            budget -= len(text.encode())
            yield source


def write_manifest(path: Path, files: Iterable[SourceFile]) -> None:
    """Write the manifest: gzip without a time stamp, so that equal lists give equal bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(field.name for field in fields(SourceFile))
    writer.writerows(astuple(file) for file in files)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(buffer.getvalue().encode(), mtime=0))


def read_manifest(path: Path = MANIFEST) -> list[SourceFile]:
    """Read what :func:`write_manifest` wrote."""
    text = gzip.decompress(path.read_bytes()).decode()
    return [SourceFile(**row) for row in csv.DictReader(io.StringIO(text), delimiter="\t")]  # pyright: ignore[reportArgumentType]


def read_corpus(files: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, str]]:
    """Each file with its text, after a check of its digest.

    Raises:
        ValueError: If a package or file is missing, or is not the one that the manifest names.
    """
    for source in files:
        raw, installed = _installed_bytes(source)
        if raw is None or hashlib.sha256(raw).hexdigest() != source.sha256:
            raise ValueError(_mismatch(source, installed, missing=raw is None))
        yield source, raw.decode()


def _installed_bytes(source: SourceFile) -> tuple[bytes | None, str | None]:
    try:
        dist = distribution(source.package)
    except PackageNotFoundError:
        return None, None
    file = Path(str(dist.locate_file(source.path)))
    return (file.read_bytes() if file.is_file() else None), dist.version


def _mismatch(source: SourceFile, installed: str | None, *, missing: bool) -> str:
    state = "is missing" if missing else "differs from the corpus manifest"
    found = f"{source.package} {installed} is installed" if installed else "it is not installed"
    return (
        f"corpus file {source.path} {state}: expected it from {source.package} "
        f"{source.version}, {found}; run `pip install {source.package}=={source.version}`"
    )
