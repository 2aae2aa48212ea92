"""Output folders: the one place that decides whether a folder may be replaced, and that replaces it.

Only a folder with mtd's mark and without files of others is ever replaced: no input, no folder that holds an input, no
link. A folder is made beside its place and moved there when it is complete.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StorageError
from .processes import Process

#: Entry of the attributes that marks a measurement as written by mtd.
MARK = "mtdcore"

#: File in the temporary folder that names the process making it. In a finished folder it may be left over, without effect.
CLAIM = ".claim"

#: Names of everything that mtd writes into a measurement, relative to its folder; ``0`` is the level of an OME-Zarr image.
_OWN = re.compile(
    rf"(0/)?(zarr\.json|digests\.npz|c(/\d+)*)|0|micrographs\.json|(volume_)?truth\.npz|{re.escape(CLAIM)}"
)

#: Attempts to remove a folder, with growing waits between them: two seconds in all.
_ATTEMPTS = 20

#: Unfinished files of zarr and of :func:`mtdcore._base.files.write_whole` in an abandoned folder.
_HALF = re.compile(r".+\.partial|\..+\.\d+\.part")

#: Bytes of metadata that are read.
_MOST = 16 << 20

#: Attempts to claim an output, and errors of a rename to a name that is taken by a folder that is not empty, a file or a link.
_CLAIMS, _TAKEN = 3, (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def check_output(path: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise StorageError unless a measurement may be written to ``path``.

    Args:
        path: where.
        overwrite: whether a measurement that mtd wrote may be replaced.
        inputs: files and folders that are read.
    """
    if path.is_symlink():
        raise StorageError(f"{path} should be a folder of its own; it is a link: write to where it leads.")
    place = Path(os.path.realpath(path))
    for one in inputs:
        real = Path(os.path.realpath(one))
        if real.is_relative_to(place):
            raise StorageError(
                f"{path} should not hold what is read; {one} lies there: choose another place."
            )
        if real.is_dir() and place.is_relative_to(real):
            raise StorageError(f"{path} lies within {one}, which is read: choose another place.")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise StorageError(f"{path} exists already; choose another path or ask to overwrite it.")
    check_own(path)


def check_own(path: Path) -> None:
    """Raise StorageError unless ``path`` is a measurement that mtd wrote, with nothing else in it."""
    foreign = _foreign(path)
    if foreign is not None:
        raise StorageError(
            f"{path} should be a measurement written by mtd to be replaced; {foreign}: choose another place, or move it away."
        )


