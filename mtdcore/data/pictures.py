"""Noise level and defective pixels of plain pictures: (H, W) floating point, NaN where a pixel may not be used.

What is looked for:

- *stuck* values: in data of continuous values exact zeros, and any other value that comes back again and again; in counts and
  grey levels, all of which come back, those that lie alone in the picture and 4 noise standard deviations from every other level;
- *far* values, more than 16 noise standard deviations from the median. Copies reach that far at high SNR (above about 25),
  and so does a background that was not removed; both fill the range from 8 to 16 on their side as well, and their far pixels are
  neighbours. Only where far pixels lie alone (or in whole rows and columns) beyond an empty range are they defects.

Each rule then judges every pixel by itself, so that the cut into tiles changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ..errors import InputError

#: Squares looked at, and their side: a million pixels give the noise level to a tenth of a per cent.
SQUARES, SIDE = 16, 256

#: Median of |x - y| for independent standard normal x and y.
_MEDIAN_DIFFERENCE = 0.6744897501960817 * math.sqrt(2.0)

#: Noise levels that leave room for sums of squares in float32.
_SMALLEST, _LARGEST = 1e-16, 1e15

#: Noise standard deviations from the median beyond which a pixel is far, and below which the range must be empty.
_FAR, _EMPTY = 16.0, 8.0

#: Far pixels in the empty range, per far pixel; far neighbours of a far pixel as a share of those it has (chance: 0.05 at 5 % of defects).
_FEW, _ALONE = 0.1, 0.19

#: Pixels of a row or column that can be dead as a whole; the shorter ones of a few channels are samples of a signal.
_LINE = 16

#: Noise standard deviations between a stuck level and the next.
_GAP = 4.0

#: How often a value must come back in the sample to be stuck, and the most values that can be.
_REPEATS, _MOST = 16, 8

#: Values whose repetition is judged.
_JUDGED = 1 << 18


def noise_level(pictures: Sequence[np.ndarray]) -> float:
    """Standard deviation of white noise: median absolute difference of horizontal neighbours.

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


def limits_of(pictures: Sequence[np.ndarray]) -> Limits:
    """What usable pixels of pictures of one kind can be; no limits where nothing can be said."""
    try:
        noise_std = noise_level(pictures)
    except InputError:  # no noise, no way to tell
        return Limits(-math.inf, math.inf, ())
    values = np.concatenate([picture[np.isfinite(picture)] for picture in pictures])
    stuck = _stuck(pictures, values, noise_std)
    middle = float(np.median(values))
    reach = _FAR * noise_std
    below, above = (_side(pictures, middle, sign * noise_std, stuck) for sign in (-1, 1))
    copies = "copies" in (below, above)  # whatever lies far on the other side may be theirs as well
    low = -math.inf if copies or below == "filled" else middle - reach
    high = math.inf if copies or above == "filled" else middle + reach
    return Limits(low, high, stuck)


def mask_defects(image: np.ndarray) -> np.ndarray:
    """A picture whose dead and hot pixels are NaN; the same array where it has none.

    Before a picture is filtered or binned: afterwards a defect is spread over its neighbours and cannot be told from them.
    """
    bad = limits_of(_squares(image)).bad(image)
    return np.where(bad, image.dtype.type(np.nan), image) if bad.any() else image


def _squares(image: np.ndarray) -> list[np.ndarray]:
    """At most ``SQUARES`` parts of a picture, spread evenly over it."""
    corners = [(i, j) for i in range(0, image.shape[0], SIDE) for j in range(0, image.shape[1], SIDE)]
    return [image[i : i + SIDE, j : j + SIDE] for i, j in corners[:: -(-len(corners) // SQUARES)]]


def _stuck(pictures: Sequence[np.ndarray], values: np.ndarray, noise_std: float) -> tuple[float, ...]:
    """Values that come back too often for continuous data, or lie apart from all others in data of few levels (counts, grey levels)."""
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
    """What lies on one side of the noise: nothing but pixels that look like defects, far and alone; pixels between; or far ones among them.

    Args:
        pictures: see :func:`limits_of`.
        middle: median.
        noise_std: negative: of the pixels below the median.
        stuck: values that are not counted.
    """
    away = [np.where(np.isin(picture, stuck), 0, (picture - middle) / noise_std) for picture in pictures]
    between = sum(int(((one > _EMPTY) & (one <= _FAR)).sum()) for one in away)
    far, alone = _alone([one > _FAR for one in away])
    if between <= _FEW * max(far, 1) + 1 and alone:
        return "apart"
    return "copies" if any((one > _FAR).any() for one in away) else "filled"


def _alone(masks: Sequence[np.ndarray]) -> tuple[int, bool]:
    """How many pixels of masks are in no whole row or column, and whether they have hardly any neighbours among them."""
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
