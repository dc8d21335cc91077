"""A file is written whole or not at all, and replaces only what it was asked to."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mudd_interp.files import (
    exclusive,
    place_of,
    recover,
    replacing,
    replacing_folder,
    sha256,
    sha256_file,
    staging,
    swap,
    try_folder,
    write_bytes,
    write_text,
)


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    write_bytes(path, b"again")
    assert path.read_bytes() == b"again"
    assert list(path.parent.iterdir()) == [path]


def write_half(path):
    with replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("stopped")


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stopped"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replace", [replacing, replacing_folder])
def test_folders_made_for_what_failed_are_gone_and_others_stay(tmp_path, replace):
    (tmp_path / "old").mkdir()
    with pytest.raises(RuntimeError, match="stopped"), replace(tmp_path / "old" / "new" / "a"):
        raise RuntimeError("stopped")
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_what_cannot_be_made_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    for path in ("file/a", "file/a/b", "a" * 250, "a" * 300 + "/b"):
        with pytest.raises(OSError, match=r"Not a directory|too long"):
            try_folder(tmp_path / path)
    try_folder(tmp_path / "new" / "a")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_digests_are_sha256(tmp_path):
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    write_bytes(tmp_path / "abc", b"abc")
    assert sha256(b"abc") == sha256_file(tmp_path / "abc") == abc


# --- Killed at any moment -------------------------------------------------------------------------

OLD, NEW = {"a": "old", "b": "old"}, {"a": "new", "c": "new"}
WRITER = Path(__file__).parent / "killed_writer.py"


def fill(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.skipif(sys.platform == "win32", reason="without flock what is left is not removed")
@pytest.mark.parametrize("way", ["exchange", "two renames", "in place"])
def test_a_kill_loses_nothing_and_what_it_leaves_is_set_right(way: str, tmp_path: Path):
    seen, deadline = set[str](), 0
    for deadline in range(1, 60):
        (tmp_path / f"{deadline}").mkdir()
        target = fill(tmp_path / f"{deadline}" / "target", OLD)
        code = subprocess.run(
            [sys.executable, WRITER, target, way, str(deadline)], check=False
        ).returncode
        if way == "exchange":  # before anybody repairs it
            assert texts(target) in (OLD, NEW), deadline
        recover(target)
        assert texts(target) in (OLD, NEW), deadline
        assert list(target.parent.iterdir()) == [target], deadline
        seen.add(texts(target)["a"])
        if code == 0:
            break
        assert code == 9
    assert seen == {"old", "new"}
    assert deadline > 5


@pytest.mark.skipif(sys.platform == "win32", reason="without flock what is left is not removed")
def test_the_next_writer_sets_right_what_a_kill_left(tmp_path: Path):
    target = fill(tmp_path / "target", NEW)
    target.rename(old := tmp_path / f".target.{'0' * 32}.old")
    fill(tmp_path / f".target.{'0' * 32}.tmp", {"a": "half"})
    assert texts(old) == NEW
    with (
        pytest.raises(RuntimeError, match="stopped"),
        replacing_folder(target),
    ):
        raise RuntimeError("stopped")
    assert texts(target) == NEW
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_of_another_name_is_no_leftover(tmp_path: Path):
    others = [f".target.{'0' * 32}.tmp.mine", f".targets.{'0' * 32}.tmp", ".target.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    write_text(tmp_path / "target", "new")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "target"}


@pytest.mark.skipif(sys.platform == "win32", reason="there nothing is locked")
def test_what_a_writer_that_lives_has_is_left_alone(tmp_path: Path):
    with replacing_folder(tmp_path / "target") as first:
        (first / "a").write_text("first")
        with replacing_folder(tmp_path / "target") as second:
            (second / "a").write_text("second")
        assert texts(first) == {"a": "first"}
    assert texts(tmp_path / "target") == {"a": "first"}
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


# --- What may be replaced -------------------------------------------------------------------------


def refuse_thesis(folder: Path) -> None:
    if (folder / "thesis").exists():
        raise ValueError("it holds a thesis")


@pytest.mark.parametrize("way", ["exchange", "two renames", "in place"])
def test_what_came_in_meanwhile_is_not_replaced(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = fill(tmp_path / "target", OLD)
    choose(way, target, monkeypatch)
    with (
        pytest.raises(ValueError, match="holds a thesis"),
        replacing_folder(target, refuse_thesis),
    ):
        fill(target, {"thesis": "mine"})
    assert texts(target) == OLD | {"thesis": "mine"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_what_came_in_at_the_last_moment_is_not_replaced(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between the last check of the folder and the step that replaces it."""
    target = fill(tmp_path / "target", OLD)
    choose(way, target, monkeypatch)
    name = "_exchange" if way == "exchange" else "_two_renames"
    last_step = getattr(swap, name)

    def late(new: Path, target: Path, check: swap.Check) -> None:
        (target / "thesis").write_text("mine")
        last_step(new, target, check)

    monkeypatch.setattr(swap, name, late)
    with (
        pytest.raises(ValueError, match="holds a thesis"),
        replacing_folder(target, refuse_thesis) as new,
    ):
        fill(new, NEW)
    assert texts(target) == OLD | {"thesis": "mine"}
    assert list(tmp_path.iterdir()) == [target]


def choose(way: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Path) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if way != "exchange":
        monkeypatch.setattr(swap, "exchange", fails)
    if way == "in place":
        monkeypatch.setattr(staging, "is_pinned", lambda folder: folder == target)


