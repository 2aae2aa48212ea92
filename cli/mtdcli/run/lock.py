"""The lock of an output folder. Imports nothing heavy: a second run is refused before it loads the engine."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TextIO

import click

#: Error numbers of file systems without locks (Lustre without ``-o flock``, NFS without its lock daemon, some FUSE).
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

#: Names of the partial files that a killed process of mtd leaves.
_LEFT = re.compile(r"\.[\w.-]+\.(json|npy|csv|star|safetensors|html|mrcs)\.\d+\.part")

#: The file that is locked.
_LOCK = ".lock"

#: The file that names the holder of the folder on file systems without locks.
_OWNER = ".lock.owner"


class FolderInUse(click.ClickException):
    """Another process holds the output folder."""

    exit_code = 75


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if needed. The kernel releases the lock when the process ends, however it ends.

    On file systems without locks a file names the process that holds the folder; the file of a process of this machine
    that has ended is ignored. A folder that holds only the lock afterwards loses the lock; if it was made here, it is removed.

    Raises:
        FolderInUse: another process holds it; the message names process and host.
        StorageError: a file is there.
        OSError: the folder cannot be made or locked.
    """
    made = not folder.exists()
    if not made and not folder.is_dir():
        from mtdcore.errors import StorageError

        raise StorageError(f"{folder} should be a folder; it is a file: choose another with -o.")
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(_opened(folder / _LOCK), "r+") as file, _held(file, folder) as own:
        _clean(folder)
        try:
            yield
        finally:
            _leave(folder, own, made)


@contextmanager
def _held(file: TextIO, folder: Path) -> Iterator[set[str]]:
    """Lock an open file and yield the names of the lock files; FolderInUse where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno not in (*_NO_LOCKS, errno.EAGAIN, errno.EACCES):
            raise OSError(problem.errno, f"{folder} cannot be locked: {problem.strerror}") from problem
        if problem.errno not in _NO_LOCKS:
            _refuse(folder, file.read(200).strip() or "an unknown process")
        with _owned(folder):
            yield {_LOCK, _OWNER}
        return
    if os.fstat(file.fileno()).st_nlink == 0:
        raise FolderInUse(f"{folder} was in use until now; try again.")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    yield {_LOCK}


def _leave(folder: Path, own: set[str], made: bool) -> None:
    """Remove the lock files from a folder that holds no other file, and the folder if :func:`locked` made it."""
    with suppress(OSError):
        if {one.name for one in folder.iterdir()} <= own:
            for name in own:
                (folder / name).unlink(missing_ok=True)
            if made:
                folder.rmdir()


def _opened(path: Path) -> int:
    """A descriptor of the lock file, made if needed. Links and other kinds of file are refused, since the content is replaced."""
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
        )
    except OSError as problem:
        what = "it is a link" if path.is_symlink() else problem.strerror
        raise OSError(problem.errno, f"{path} should be a lock file; {what}: remove it") from problem
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # 0: another process has just removed it
        os.close(descriptor)
        raise OSError(
            errno.EINVAL,
            f"{path} should be a lock file; it is another kind of file, or has other names: remove it",
        )
    return descriptor


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold a folder by a file that only one process can create (O_EXCL)."""
    from mtdcore._base.processes import (
        Process,
    )  # loads the engine, a delay that only these file systems cause

    path, me = folder / _OWNER, str(Process.current())
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            break
        except FileExistsError:
            text = _text(path)
            holder = Process.parse(text)
            if holder is None or not holder.gone:
                name = "an unknown process" if holder is None else holder.name
                _refuse(folder, f"{name} (if that is no more, remove {path})")
            _take_away(path, text)
    with os.fdopen(descriptor, "w") as file:
        file.write(me)
    try:
        yield
    finally:
        if _text(path) == me:
            path.unlink()


def _text(path: Path) -> str:
    with (
        suppress(OSError),
        os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), errors="replace") as file,
    ):
        return file.read(4096)
    return ""


def _take_away(path: Path, text: str) -> None:
    """Remove the lock of a process that has ended, unless another process has replaced it meanwhile."""
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(mine)
        if _text(mine) == text:
            mine.unlink()
        else:
            mine.rename(path)


def _clean(folder: Path) -> None:
    """Remove the partial files of processes of mtd that were killed while writing."""
    for left in folder.iterdir():
        if _LEFT.fullmatch(left.name) and left.is_file() and not left.is_symlink():
            left.unlink(missing_ok=True)


def _refuse(folder: Path, holder: str) -> NoReturn:
    raise FolderInUse(f"{folder} is in use by {holder}; wait for it, or choose another folder with -o.")
