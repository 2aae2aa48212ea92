"""The lock of an output folder. Imports nothing heavy: a second run is refused before it loads the engine."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


class FolderInUse(click.ClickException):
    """Another process holds the output folder."""

    exit_code = 75


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if needed. The kernel frees it with the process, however that ends.

    Raises:
        FolderInUse: another process holds it; the message names process and host.
        OSError: the folder cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
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
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        for left in folder.glob(".*.part"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        yield