def test_a_folder_that_appears_is_not_replaced(tmp_path: Path):
    with (
        pytest.raises(ValueError, match="holds a thesis"),
        replacing_folder(tmp_path / "target", refuse_thesis),
    ):
        fill(tmp_path / "target", {"thesis": "mine"})
    assert texts(tmp_path / "target") == {"thesis": "mine"}


def test_a_file_where_a_folder_is_meant_and_the_other_way_round(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError), replacing_folder(tmp_path / "file"):
        pass
    with pytest.raises(ValueError, match="is a folder: give the name of a file"):
        write_text(tmp_path, "new")
    with pytest.raises(ValueError, match="is a folder: give the name of a file"):
        write_text(f"{tmp_path}/new/", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


# --- Folders that have to stay --------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES])
def test_a_folder_that_cannot_be_renamed_is_filled(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = fill(tmp_path / "target", OLD)
    before, rename = target.stat().st_ino, Path.rename

    def busy(*paths: Path) -> Any:
        if target in paths:
            raise OSError(code, os.strerror(code))
        return rename(*paths)

    monkeypatch.setattr(Path, "rename", busy)
    monkeypatch.setattr(swap, "exchange", busy)
    with replacing_folder(target) as new:
        fill(new, NEW)
    assert texts(target) == NEW
    assert target.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [target]


def test_the_working_folder_stays_the_one_that_one_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = fill(tmp_path / "target", OLD)
    monkeypatch.chdir(target)
    try_folder(".")
    with replacing_folder(".") as new:
        fill(new, NEW)
    assert texts(Path()) == NEW
    assert list(tmp_path.iterdir()) == [target]


MOUNTED = """
mount -t tmpfs tmpfs "$1" && mount --bind "$2" "$2" && mount --bind "$3" "$3" &&
printf old > "$1/a" && printf old > "$2/a" && exec "$4" -c '
import sys
from pathlib import Path
from mudd_interp.files import contents, replacing_folder, try_folder, write_text
for folder in map(Path, sys.argv[1:3]):
    try_folder(folder)
    with replacing_folder(folder) as new:
        (new / "b").write_text("new")
    assert contents(folder) == ["b"], contents(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["b"]
write_text(sys.argv[3], "new")
assert Path(sys.argv[3]).read_text() == "new"
' "$1" "$2" "$3"
"""


def test_mounted_folders_and_files(tmp_path: Path):
    """Of another file system, and of the same one: that looks like any other folder."""
    for name in ("tmpfs", "bound"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("old")
    paths = [tmp_path / "tmpfs", tmp_path / "bound", tmp_path / "file"]
    command = ["unshare", "-m", "sh", "-c", MOUNTED, "sh", *map(str, paths), sys.executable]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("mounting needs the rights of root on Linux")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert sorted(tmp_path.iterdir()) == sorted(paths)


# --- Where a path leads ---------------------------------------------------------------------------


def test_links_are_followed_and_stay(tmp_path: Path):
    folder = fill(tmp_path / "folder", OLD)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere" / "new")
    (tmp_path / "file link").symlink_to(folder / "a")
    with replacing_folder(tmp_path / "link") as new:
        fill(new, NEW)
    assert (tmp_path / "link").is_symlink()
    assert texts(folder) == NEW
    with replacing_folder(tmp_path / "dangling") as new:
        fill(new, NEW)
    assert (tmp_path / "dangling").is_symlink()
    assert texts(tmp_path / "elsewhere" / "new") == NEW
    write_text(tmp_path / "file link", "through")
    assert (tmp_path / "file link").is_symlink()
    assert (folder / "a").read_text() == "through"


def test_home_folders_and_other_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_text("~/a", "home")
    assert (tmp_path / "a").read_text() == "home"
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    with replacing_folder("../folder/../other/") as new:
        fill(new, NEW)
    assert texts(tmp_path / "other") == NEW
    assert place_of("..") == tmp_path
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for path, words in (
        ("", "the path is empty"),
        ("~nobody-such/a", "home folder of a user that does not exist"),
        (tmp_path / "round", "go round in a circle"),
    ):
        with pytest.raises(ValueError, match=words):
            write_text(path, "x")
        with pytest.raises(ValueError, match=words):
            try_folder(path)


def test_pipes_and_devices_get_the_bytes(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]):
    write_text("/dev/null", "nothing")
    write_text("/dev/stdout", "said")
    assert capfdbinary.readouterr().out == b"said"
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        write_text(tmp_path / "pipe", "through")
        assert read.result(timeout=60) == "through"
    with pytest.raises(NotADirectoryError):
        try_folder("/dev/null")


# --- Locks ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there nothing is locked")
def test_a_second_one_is_refused_in_words_and_a_killed_one_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    locks, target = tmp_path / "locks", tmp_path / "new" / "target"
    locks.mkdir()
    monkeypatch.setenv("TMPDIR", str(locks))
    monkeypatch.setattr(tempfile, "tempdir", None)  # ask again
    with exclusive(target):
        with pytest.raises(ValueError, match=r"another process is at work on .*target: wait"):
            exclusive(target).__enter__()
        with exclusive(tmp_path / "new" / "other"):
            pass
        assert list(tmp_path.iterdir()) == [locks]
    assert list(locks.iterdir()) == []
    code = (
        "import os, sys; from mudd_interp.files import exclusive\n"
        "with exclusive(sys.argv[1]): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, target], check=False)
    assert len(list(locks.iterdir())) == 1
    assert list(tmp_path.iterdir()) == [locks]
    with exclusive(target):
        pass
    assert list(locks.iterdir()) == []
