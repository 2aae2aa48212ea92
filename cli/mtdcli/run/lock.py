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

import click

#: What file systems answer that cannot lock (Lustre without ``-o flock``, NFS without its lock daemon, some FUSE).
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

#: What a process of mtd that is killed leaves of a file that it was writing.
_LEFT = re.compile(r"\.[\w.-]+\.(json|npy|csv|star|safetensors|html|mrcs)\.\d+\.part")

#: The lock of such file systems: who holds the folder.
_OWNER = ".lock.owner"


class FolderInUse(click.ClickException):
    """Another process holds the output folder."""

    exit_code = 75


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if needed. The kernel frees it with the process, however that ends.

    Where the file system has no such locks a file says who holds the folder; that of a process of this machine that is
    gone does not count.

    Raises:
        FolderInUse: another process holds it; the message names process and host.
        OSError: the folder cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(_opened(folder / ".lock"), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in _NO_LOCKS:
                with _owned(folder):
                    _clean(folder)
                    yield
                return
            if problem.errno not in (errno.EAGAIN, errno.EACCES):
                raise OSError(problem.errno, f"{folder} cannot be locked: {problem.strerror}") from problem
            _refuse(folder, file.read(200).strip() or "an unknown process")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        _clean(folder)
        yield


def _opened(path: Path) -> int:
    """A descriptor of the lock file, made if needed: a file of its own, since what it holds is replaced."""
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
        )
    except OSError as problem:
        what = "it is a link" if path.is_symlink() else problem.strerror
        raise OSError(problem.errno, f"{path} should be a lock file; {what}: remove it") from problem
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise OSError(
            errno.EINVAL,
            f"{path} should be a lock file; it is another kind of file, or has other names: remove it",
        )
    return descriptor


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold a folder by a file that only one process can make."""
    from mtdcore._base.processes import (
        Process,
    )  # loads the engine, which only these file systems have to wait for

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
    """Remove the lock of a process that is gone, unless another process was quicker."""
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(mine)
        if _text(mine) == text:
            mine.unlink()
        else:
            mine.rename(path)


def _clean(folder: Path) -> None:
    """Remove what a process of mtd left that was killed while it wrote."""
    for left in folder.iterdir():
        if _LEFT.fullmatch(left.name) and left.is_file() and not left.is_symlink():
            left.unlink(missing_ok=True)


def _refuse(folder: Path, holder: str) -> None:
    raise FolderInUse(f"{folder} is in use by {holder}; wait for it, or choose another folder with -o.")
