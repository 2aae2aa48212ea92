"""The lock of an output folder. Imports nothing heavy: a second run is refused before it loads the engine."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click


class FolderInUse(click.ClickException):
    """Another process holds the output folder."""

    exit_code = 75


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if needed. The kernel frees it with the process, however that ends.

    A folder that holds nothing but the lock afterwards loses it; one that was made here goes too.

    Raises:
        FolderInUse: another process holds it; the message names process and host.
        OSError: the folder cannot be made or locked.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with open(path, "a+") as file:
        _hold(file, folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        for left in folder.glob(".*.part"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            if list(folder.iterdir()) == [path]:
                path.unlink()
                if made:
                    folder.rmdir()


def _hold(file: TextIO, folder: Path) -> None:
    """Lock an open file; refused where it is the one of another process, or was removed while it was opened."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno not in (errno.EAGAIN, errno.EACCES):
            raise OSError(problem.errno, f"{folder} cannot be locked: {problem.strerror}") from problem
        file.seek(0)
        holder = file.read().strip() or "an unknown process"
        raise FolderInUse(
            f"{folder} is in use by {holder}; wait for it, or choose another folder with -o."
        ) from problem
    if os.fstat(file.fileno()).st_nlink == 0:
        raise FolderInUse(f"{folder} was in use until now; try again.")
