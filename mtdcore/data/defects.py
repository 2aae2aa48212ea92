"""Measurements without their dead and hot pixels: values that neither noise nor copies explain count as invalid, like NaN.

:mod:`mtdcore.data.pictures` has the rules; their limits come from a sample of the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import Measurement
from .derived import DerivedMeasurement
from .noise import sample_pictures
from .pictures import Limits, limits_of
from .tiles import Tile


@dataclass(frozen=True)
class WithoutDefects(DerivedMeasurement):
    """A measurement whose defective pixels are invalid.

    Attributes:
        limits: the range of usable values, and the stuck values in it.
    """

    limits: Limits

    def derive(self, tile: Tile) -> Tile:
        """The tile itself, or one with more invalid pixels."""
        bad = self.limits.bad(tile.values)
        if tile.valid is not None:
            bad &= tile.valid
        if not bad.any():
            return tile
        valid = ~bad if tile.valid is None else tile.valid & ~bad
        return replace(tile, values=np.where(valid, tile.values, tile.values.dtype.type(0)), valid=valid)


def without_defects(measurement: Measurement) -> WithoutDefects:
    """The measurement with dead and hot pixels made invalid; nothing is copied, the limits are applied to tiles as they are read."""
    return WithoutDefects(measurement, find_limits(measurement))


def find_limits(measurement: Measurement) -> Limits:
    """Limits of the usable pixels of a measurement, from a sample of its tiles; infinite where its noise level cannot be estimated."""
    return limits_of(sample_pictures(measurement))
