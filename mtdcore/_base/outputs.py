"""What may be written where: the one place that decides whether something may be replaced, and the one that replaces it.

Only a folder that carries mtd's own mark, and nothing else, is ever replaced: no input, no folder that holds one, no
link, nothing that somebody else put there. A folder is made beside its place and moved there when it is whole.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StorageError
from .processes import Process

#: Entry of the attributes of a measurement by which mtd knows its own.
MARK = "mtdcore"

#: In the temporary folder: who makes it. It may stay behind in a finished one, where it does no harm.
CLAIM = ".claim"

#: Everything that mtd puts into a measurement, relative to its folder; ``0`` is the level of an OME-Zarr image.
_OWN = re.compile(
    rf"(0/)?(zarr\.json|digests\.npz|c(/\d+)*)|0|micrographs\.json|(volume_)?truth\.npz|{re.escape(CLAIM)}"
)

#: How often a folder is removed until it is gone, with longer and longer waits: two seconds in all.
_ATTEMPTS = 20

#: Files that zarr, and :func:`mtdcore._base.files.write_whole`, had begun in a folder that was left half done.
_HALF = re.compile(r".+\.partial|\..+\.\d+\.part")

#: Bytes of metadata that are looked at, and seconds after which a temporary folder should say who makes it.
_MOST, _GRACE = 16 << 20, 60.0


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
    """A temporary folder beside ``path`` that takes its place when the block succeeds, and goes when it does not.

    It doubles as a lock: while it is there and its process runs, nobody else writes to ``path``. What a process that was
    killed left is cleaned up.

    Raises:
        StorageError: as :func:`check_output`, before the block and once more after it; or another process writes there.
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
        except StorageError:  # somebody else's
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
    """Make the temporary folder ours, after one that a dead process left. StorageError: it is somebody else's."""
    for _ in range(3):
        try:
            temporary.mkdir()
        except FileExistsError:
            holder = _holder(temporary)
            if not (holder is None or holder.gone):
                raise StorageError(
                    f"{path} is being written by {holder.name}; wait for it, or remove {temporary} if that process is no more."
                ) from None
            _discard(temporary, path)
            continue
        (temporary / CLAIM).write_text(str(Process.current()))
        return
    raise StorageError(f"{path} is being written by several processes at once: wait for them.")


def _is_mine(temporary: Path) -> bool:
    """Whether this process made a temporary folder, or an empty one: it may have been interrupted between making and claiming it."""
    with suppress(OSError):
        text = (temporary / CLAIM).read_text()
        return not text or Process.parse(text) == Process.current()
    with suppress(OSError):
        return not any(temporary.iterdir())
    return False


def _holder(temporary: Path) -> Process | None:
    """Who makes a temporary folder; None: a process that was killed before it said so."""
    with suppress(OSError):
        found = Process.parse((temporary / CLAIM).read_text())
        if found is not None:
            return found
    try:
        young = time.time() - temporary.lstat().st_mtime < _GRACE
    except OSError:  # just finished
        return None
    return Process(0, "this or another machine, which began just now", "", "") if young else None


def _discard(temporary: Path, path: Path) -> None:
    """Remove what a dead process left, taken away first so that of two processes only one does."""
    if not _unfinished(temporary):
        raise StorageError(
            f"{temporary} stands where {path} is made, and mtd did not write it: move it away."
        )
    mine = temporary.with_name(f"{temporary.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.rename(mine)
    _remove(mine)


def _sweep(temporary: Path) -> None:
    """Remove what processes that were killed while they discarded something had taken away."""
    for left in temporary.parent.glob(f"{glob.escape(temporary.name)}.*"):
        if left.suffix[1:].isdigit() and _unfinished(left):
            _remove(left)


def _unfinished(folder: Path) -> bool:
    """Whether this is a folder that mtd began, with nothing of others in it."""
    return not folder.is_symlink() and folder.is_dir() and not _foreign(folder, marked=False)


def _clean(aside: Path, path: Path) -> None:
    """Bring back, or remove, what a process that was killed while it replaced a folder had put aside."""
    if os.path.lexists(path):  # it may be half removed
        if _unfinished(aside):
            _remove(aside)
    elif aside.is_dir() and _foreign(aside) is None:
        aside.rename(path)


def _replace(new: Path, path: Path, aside: Path) -> None:
    """Put a finished folder at ``path``; what was there goes only once the new one is in place.

    It is judged once more after it was moved, when nobody can exchange it any more.
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
    """What about a folder is not of mtd; None: it is a measurement that mtd wrote and nothing besides."""
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
    """Remove a folder. An interruption, which may come again and again, is obeyed once the folder is gone."""
    interruption: BaseException | None = None
    for attempt in range(
        _ATTEMPTS
    ):  # a passing fault, or a thread that was still writing, may have left a part
        try:
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.lexists(folder):
                break
            time.sleep(0.01 * attempt)
        except BaseException as error:  # raised by the handler of a signal
            interruption = error
    if interruption is not None:
        raise interruption
