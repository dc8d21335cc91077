"""Files of a folder: each read once, linked ones too, and what is left out is named."""

import os
from pathlib import Path

import pytest

from mudd_interp.documents import TextFiles, decoded, read_pieces, read_text, text_files_of


def written(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def names(found: TextFiles, root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in found.files]


def left_out(found: TextFiles, root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): why for path, why in found.left_out.items()}


def test_linked_folders_and_files_are_read(tmp_path: Path):
    outside = written(tmp_path / "outside", "x.txt", "deep/y.txt", "z.txt")
    root = written(tmp_path / "texts", "a.txt")
    (root / "more").symlink_to(outside / "deep")
    (root / "z.txt").symlink_to(outside / "z.txt")
    found = text_files_of(root)
    assert names(found, root) == ["a.txt", "more/y.txt", "z.txt"]
    assert not found.left_out


def test_links_that_lead_back_end_and_are_said(tmp_path: Path):
    root = written(tmp_path / "texts", "a.txt", "in/b.txt", "in/deep/c.txt")
    (root / "in" / "self").symlink_to(root)
    (root / "in" / "deep" / "up").symlink_to(root / "in")
    (root / "parent").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "in" / "deep")
    (root / "ring").symlink_to(root / "ring")
    other = written(tmp_path / "other", "d.txt")
    (other / "back").symlink_to(root)
    (root / "other").symlink_to(other)
    (root / "twice").symlink_to(other)
    found = text_files_of(root)
    assert names(found, root) == ["a.txt", "in/b.txt", "in/deep/c.txt", "other/d.txt"]
    already = "read already by another path"
    assert left_out(found, root) == {
        "again": already,
        "in/deep/up": already,
        "in/self": already,
        "other/back": already,
        "parent": already,
        "ring": "leading nowhere",
        "twice": already,
    }


def test_a_file_goes_before_links_to_it(tmp_path: Path):
    root = written(tmp_path, "b.txt")
    (root / "a.txt").symlink_to(root / "b.txt")
    found = text_files_of(root)
    assert names(found, root) == ["b.txt"]
    assert left_out(found, root) == {"a.txt": "read already by another path"}


def test_what_is_left_out_is_said(tmp_path: Path):
    root = written(tmp_path, "a.txt", ".git/config", ".hidden.txt", "in/.DS_Store")
    (root / "empty.txt").touch()
    (root / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    (root / "gone.txt").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe")
    found = text_files_of(root)
    assert names(found, root) == ["a.txt"]
    assert left_out(found, root) == {
        ".git": "hidden",
        ".hidden.txt": "hidden",
        "in/.DS_Store": "hidden",
        "empty.txt": "empty",
        "mark.txt": "empty",
        "gone.txt": "leading nowhere",
        "pipe": "not a file",
    }
    words = "2 empty, 3 hidden, 1 leading nowhere, 1 not a file"
    assert found.left_out_in_words() == words


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*", ["a.py", "b.txt", "in/c.py", "in/deep/d.py"]),
        ("**/*.py", ["a.py", "in/c.py", "in/deep/d.py"]),
        ("*.py", ["a.py"]),
        ("in/*", ["in/c.py"]),
        ("in/**/*.py", ["in/c.py", "in/deep/d.py"]),
        ("*/*/d.*", ["in/deep/d.py"]),
        (".venv/*.py", [".venv/e.py"]),
    ],
)
def test_patterns_are_those_of_glob(tmp_path: Path, pattern: str, expected: list[str]):
    root = written(tmp_path, "a.py", "b.txt", "in/c.py", "in/deep/d.py", ".venv/e.py")
    found = text_files_of(root, pattern)
    assert names(found, root) == expected
    assert expected == sorted(
        str(path.relative_to(root))
        for path in root.glob(pattern)
        if path.is_file() and (".venv" in pattern or ".venv" not in path.parts)
    )
    assert left_out(found, root) == ({".venv": "hidden"} if pattern[:2] in ("**", "*/") else {})


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = written(tmp_path, "a.txt", "locked/b.txt")
    listed = Path.iterdir

    def iterdir(folder: Path):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(ValueError, match=r"cannot read the folder .*locked \(Permission denied\)"):
        text_files_of(root)


@pytest.mark.parametrize("text", ["a\r\nb\rc\n", "ab\ufeffc", "é漢😀" * 40_000, ""])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_reads_as_it_stands_without_its_mark(tmp_path: Path, text: str, mark: bytes):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + text.encode())
    assert read_text(path) == text
    assert max(map(len, read_pieces(path)), default=0) <= 2**16


@pytest.mark.parametrize("at", [0, 5, 2**16 - 1, 2**16, 2**16 + 3])
def test_bad_bytes_are_named_by_their_place_in_the_file(tmp_path: Path, at: int):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * at + b"\xe9\xe9")
    with pytest.raises(ValueError, match=rf"a\.txt is not UTF-8 text \(byte {at}\): convert it"):
        read_text(path)
    path.write_bytes(b"x" * at + b"\0")
    with pytest.raises(ValueError, match=rf"holds NUL characters \(the first at {at}\)"):
        read_text(path)


def test_a_character_that_is_cut_off_is_named(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("ab漢".encode()[:-1])
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 2\)"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused(encoding: str):
    with pytest.raises(ValueError, match="UTF-16"):
        "".join(decoded(["hello".encode(encoding)], "a.txt"))