@contextmanager
def making_folder(path: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes the place of ``path`` if the block succeeds, and is removed if it fails.

    The folder doubles as a lock: while it exists and its process runs, no other process writes to ``path``. Remains of killed
    processes are cleaned up.

    Raises:
        StorageError: as :func:`check_output`, before and again after the block; or another process writes to ``path``.
        OSError: the operating system refuses.
    """
    path = Path(os.path.abspath(path))
    check_output(path, overwrite, inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = (path.with_name(f".{path.name}.mtd.{kind}") for kind in ("partial", "old"))
    placed = held = False
    try:
        try:
            _claim(temporary, path)
        except StorageError:  # another process holds it
            held = True
            raise
        _clean(aside, path)
        _sweep(temporary)
        check_output(path, overwrite, inputs)
        yield temporary
        check_output(path, overwrite, inputs)
        _replace(temporary, path, aside)
        placed = True
    finally:
        if not (placed or held) and _is_mine(temporary):  # afterwards the name is free for others
            _remove(temporary)
    with suppress(OSError):
        (path / CLAIM).unlink()


def _claim(temporary: Path, path: Path) -> None:
    """Make the temporary folder, claimed, in place of one of a dead process. StorageError: a running process holds it.

    The folder is claimed under another name first: a process that is killed in between holds nothing.
    """
    for _ in range(_CLAIMS):
        mine = temporary.with_name(f"{temporary.name}.{uuid.uuid4().int}")
        try:
            mine.mkdir()
            (mine / CLAIM).write_text(str(Process.current()))
            mine.rename(temporary)
            return
        except FileNotFoundError:  # swept by the holder before it was claimed
            continue
        except OSError as problem:
            if problem.errno not in _TAKEN:
                raise
        finally:
            if os.path.lexists(mine):
                _remove(mine)
        holder = _holder(temporary)
        if not (holder is None or holder.gone):
            raise StorageError(
                f"{path} is being written by {holder.name}; wait for it, or remove {temporary} if that process is no more."
            )
        if os.path.lexists(temporary):  # its process may have finished meanwhile
            _discard(temporary, path)
    raise StorageError(f"{path} is being written by several processes at once: wait for them.")


def _is_mine(temporary: Path) -> bool:
    """Whether this process claimed a temporary folder."""
    return _holder(temporary) == Process.current()


def _holder(temporary: Path) -> Process | None:
    """The process that makes a temporary folder; None: no process claimed it."""
    with suppress(OSError):
        return Process.parse((temporary / CLAIM).read_text())
    return None


def _discard(temporary: Path, path: Path) -> None:
    """Remove the temporary folder of a dead process; it is renamed first, so that only one of two processes removes it."""
    if not _unfinished(temporary):
        raise StorageError(
            f"{temporary} stands where {path} is made, and mtd did not write it: move it away."
        )
    mine = temporary.with_name(f"{temporary.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.rename(mine)
    _remove(mine)


def _sweep(temporary: Path) -> None:
    """Remove folders of processes that were killed within :func:`_claim` or :func:`_discard`."""
    for left in temporary.parent.glob(f"{glob.escape(temporary.name)}.*"):
        holder = _holder(left)  # that of a running process is about to be renamed
        if left.suffix[1:].isdigit() and (holder is None or holder.gone) and _unfinished(left):
            _remove(left)


def _unfinished(folder: Path) -> bool:
    """Whether a folder was begun by mtd and holds no files of others."""
    return not folder.is_symlink() and folder.is_dir() and not _foreign(folder, marked=False)


def _clean(aside: Path, path: Path) -> None:
    """Restore or remove the folder put aside by a process that was killed within :func:`_replace`."""
    if os.path.lexists(path):  # it may be half removed
        if _unfinished(aside):
            _remove(aside)
    elif aside.is_dir() and _foreign(aside) is None:
        aside.rename(path)


def _replace(new: Path, path: Path, aside: Path) -> None:
    """Put a finished folder at ``path``; the old folder is removed only once the new one is in place.

    The old folder is checked again once it was put aside, where no other process exchanges it.
    """
    replaced = os.path.lexists(path)
    if replaced:
        os.rename(path, aside)
    try:
        if replaced and (foreign := _foreign(aside)) is not None:
            raise StorageError(
                f"{path} changed while it was to be replaced; {foreign}: choose another place."
            )
        os.rename(new, path)
    except BaseException:
        if replaced:
            os.rename(aside, path)
        raise
    if replaced:
        _remove(aside)


def _foreign(path: Path, marked: bool = True) -> str | None:
    """Why a folder is not entirely of mtd, in words; None: it is a measurement written by mtd, without files of others."""
    if path.is_symlink() or not path.is_dir():
        return "it is a link" if path.is_symlink() else "it is no folder"
    if marked and not _has_mark(path):
        return "it is a folder without the mark of mtd"
    for folder, folders, files in os.walk(path):
        inside = Path(folder).relative_to(path)
        for name in (*folders, *files):
            relative = (inside / name).as_posix()
            unfinished = not marked and _HALF.fullmatch(name)
            if (Path(folder) / name).is_symlink() or not (_OWN.fullmatch(relative) or unfinished):
                return f"{relative} in it is somebody else's"
    return None


def _has_mark(path: Path) -> bool:
    try:
        with open(os.open(path / "zarr.json", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            return isinstance(json.loads(file.read(_MOST))["attributes"][MARK], dict)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _remove(folder: Path) -> None:
    """Remove a folder. Interruptions meanwhile are raised once the folder is gone."""
    interruption: BaseException | None = None
    for attempt in range(_ATTEMPTS):  # a passing fault or a thread still writing may leave a part
        try:
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.lexists(folder):
                break
            time.sleep(0.01 * attempt)
        except BaseException as error:  # raised by the handler of a signal
            interruption = error
    if interruption is not None:
        raise interruption
