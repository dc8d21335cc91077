"""Text files: which of them a folder holds, and their text in pieces. Standard library only."""

import codecs
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePath

BYTE_ORDER_MARK = "\ufeff"
"""What some programs put before a text. At the start of a document it is dropped."""

READ_ALREADY = "read already by another path"

_READ_AT_ONCE = 2**16  # bytes


@dataclass(frozen=True)
class TextFiles:
    """The files of a folder.

    Attributes:
        files: Those that are read, in the order of their paths.
        left_out: What is not read: the reason, by path.
    """

    files: tuple[Path, ...]
    left_out: dict[Path, str]

    def left_out_in_words(self) -> str:
        """How much is left out for which reason: ``2 empty, 1 hidden``; empty if nothing is."""
        counts = Counter(self.left_out.values())
        return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


def text_files_of(root: Path, pattern: str = "**/*") -> TextFiles:
    """The files of a folder that match a pattern, each once; those of linked folders too.

    Of what matches, these are left out: hidden files and folders (the name begins with a dot),
    unless a part of the pattern begins with a dot too; empty files; links that lead
    nowhere, and links to what is read anyway, so that folders that link to one another are read
    once; and whatever is not a file, such as a pipe.

    Args:
        root: Where to look.
        pattern: Which files, as in ``Path.glob``: ``"**/*.py"`` for Python sources.

    Raises:
        ValueError: If a folder cannot be read.
    """
    parts = PurePath(pattern).parts
    top, found, left_out = _real(root), dict[Path, tuple[bool, Path]](), dict[Path, str]()
    folders, seen = [root], {top}
    for folder in folders:  # grows during the loop
        for path in _entries(folder):
            inner, real, is_folder = path.relative_to(root).parts, _real(path), path.is_dir()
            if not (_leads_on(inner, parts) if is_folder else _fits(inner, parts)):
                continue
            linked = real != top / Path(*inner)
            if path.name.startswith(".") and not any(part.startswith(".") for part in parts):
                left_out[path] = "hidden"
            elif not is_folder:
                found[path] = linked, real
            elif real in seen or (linked and _overlap(real, top)):
                left_out[path] = READ_ALREADY
            else:
                folders.append(path)
                seen.add(real)
    files = _readable(found, left_out)
    return TextFiles(tuple(sorted(files)), dict(sorted(left_out.items())))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(
            f"cannot read the folder {folder} ({error.strerror}): make it readable, or move it."
        ) from error


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _fits(inner: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path below the root matches; ``**`` stands for any number of folders."""
    if not pattern:
        return not inner
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(_fits(inner[skipped:], rest) for skipped in range(len(inner) + 1))
    return bool(inner) and fnmatchcase(inner[0], first) and _fits(inner[1:], rest)


def _leads_on(inner: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file below a folder could match."""
    for name, part in zip(inner, pattern, strict=False):
        if part == "**":
            return True
        if not fnmatchcase(name, part):
            return False
    return len(inner) < len(pattern)


def _readable(found: dict[Path, tuple[bool, Path]], left_out: dict[Path, str]) -> list[Path]:
    """The files that can be read, each once; a file itself comes before links to it."""
    files, seen = list[Path](), set[Path]()
    for (_, real), path in sorted((how, path) for path, how in found.items()):
        if reason := _why_not(path, real, seen):
            left_out[path] = reason
        else:
            seen.add(real)
            files.append(path)
    return files


def _why_not(path: Path, real: Path, seen: Collection[Path]) -> str | None:
    if not path.is_file():
        return "leading nowhere" if path.is_symlink() else "not a file"
    if real in seen:
        return READ_ALREADY
    mark = codecs.BOM_UTF8
    is_empty = path.stat().st_size <= len(mark) and path.read_bytes() in (b"", mark)
    return "empty" if is_empty else None


def read_pieces(path: Path) -> Iterator[str]:
    """The text of a file in pieces, its line ends as they stand.

    Raises:
        ValueError: While reading, if the file cannot be read; and as :func:`decoded` does.
    """
    try:
        with path.open("rb") as file:
            yield from decoded(iter(lambda: file.read(_READ_AT_ONCE), b""), str(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}.") from error


def read_text(path: Path) -> str:
    """The whole text of a file; it raises what :func:`read_pieces` raises."""
    return "".join(read_pieces(path))


def decoded(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """The text of UTF-8 bytes that come in chunks, without a byte order mark at its start.

    Args:
        chunks: The bytes; none of the chunks is empty.
        name: What they are, for the message.

    Raises:
        ValueError: While reading, if they are not UTF-8, or hold a NUL character, as binary files
            do, and as UTF-16 does when read as UTF-8.
    """
    decoder, n_bytes, n_characters = codecs.getincrementaldecoder("utf-8")(), 0, 0
    for chunk in chain(chunks, [b""]):
        begun = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at = n_bytes - len(begun) + error.start
            raise ValueError(
                f"{name} is not UTF-8 text (byte {at}{_looks_like(chunk, at)}): convert it, or "
                "leave it out."
            ) from error
        if "\0" in text:
            raise ValueError(
                f"{name} holds NUL characters (the first at {n_characters + text.index(chr(0))}), "
                "so it is not plain text (or it is UTF-16): give UTF-8 text, or leave it out."
            )
        yield text if n_characters else text.removeprefix(BYTE_ORDER_MARK)
        n_bytes, n_characters = n_bytes + len(chunk), n_characters + len(text)


def _looks_like(chunk: bytes, at: int) -> str:
    is_utf16 = at == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "; it looks like UTF-16" if is_utf16 else ""
