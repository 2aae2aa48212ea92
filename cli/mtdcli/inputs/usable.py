"""The measurement of a run, opened the same way by every command that reads it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from mtdcore.data import Measurement
from mtdcore.data.defects import without_defects

from ..terminal.console import log
from .opening import open_source


def open_usable(path: Path, skip_bad: bool, defects: Literal["mask", "keep"]) -> Measurement:
    """The measurement at ``path`` as the options of ``mtd recover`` want it.

    Args:
        path: anything :func:`mtdcli.inputs.opening.open_source` takes.
        skip_bad: leave out micrographs, and mask chunks, that are missing or damaged.
        defects: whether dead and hot pixels are masked or kept.
    """
    measurement = open_source(path, skip_bad, defects)
    return without_defects(measurement) if defects == "mask" else measurement


def source_of(measurement: Measurement) -> Measurement:
    """The measurement that :func:`open_usable` opened, without the mask of defects."""
    source: Measurement = getattr(measurement, "source", measurement)
    return source


def missing(measurement: Measurement, pixels: int) -> dict[str, Any]:
    """The unused pixels and chunks of a measurement, for the record of a run; also logged.

    Args:
        measurement: as :func:`open_usable` gave it, read at least once.
        pixels: how many pixels were used.
    """
    bad, whole = getattr(source_of(measurement), "bad_chunks", []), math.prod(measurement.shape)
    if bad:
        log(f"{len(bad)} bad chunk(s) skipped: {', '.join(chunk.key for chunk in bad)}")
    if pixels < whole:
        log(f"{whole - pixels} of {whole} pixels were not used (invalid, defective or in bad chunks)")
    return {"masked_pixels": whole - pixels, "bad_chunks": [str(chunk) for chunk in bad]}
