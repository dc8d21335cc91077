"""The last step of writing: new contents take the place of what is there."""

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mudd_interp.files.locks import held
from mudd_interp.files.places import is_there
from mudd_interp.files.staging import OLD, READY, REPLACES, Check, contents, make_staging, move_in

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h

OTHER_WAY = {
    errno.ENOSYS,
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EBUSY,
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
}
"""The errors of one way of replacing after which another may work."""


def put_file(new: Path, target: Path) -> None:
    """Put a file in its place with one rename; if the old file has to stay, byte by byte.

    Raises:
        OSError: If it cannot be written.
    """
    if target.is_file():
        shutil.copymode(target, new)
    try:
        os.replace(new, target)  # noqa: PTH105 (as in the rest of this module)
    except OSError as error:
        if error.errno not in OTHER_WAY or not target.is_file():
            raise
        shutil.copyfile(new, target)


def put_folder(new: Path, target: Path, check: Check) -> None:
    """Put a folder in its place; what is there now must pass the check, and is removed.

    With one exchange, where the system has that: then there is a whole folder at every moment.
    Otherwise with two renames, between which there is no folder. If the old folder has to stay,
    file by file.

    Raises:
        OSError: If it cannot be done; the old folder is then as it was.
    """
    if not is_there(target):
        new.rename(target)  # fails if something with contents has appeared there meanwhile
        return
    shutil.copymode(target, new)
    require_folder(target, check)
    ways: tuple[Callable[[Path, Path, Check], None], ...] = (_exchange, _two_renames, _fill)
    with held(target):
        for way in ways if new.parent != target else (_fill,):
            try:
                way(new, target, check)
            except OSError as error:
                if error.errno not in OTHER_WAY or way is _fill:
                    raise
            else:
                return


def require_folder(folder: Path, check: Check) -> None:
    """Refuse what is not a folder, or does not pass a check.

    Raises:
        NotADirectoryError: If it is not a folder.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    check(folder)


def _exchange(new: Path, target: Path, check: Check) -> None:
    exchange(new, target)
    try:
        require_folder(new, check)  # what was there at that moment
    except BaseException:
        exchange(new, target)
        raise
    shutil.rmtree(new, ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Exchange what two names lead to, in one step.

    Raises:
        OSError: If it cannot be done; ``ENOSYS`` if this system cannot do it at all.
    """
    rename = _renameat2()
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = [os.fsencode(path) for path in (one, other)]
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


@cache
def _renameat2() -> Any:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def _two_renames(new: Path, target: Path, check: Check) -> None:
    old = new.with_suffix(OLD)
    target.rename(old)
    try:
        require_folder(old, check)
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(new: Path, target: Path, check: Check) -> None:
    """Fill a folder that stays; as soon as ``READY`` is there, a kill loses nothing."""
    if new.parent == target:
        _fill_from(new, target, check)
        return
    inside = make_staging(target, inside=True)
    try:
        with held(inside):
            shutil.copytree(new, inside, dirs_exist_ok=True)
            _fill_from(inside, target, check)
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _fill_from(new: Path, target: Path, check: Check) -> None:
    check(target)
    replaced = [name for name in contents(target) if not is_there(new / name)]
    (new / REPLACES).write_text(json.dumps(replaced), encoding="utf-8")
    ready = new.with_suffix(READY)
    new.rename(ready)
    move_in(ready, target)
