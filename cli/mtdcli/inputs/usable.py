"""The measurement of a run, opened the same way by every command that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal.console import log

if TYPE_CHECKING:
    from mtdcore.data import Measurement


def open_for(path: Path, parameters: Mapping[str, Any]) -> Measurement:
    """The measurement at ``path`` as the options of ``mtd recover`` want it.

    Args:
        path: anything :func:`mtdcli.inputs.opening.open_source` takes.
        parameters: ``skip_bad`` and ``defects`` of the run; a run from before these options had neither.
    """
    from mtdcore.data.defects import without_defects

    from .opening import open_source

    defects = parameters.get("defects", "keep")
    measurement = open_source(path, parameters.get("skip_bad", False), defects)
    return without_defects(measurement) if defects == "mask" else measurement


def source_of(measurement: Measurement) -> Measurement:
    """The measurement that :func:`open_for` opened, without what it put around it."""
    source: Measurement = getattr(measurement, "source", measurement)
    return source


def missing(measurement: Measurement, pixels: int) -> dict[str, Any]:
    """What of a measurement was not used, for the record of a run; also said in the log.

    Args:
        measurement: as :func:`open_for` gave it, read at least once.
        pixels: how many pixels were used.
    """
    import math

    bad = getattr(source_of(measurement), "bad_chunks", [])
    masked = math.prod(measurement.shape) - pixels
    if bad:
        log(f"{len(bad)} bad chunk(s) skipped: {', '.join(chunk.key for chunk in bad)}")
    if masked:
        log(
            f"{masked} of {math.prod(measurement.shape)} pixels were not used (invalid, defective or in bad chunks)"
        )
    return {"masked_pixels": masked, "bad_chunks": [str(chunk) for chunk in bad]}
