"""Carbon, ice crystals and other contaminants of a micrograph, found without training as outliers among the particles.

Lengths come in *widths* w, about half a particle. Two maps of the flattened image are judged, bright and dark alike:

- *spots*, a difference of Gaussians of w and 3 w: crystals stand out of it;
- *lines*, a difference of Gaussians of w / 3 and w, clipped at the limit of ordinary heights and averaged along segments (Gaussian
  of 4 w) in the best of sixteen directions: the fringe at an edge of carbon stands out of it, particles average out.

Ordinary heights are those of the extremes of a map: extremes of noise, or of particles where these fill the picture.
Foreign are pixels far above the median of the ordinary heights (``_HIGH``), with their surroundings down to ``_LOW`` (hysteresis).
Extremes of one kind, many or a few of similar height, are particles in a nearly empty picture: their heights become the
ordinary ones, and the map is judged again.

A line may cut the picture in two. The smaller part is carbon if its grey value or variance differs from that of the other
part. Where carbon covers most of the picture, the hole is mistaken for carbon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from .background import gaussian_background, polynomial_background

#: Thresholds of foreign pixels, and of their surroundings: robust standard deviations of the ordinary heights above their
#: median, and multiples of the median. The highest of 10,000 extremes of normal noise lies 5 standard deviations above, at 2.5 medians.
_HIGH, _LOW = (10.0, 2.5), (3.0, 1.4)

#: Pixels of an object reach this share of its height.
_EDGE = 0.3

#: Heights of one kind: at least _MANY; or, in noise, at least _FEW whose ratio is at most _ALIKE and that are below _FAINT medians.
#: Where particles fill the picture, the median of their heights is more than _NOISE times that of the other sign.
_MANY, _FEW, _ALIKE, _FAINT, _NOISE = 16, 3, 2.0, 60.0, 1.3

#: Share of a segment that reaches the limit of ordinary heights, for a line, and for the surroundings of a line.
_SHARE = (0.6, 0.3)

#: Widths: the slow background, half of a segment, the shortest line, the mean breadth of the broadest, the ring that
#: the filter makes around an object, the gap that a line may have, the strips beside a line that are compared, and the side of the
#: largest remnant that is masked together with the objects around it.
_SLOW, _ALONG, _LONG, _BROAD, _RING, _GAP, _STRIP, _SLIVER = 8.0, 4.0, 10.0, 5.0, 5.0, 4.0, 12.0, 5.0

#: Directions of segments.
_DIRECTIONS = 16

#: Standard errors above which two sides of a line differ, and the fewest places of a side that can be compared.
_DIFFERENT, _FEWEST = 6.0, 6

#: Smallest side of a picture in widths, smallest share of usable pixels, and number of rounds of the search.
_SMALLEST, _USABLE, _ROUNDS = 16, 0.1, 5

#: Standard deviation of a normal variable in units of its median absolute deviation.
_MAD_TO_STD = 1.4826


def find_contaminants(image: np.ndarray, width: float) -> np.ndarray:
    """Where a micrograph shows neither particles nor their ice.

    Args:
        image: (H, W) floating point, either sign of contrast; NaN where a pixel is masked already.
        width: half the diameter of a particle, pixels.

    Returns:
        (H, W) bool, with a margin of ``width`` around each object; false everywhere in pictures of less than 16 widths.
    """
    step = max(1, int(width / 3))
    small, w = _reduced(image, step), width / step
    foreign = np.zeros(small.shape, bool)
    if min(small.shape) < _SMALLEST * w:
        return np.zeros(image.shape, bool)
    for _ in range(_ROUNDS):
        seen = _strongest(np.where(foreign, np.float32(np.nan), small), w)
        if not seen.any():
            break
        foreign |= ndimage.distance_transform_edt(~seen) <= w
    if foreign.any():
        foreign |= _behind(foreign, small, w)
    rows, columns = (
        np.minimum(np.arange(n) // step, m - 1) for n, m in zip(image.shape, small.shape, strict=True)
    )
    return np.asarray(foreign[np.ix_(rows, columns)])


def _strongest(image: np.ndarray, w: float) -> np.ndarray:
    """The strongest foreign objects of a picture; weaker ones are judged in the next round, without these."""
    valid = np.isfinite(image)
    if valid.mean() < _USABLE:
        return np.zeros(image.shape, bool)
    image = image - polynomial_background(image, 2)
    flat = np.where(valid, image - gaussian_background(image, _SLOW * w), np.float32(0))
    spots, fine = _band(flat, valid, w), _band(flat, valid, w / 3)
    seen = np.zeros(image.shape, bool)
    around = ndimage.maximum_filter(np.abs(spots), 2 * round(_RING * w) + 1)
    for side in (spots, -spots):
        for one in _objects(side, _ordinary(side, 2 * w, w)):
            # The filter answers a strong object with a ring of the other sign.
            if one.height >= 0.5 * around[one.box][one.pixels].max():
                seen[one.box] |= one.pixels
    if seen.any():  # the rings of a spot would look like lines: lines wait for a round without spots
        return np.asarray(seen & valid)
    ends = max(_ordinary(side, w / 1.5, w).low for side in (fine, -fine))
    for along in _segments(np.clip(fine / ends, -1.0, 1.0), _ALONG * w):
        ordinary = _limits(_heights(along, _ALONG * w))
        limits = _Limits(max(_SHARE[0], ordinary.high), max(_SHARE[1], ordinary.low))
        for one in _objects(along, limits):
            if one.length >= _LONG * w:
                seen[one.box] |= one.pixels
    return np.asarray(seen & valid)


@dataclass(frozen=True)
class _Limits:
    """Thresholds of foreign pixels, and of their surroundings."""

    high: float
    low: float


def _limits(heights: np.ndarray) -> _Limits:
    if not heights.size:
        return _Limits(np.inf, np.inf)
    middle = float(np.median(heights))
    deviation = _MAD_TO_STD * float(np.median(np.abs(heights - middle)))
    return _Limits(*(max(middle + n * deviation, times * middle) for n, times in (_HIGH, _LOW)))


def _ordinary(field: np.ndarray, distance: float, w: float) -> _Limits:
    """Limits from the ordinary heights of a map, or from those of particles where these stand out; lines do not count as particles.

    Args:
        field: the map.
        distance: of its extremes, pixels.
        w: the width.
    """
    heights, others = _heights(field, distance), _heights(-field, distance)
    if not heights.size * others.size:
        return _limits(heights)
    limits, middle, opposite = _limits(heights), float(np.median(heights)), float(np.median(others))
    faint = _FAINT * middle if middle < _NOISE * opposite else 0.0
    for _ in range(3):
        peaks = [
            _heights(np.where(one.pixels, field[one.box], 0), distance)
            for one in _objects(field, limits)
            if one.length < _LONG * w or one.breadth > _BROAD * w
        ]
        heights = np.concatenate([[], *peaks])
        heights = heights[heights >= limits.high]
        if not _are_a_kind(heights, faint):
            break
        limits = _limits(heights)
    return limits


def _are_a_kind(heights: np.ndarray, faint: float) -> bool:
    """Whether heights are those of particles; a few heights only if they are at most ``faint``."""
    if heights.size >= _MANY:
        return True
    return heights.size >= _FEW and float(heights.max()) <= min(faint, _ALIKE * float(heights.min()))


@dataclass(frozen=True, eq=False)
class _Object:
    """A connected part of a map that reaches the high limit.

    Attributes:
        height: of its highest pixel.
        box: slices of the map around it.
        pixels: bool, its pixels in the box.
    """

    height: float
    box: tuple[slice, slice]
    pixels: np.ndarray

    @property
    def length(self) -> int:
        """Longer side of the box."""
        return int(max(self.pixels.shape))

    @property
    def breadth(self) -> float:
        """Pixels per length."""
        return float(self.pixels.sum()) / self.length


def _objects(field: np.ndarray, limits: _Limits) -> list[_Object]:
    if not field.max() >= limits.high:
        return []
    labels, count = ndimage.label(field > limits.low)
    heights = ndimage.maximum(field, labels, np.arange(1, count + 1))
    found = []
    for i, box in enumerate(ndimage.find_objects(labels)):
        if heights[i] >= limits.high:
            pixels = (labels[box] == i + 1) & (field[box] > _EDGE * heights[i])
            found.append(_Object(float(heights[i]), box, pixels))
    return found


def _heights(field: np.ndarray, distance: float) -> np.ndarray:
    """Heights of the positive extremes of a map, none closer than half of ``distance`` to a higher one."""
    size = 2 * max(1, round(distance / 2)) + 1
    top = (field == ndimage.maximum_filter(field, size)) & (field > 0)
    return np.asarray(field[top])


def _behind(foreign: np.ndarray, image: np.ndarray, w: float) -> np.ndarray:
    """Parts of the picture cut off by foreign objects that differ from the largest part, and small remnants between the objects."""
    apart = ndimage.distance_transform_edt(~foreign)
    # A line that fades before the edge of the picture reaches it.
    inside = np.zeros(image.shape, bool)
    rim = round(_ALONG * w)
    inside[rim:-rim, rim:-rim] = True
    labels, count = ndimage.label(apart > np.where(inside, _GAP / 2, _ALONG + 1) * w)
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    labels = np.where(foreign, 0, labels[tuple(nearest)])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    main = 1 + int(np.argmax(sizes[1:])) if count else 0
    texture = image - gaussian_background(image, w)
    grey = gaussian_background(image, w)
    variance = np.log(gaussian_background(texture**2, w) + np.finfo(np.float32).tiny)
    step = max(1, round(3 * w))
    places = np.zeros(image.shape, bool)
    places[step // 2 :: step, step // 2 :: step] = True
    places &= (apart > w) & (apart < _STRIP * w) & np.isfinite(image)
    behind = np.zeros(image.shape, bool)
    for label in range(1, count + 1):
        part = labels == label
        if label == main:
            continue
        here = places & part
        there = places & (labels == main) & (ndimage.distance_transform_edt(~part) < 2 * _STRIP * w)
        if any(_differ(field[here], field[there]) for field in (grey, variance)):
            behind |= part
    # Enclosed remnants, too small for a particle and its surroundings.
    labels, _ = ndimage.label(~(foreign | behind))
    sizes = np.bincount(labels.ravel())
    return np.asarray(behind | (sizes[labels] < (_SLIVER * w) ** 2) & (labels > 0))


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the medians of two samples differ significantly."""
    if min(one.size, other.size) < _FEWEST:
        return False
    squared = 0.0
    for values in (one, other):
        deviation = _MAD_TO_STD * float(np.median(np.abs(values - np.median(values))))
        squared += 0.5 * np.pi * deviation**2 / values.size  # of a median: pi / 2 times that of a mean
    return bool(abs(np.median(one) - np.median(other)) > _DIFFERENT * np.sqrt(squared))


