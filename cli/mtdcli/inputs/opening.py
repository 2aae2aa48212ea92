"""Opening the measurement of a command, and the table of its micrographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mtdcore import open_measurement
from mtdcore.data import Measurement
from mtdcore.data.micrographs.listing import SUFFIXES, Micrograph, find_micrographs, of_one_size
from mtdcore.data.micrographs.measurement import MicrographMeasurement
from mtdcore.data.micrographs.table import Entry, MicrographTable, default_name
from mtdcore.data.preparation.pixels import TIFF
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.data.zarr.ome import ome_pixel_size
from mtdcore.errors import DependencyError, InputError, MtdError

from ..terminal.console import log
from ..terminal.progress import Progress


def open_source(path: Path, skip_bad: bool = False, defects: Literal["mask", "keep"] = "mask") -> Measurement:
    """Open a measurement. Micrograph files are prepared with the defaults of ``mtd import`` as they are read.

    Args:
        path: .zarr, .npy, .star, .mrc(s) or .tif.
        skip_bad: leave out micrographs, and mask chunks, that are missing or damaged.
        defects: whether dead and hot pixels of micrograph files are masked, which has to happen before preparation.

    Raises:
        InputError, StorageError: see :func:`mtdcore.open_measurement`.
    """
    if path.suffix.lower() not in SUFFIXES:
        refuse_folder_of_micrographs(path)
        return open_measurement(path, skip_bad=skip_bad)
    raw = path.suffix.lower() not in TIFF
    steps = Preparation(defects, invert=raw)
    sized = of_one_size(
        find_micrographs(path, on_bad=log_skipped if skip_bad else None), log_skipped if skip_bad else None
    )
    tell_of_tiff(sized)
    if not skip_bad:
        return MicrographMeasurement(sized, steps)
    return MicrographMeasurement([one for one in sized if _usable(one, steps)], steps)


def refuse_folder_of_micrographs(path: Path) -> None:
    """Raise InputError for a folder of micrograph files, which `mtd import` has to make into one measurement."""
    inside = {one.suffix for one in path.iterdir()} if path.is_dir() else set()
    suffix = min((one for one in inside if one.lower() in SUFFIXES), default=None)
    if suffix is not None:
        raise InputError(
            f"{path} is a folder of micrographs; make one measurement of them: mtd import '{path}/*{suffix}' -o measurement.zarr."
        )


def table_of(path: Path, measurement: Measurement) -> MicrographTable | None:
    """The table of the micrographs of an open measurement; None: nothing is known about them.

    Args:
        path: where it was opened.
        measurement: as :func:`open_source` gave it; micrograph files are prepared once more, to learn their scale and transfer.
    """
    if not isinstance(measurement, MicrographMeasurement):
        table = MicrographTable.load(path)
        pixel_size = ome_pixel_size(path)
        if table is None and pixel_size is not None:
            count = measurement.shape[0]
            return MicrographTable(tuple(Entry(default_name(i), pixel_size) for i in range(count)))
        return table
    steps = measurement.preparation
    if steps is None:
        return None
    entries = []
    with Progress("prepare", len(measurement.micrographs), "micrographs") as bar:
        for micrograph in measurement.micrographs:
            entries.append(Entry.of(micrograph, steps.read(micrograph), steps.bin, steps.invert))
            bar.update(len(entries))
    return MicrographTable(tuple(entries))


def _usable(micrograph: Micrograph, steps: Preparation) -> bool:
    """Whether a micrograph can be prepared; if not, the log says why."""
    try:
        steps.read(micrograph)
    except DependencyError:  # a missing package is not a damaged file
        raise
    except MtdError as problem:
        log_skipped(problem)
        return False
    return True


def tell_of_tiff(micrographs: Sequence[Micrograph]) -> None:
    """Log the order in which the rows of TIFF files are read, since it decides whether picks agree with those of other programs."""
    if any(one.path.suffix.lower() in TIFF for one in micrographs):
        log("reading TIFF files from the last row to the first, as RELION, IMOD, EMAN2 and MotionCor2 do")


def log_skipped(problem: MtdError) -> None:
    """Log that a file or micrograph is left out."""
    log(f"skipped: {problem}")
