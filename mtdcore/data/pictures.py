"""Noise level and defective pixels of plain pictures: (H, W) floating point, NaN where a pixel may not be used.

Two kinds of defects are found:

- *stuck* values. In continuous data: exact zeros, and any other value that is repeated often. In counts and grey levels, which are all
  repeated: levels whose pixels are isolated, and that lie 4 noise standard deviations from every other level;
- *far* values, more than 16 noise standard deviations from the median. Copies reach that far at high SNR (above about 25),
  and so does a background that was not removed; both also fill the range from 8 to 16 on their side, and their far pixels are
  neighbours. Far pixels are defects only if they are isolated (or form whole rows and columns) and that range is empty.

The limits are then applied to every pixel by itself, so that the result does not depend on the cut into tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ..errors import InputError

#: Number and side of the sampled squares: a million pixels give the noise level to a tenth of a per cent.
SQUARES, SIDE = 16, 256

#: Median of |x - y| for independent standard normal x and y.
_MEDIAN_DIFFERENCE = 0.6744897501960817 * math.sqrt(2.0)

#: Smallest and largest noise level at which sums of squares stay in the range of float32.
_SMALLEST, _LARGEST = 1e-16, 1e15

#: Noise standard deviations from the median beyond which a pixel is far, and below which the range must be empty.
_FAR, _EMPTY = 16.0, 8.0

#: Most pixels in the "empty" range per far pixel; largest share of far pixels among the neighbours of a far pixel (0.05 by chance at 5 % of defects).
_FEW, _ALONE = 0.1, 0.19

#: Fewest pixels of a row or column that can be dead as a whole; shorter ones, of a few channels, are samples of a signal.
_LINE = 16

#: Least distance between a stuck level and the next, in noise standard deviations.
_GAP = 4.0

#: Fewest repeats of a stuck value in the sample, and the largest number of stuck values.
_REPEATS, _MOST = 16, 8

#: Number of sampled values among which repeats are counted.
_JUDGED = 1 << 18


def noise_level(pictures: Sequence[np.ndarray]) -> float:
    """Standard deviation of white noise, from the median absolute difference of horizontal neighbours.

    Differences cancel a smooth background, the median ignores copies and defects.

    Raises:
        InputError: no two usable neighbours, or most of them are equal.
    """
    differences = [np.abs(np.diff(picture.astype(np.float64), axis=1)).ravel() for picture in pictures]
    joined = np.concatenate(differences) if differences else np.empty(0)
    joined = joined[np.isfinite(joined)]
    if joined.size == 0:
        raise InputError(
            "the noise level cannot be estimated: no two neighbouring pixels are valid; give noise_std."
        )
    level = float(np.median(joined)) / _MEDIAN_DIFFERENCE
    if not (math.isfinite(level) and level > 0):
        raise InputError(
            "the noise level cannot be estimated: most neighbouring pixels are equal, so the measurement holds "
            "no noise; give noise_std, or check the file."
        )
    if not _SMALLEST < level < _LARGEST:
        raise InputError(
            f"pixels should differ by {_SMALLEST:g} to {_LARGEST:g}, whose squares float32 holds; neighbours differ by {level:.3g}: give "
            "the measurement in other units."
        )
    return level


@dataclass(frozen=True)
class Limits:
    """Range of usable pixel values, and the stuck values in it.

    Attributes:
        low: smallest value.
        high: largest value.
        stuck: values of dead pixels within the range.
    """

    low: float
    high: float
    stuck: tuple[float, ...]

    def bad(self, values: np.ndarray) -> np.ndarray:
        """Where pixels are not usable: bool, of the shape of ``values``."""
        found: np.ndarray = (values < self.low) | (values > self.high)
        for value in self.stuck:
            found |= values == values.dtype.type(value)
        return found


def limits_of(pictures: Sequence[np.ndarray]) -> Limits:
    """Limits of the usable pixels of pictures of one kind; infinite where the noise level cannot be estimated."""
    try:
        noise_std = noise_level(pictures)
    except InputError:  # without a noise level nothing can be told
        return Limits(-math.inf, math.inf, ())
    values = np.concatenate([picture[np.isfinite(picture)] for picture in pictures])
    stuck = _stuck(pictures, values, noise_std)
    middle = float(np.median(values))
    reach = _FAR * noise_std
    below, above = (_side(pictures, middle, sign * noise_std, stuck) for sign in (-1, 1))
    copies = "copies" in (below, above)  # far pixels on the other side may be of copies as well
    low = -math.inf if copies or below == "filled" else middle - reach
    high = math.inf if copies or above == "filled" else middle + reach
    return Limits(low, high, stuck)


def mask_defects(image: np.ndarray) -> np.ndarray:
    """A picture whose dead and hot pixels are NaN; the same array where it has none.

    To be used before filtering or binning, which spread a defect over its neighbours.
    """
    bad = limits_of(_squares(image)).bad(image)
    return np.where(bad, image.dtype.type(np.nan), image) if bad.any() else image


def _squares(image: np.ndarray) -> list[np.ndarray]:
    """At most ``SQUARES`` parts of a picture, spread evenly over it."""
    corners = [(i, j) for i in range(0, image.shape[0], SIDE) for j in range(0, image.shape[1], SIDE)]
    return [image[i : i + SIDE, j : j + SIDE] for i, j in corners[:: -(-len(corners) // SQUARES)]]


def _stuck(pictures: Sequence[np.ndarray], values: np.ndarray, noise_std: float) -> tuple[float, ...]:
    """Values repeated too often for continuous data; in data of few levels (counts, grey levels), isolated levels far from all others."""
    values = values[:: max(1, values.size // _JUDGED)]
    distinct, counts = np.unique(values, return_counts=True)
    often = counts >= _REPEATS
    few = 2 * (~often).sum() < counts[~often].sum() or counts[often].sum() > values.size / 2
    levels = few or bool((values == np.rint(values)).all())
    if levels:
        often |= distinct == 0
        gaps = np.concatenate([[math.inf], np.diff(distinct), [math.inf]])
        often &= np.minimum(gaps[1:], gaps[:-1]) > _GAP * noise_std
    order = np.argsort(-counts[often], kind="stable")[:_MOST]
    found = [float(value) for value in distinct[often][order]]
    if levels:
        return tuple(sorted(v for v in found if _alone([picture == v for picture in pictures])[1]))
    return tuple(sorted({0.0, *found}))


def _side(
    pictures: Sequence[np.ndarray], middle: float, noise_std: float, stuck: tuple[float, ...]
) -> Literal["apart", "filled", "copies"]:
    """Classify the pixels on one side of the noise.

    "apart": far pixels, if any, are isolated beyond an empty range, as defects are. "copies": far pixels are not isolated, or the range
    is filled as well. "filled": pixels in the range, none beyond.

    Args:
        pictures: see :func:`limits_of`.
        middle: median.
        noise_std: noise standard deviation; negative for the side below the median.
        stuck: values of pixels that are left out.
    """
    away = [np.where(np.isin(picture, stuck), 0, (picture - middle) / noise_std) for picture in pictures]
    between = sum(int(((one > _EMPTY) & (one <= _FAR)).sum()) for one in away)
    far, alone = _alone([one > _FAR for one in away])
    if between <= _FEW * max(far, 1) + 1 and alone:
        return "apart"
    return "copies" if any((one > _FAR).any() for one in away) else "filled"


def _alone(masks: Sequence[np.ndarray]) -> tuple[int, bool]:
    """Number of mask pixels outside of whole rows and columns, and whether these are isolated (few neighbours among them)."""
    count = neighbours = room = 0
    for mask in masks:
        for axis in (0, 1):
            if mask.shape[axis] >= _LINE:
                mask = mask & ~(mask.mean(axis=axis, keepdims=True) > 0.5)
        ones = np.ones((3, 3), np.uint8)
        around = ndimage.convolve(mask.astype(np.uint8), ones, mode="constant")
        count += int(mask.sum())
        neighbours += int(around[mask].sum()) - int(mask.sum())
        room += int(mask.sum()) * (math.prod(min(3, n) for n in mask.shape) - 1)
    return count, neighbours <= _ALONE * room