def _segments(field: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """A map averaged along segments of this standard deviation: the highest of all directions, and minus the lowest."""
    pad = int(3 * length)
    rows, columns = field.shape
    shape = tuple(fft.next_fast_len(n + pad, real=True) for n in field.shape)
    spectrum = fft.rfft2(field, shape)
    down, across = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    high = np.full(field.shape, -np.inf)
    low = -high
    for angle in np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS:
        frequency = down * np.sin(angle) + across * np.cos(angle)
        passed = np.exp(-2 * (np.pi * length * frequency) ** 2)
        averaged = fft.irfft2(spectrum * passed, shape)[:rows, :columns]
        np.maximum(high, averaged, out=high)
        np.minimum(low, averaged, out=low)
    return high, -low


def _band(flat: np.ndarray, valid: np.ndarray, width: float) -> np.ndarray:
    """Difference of Gaussians of one and three widths, in robust standard deviations of the valid pixels."""
    band = _gaussian(flat, width) - _gaussian(flat, 3 * width)
    scale = _MAD_TO_STD * float(np.median(np.abs(band[valid])))
    return np.where(valid, band / scale, 0.0) if scale > 0 else np.zeros_like(band)


def _gaussian(field: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(field, width, mode="constant", truncate=3.0))


def _reduced(image: np.ndarray, step: int) -> np.ndarray:
    """Means of the finite pixels of blocks, NaN where most pixels are non-finite; a remainder at the far edges is left out."""
    rows, columns = image.shape[0] // step, image.shape[1] // step
    blocks = image[: rows * step, : columns * step].astype(np.float32).reshape(rows, step, columns, step)
    finite = np.isfinite(blocks)
    count = finite.sum(axis=(1, 3))
    total = np.where(finite, blocks, 0).sum(axis=(1, 3))
    return np.where(2 * count >= step**2, total / np.maximum(count, 1), np.nan).astype(np.float32)
