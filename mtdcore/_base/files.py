"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import StorageError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside ``path``, flush it to disk and rename it: a reader sees the old file or the new one, never a part.

    Args:
        path: the file to make or replace.
        write: called once with the open binary file.

    Raises:
        StorageError: the operating system refused; what was at ``path`` is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            beside.unlink(missing_ok=True)
            with open(beside, "xb") as file:  # "x" creates the file: a link of this name is not followed
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
            _flush_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}.") from error


#: Errors of file systems that cannot flush a folder (CIFS, some FUSE), or cannot open one for a flush.
_NO_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM)


def _flush_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power failure, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        if problem.errno not in _NO_FLUSH:
            raise
