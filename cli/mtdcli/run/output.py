"""Checks of the output of a command, made before it computes. Imports nothing heavy, so that a wrong ``-o`` is reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .folder import RunFolder

#: Files that mark a folder as a Zarr array or group.
_ZARR = ("zarr.json", ".zarray", ".zgroup")

#: Text near the start or end of weights files and training histories of mtd, and of its reports.
_WEIGHTS, _PAGE = b"mtdbridge", b"This file is complete in itself: nothing is loaded from elsewhere."

#: Bytes searched at either end of a file.
_LOOKED_AT = 1 << 16


def refuse_output(path: Path, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise StorageError unless a measurement may be written to ``path``.

    Args:
        path: where.
        force: whether a measurement that mtd wrote may be replaced.
        inputs: what the command reads.
    """
    from mtdcore._base.outputs import check_output
    from mtdcore.errors import StorageError

    if not force and os.path.lexists(path) and not path.is_symlink():
        raise StorageError(
            f"{path} exists already; --force replaces a measurement that mtd wrote, -o chooses another place."
        )
    check_output(path, force, inputs)


def refuse_as_run_folder(output: Path, measurement: Path) -> None:
    """Raise StorageError where the folder of a run would be a measurement or lie in one."""
    place, real = (Path(os.path.realpath(path)) for path in (output, measurement))
    if output.is_symlink() and not output.is_dir():
        _storage(f"{output} should be a folder for the run; it is a link that leads to none.")
    if any(os.path.lexists(output / name) for name in _ZARR) or (
        real.is_dir() and place.is_relative_to(real)
    ):
        _storage(
            f"{output} should be a folder for the run; it is a measurement, or lies in one: choose another with -o."
        )


def refuse_run(folder: RunFolder, inputs: Iterable[str | Path | None], resume: bool, force: bool) -> None:
    """Refuse a folder that a run may not fill.

    Args:
        folder: of the run, locked.
        inputs: files that it reads; None: not given.
        resume: whether to continue the run in the folder.
        force: whether to replace it.

    Raises:
        UsageError: both are given.
        StorageError: the folder holds a run and neither is given; or files that no run left, or that the run reads.
    """
    if resume and force:
        raise click.UsageError("--resume continues what --force replaces: leave one of them out")
    if folder.watch.exists():
        _storage(
            f"{folder.path} is a run of `mtd watch`, which alone goes on with it: choose another folder with -o."
        )
    if folder.occupied and not (resume or force):
        _storage(f"{folder.path} holds a run already; --resume continues it, --force replaces it.")
    refuse_foreign_results(folder, inputs)


def refuse_foreign_results(folder: RunFolder, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raise StorageError where a run would replace what it reads, or files that no run of mtd left.

    Args:
        folder: of the run, locked.
        inputs: files that it reads; None: not given.
    """
    names = {file.name for file in vars(folder).values() if isinstance(file, Path) and file != folder.path}
    place = Path(os.path.realpath(folder.path))
    for one in (one for one in inputs if one is not None):
        real = Path(os.path.realpath(one))
        if real.parent == place and real.name in names:
            _storage(
                f"{one} is read and would be replaced by the run in {folder.path}: choose another folder with -o."
            )
    left = sorted(name for name in names if os.path.lexists(folder.path / name))
    if left and not folder.occupied:
        _storage(
            f"{folder.path} should be empty or hold a run of mtd; it holds {', '.join(left[:3])} without one: choose another "
            "folder with -o, or move them away."
        )


def refuse_weights(output: Path, beside: Sequence[str], force: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise StorageError unless weights may be written to ``output``, and their companion files beside it.

    Args:
        output: the weights file.
        beside: suffixes of the files beside it: its report, say.
        force: whether weights of mtd and their companion files may be replaced.
        inputs: what the command reads.
    """
    for path in (output, *map(output.with_suffix, beside)):
        mark = _PAGE if path.suffix == ".html" else _WEIGHTS
        if any(os.path.realpath(one) == os.path.realpath(path) for one in inputs):
            _storage(f"{path} is read and would be replaced: choose another place with -o.")
        if not os.path.lexists(path):
            continue
        if path.is_symlink() or not path.is_file() or mark not in _ends(path):
            _storage(
                f"{path} should be a file that mtd wrote to be replaced; it is something else: choose another -o."
            )
        if path == output and not force:
            _storage(f"{path} exists already; --resume continues its training, --force replaces it.")


def clean_beside(output: Path, beside: Sequence[str]) -> None:
    """Remove the partial files that killed trainings left beside this output; those of running processes stay.

    Args:
        output: the weights file.
        beside: suffixes of the files beside it.
    """
    if not output.parent.is_dir():
        return
    files = (output.name, f"{output.name}.state", *(output.with_suffix(one).name for one in beside))
    names = "|".join(map(re.escape, files))
    for left in output.parent.iterdir():
        found = re.fullmatch(rf"\.({names})\.(\d+)\.part", left.name)
        if found and left.is_file() and not left.is_symlink() and not _runs(int(found[2])):
            left.unlink(missing_ok=True)


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True


def refuse_page(path: Path) -> None:
    """Raise StorageError where a report would replace a file that is not a report of mtd."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or _PAGE not in _ends(path)):
        _storage(f"{path} should be a report of mtd to be replaced; it is something else: choose another -o.")


def _ends(path: Path) -> bytes:
    with open(path, "rb") as file:
        first = file.read(_LOOKED_AT)
        file.seek(max(len(first), os.fstat(file.fileno()).st_size - _LOOKED_AT))
        return first + file.read(_LOOKED_AT)


def _storage(message: str) -> None:
    from mtdcore.errors import StorageError

    raise StorageError(message)
