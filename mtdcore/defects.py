"""Dead and hot pixels: values that neither noise nor copies can have made. They count as invalid, like NaN.

What is looked for, in a sample of the measurement:

- *stuck* values: in data of continuous values exact zeros, and any other value that comes back again and again;
- *far* values, more than 16 noise standard deviations from the median. Copies reach that far at high SNR (above about 25),
  and so does a background that was not removed; both fill the range from 8 to 16 as well, and their far pixels are
  neighbours. Only where far pixels lie alone (or in whole rows and columns) beyond an empty range are they defects.

Each rule then judges every pixel by itself, so that the cut into tiles changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .errors import InputError
from .likelihood import Tile
from .measurement import Measurement
from .measurement.derived import DerivedMeasurement
from .noise import estimate_noise_std, sample_tiles

#: Noise standard deviations from the median beyond which a pixel is far, and below which the range must be empty.
_FAR, _EMPTY = 16.0, 8.0

#: Far pixels in the empty range, per far pixel; far neighbours of a far pixel (chance: 0.4 at 5 % of defects).
_FEW, _ALONE = 0.1, 1.5

#: How often a value must come back in the sample to be stuck, and the most values that can be.
_REPEATS, _MOST = 16, 8

#: Values whose repetition is judged.
_JUDGED = 1 << 18


@dataclass(frozen=True)
class Limits:
    """What a usable pixel can be.

    Attributes:
        low: smallest value.
        high: largest value.
        stuck: values of dead pixels between them.
    """

    low: float
    high: float
    stuck: tuple[float, ...]

    def bad(self, values: np.ndarray) -> np.ndarray:
        """Where pixels are outside: bool, of the shape of ``values``."""
        found: np.ndarray = (values < self.low) | (values > self.high)
        for value in self.stuck:
            found |= values == values.dtype.type(value)
        return found


@dataclass(frozen=True)
class WithoutDefects(DerivedMeasurement):
    """A measurement whose defective pixels are invalid.

    Attributes:
        limits: what a usable pixel can be.
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
    """The measurement with dead and hot pixels made invalid; nothing is copied, tiles are judged as they are read."""
    return WithoutDefects(measurement, find_limits(measurement))


def find_limits(measurement: Measurement) -> Limits:
    """What usable pixels of a measurement can be, from a sample of its tiles; no limits where nothing can be said."""
    try:
        noise_std = estimate_noise_std(measurement)
    except InputError:  # no noise, no way to tell
        return Limits(-math.inf, math.inf, ())
    pictures = [
        np.where(True if t.valid is None else t.valid, t.values, np.nan) for t in sample_tiles(measurement)
    ]
    values = np.concatenate([picture[np.isfinite(picture)] for picture in pictures])
    stuck = _stuck(values)
    middle = float(np.median(values))
    limits = Limits(middle - _FAR * noise_std, middle + _FAR * noise_std, stuck)
    if not _lie_apart(pictures, middle, noise_std, stuck):
        limits = Limits(-math.inf, math.inf, stuck)
    return limits


def _stuck(values: np.ndarray) -> tuple[float, ...]:
    """Values that come back too often for continuous data; none for data of few levels (counts, grey levels)."""
    values = values[:: max(1, values.size // _JUDGED)]
    distinct, counts = np.unique(values, return_counts=True)
    often = counts >= _REPEATS
    if 2 * (~often).sum() < counts[~often].sum() or counts[often].sum() > values.size / 2:
        return ()
    order = np.argsort(-counts[often], kind="stable")[:_MOST]
    return tuple(sorted({0.0, *map(float, distinct[often][order])}))


def _lie_apart(pictures: list[np.ndarray], middle: float, noise_std: float, stuck: tuple[float, ...]) -> bool:
    """Whether the far pixels look like defects: alone, with hardly any between them and the noise."""
    far_count = between_count = neighbours = 0
    for picture in pictures:
        apart = np.abs(picture - middle) / noise_std
        apart[np.isin(picture, stuck)] = 0.0
        far = apart > _FAR
        between_count += int(((apart > _EMPTY) & ~far).sum())
        far &= ~(far.mean(axis=1, keepdims=True) > 0.5) & ~(far.mean(axis=0, keepdims=True) > 0.5)
        around = ndimage.convolve(far.astype(np.uint8), np.ones((3, 3), np.uint8), mode="constant")
        far_count += int(far.sum())
        neighbours += int(around[far].sum()) - int(far.sum())
    return between_count <= _FEW * max(far_count, 1) + 1 and neighbours <= _ALONE * far_count
