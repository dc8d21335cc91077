"""A process that replaces a folder and is killed before its n-th change of the file system.

    python killed_writer.py FOLDER WAY N

Exit code 9 if it was killed, 0 if it finished before that. Only `mudd_interp.files` is loaded.
"""

import errno
import os
import sys
from pathlib import Path

from mudd_interp.files import replacing_folder, staging, swap

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "fcntl.flock"}


def no_exchange(*_: Path) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def main(target: Path, way: str, deadline: int) -> None:
    """Replace the folder with one that holds a new `a` and a `c`, and no `b`."""
    if way == "two renames":
        swap.exchange = no_exchange
    if way == "in place":
        staging.is_pinned = lambda folder: folder == target  # pyright: ignore[reportPrivateImportUsage]
    left = deadline

    def count(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        left -= event in CHANGES
        if left == 0:
            os._exit(9)

    sys.addaudithook(count)
    with replacing_folder(target) as new:
        (new / "a").write_text("new")
        (new / "c").write_text("new")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
