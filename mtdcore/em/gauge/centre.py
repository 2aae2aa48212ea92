"""Centring of the target in its box: roughly for all views, exactly if copies lie at any angle.

Without a prior only :class:`CentreGauge` frees an object that began near an edge of the box and is cut off there.

Copies turn about the centre of the box. If the target is off centre by u, its copies are off by ``R_k u``, another fraction of
a pixel at each angle, while corners are whole pixels, so that the target blurs itself. EM hardly moves such a target, as each
copy has settled on the nearest corner. So shifts of the whole target are tried, and the likelihood decides. (At right angles
alone a shift by a whole pixel costs nothing, and the prior decides: see :mod:`mtdcore.em.gauge.prior`.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ...model.shifts import translate
from .extent import bright
from .frames import centre_of_mass, crop, recentring, widened
from .seen import Gauge, Seen

Shift = tuple[float, float]

#: Steps of the search in pixels. The first is a whole pixel, because the gain has a valley at half a pixel.
_STEPS = (1.0, 0.5, 0.25)

#: Largest number of moves per step.
_MOVES = 3

#: A move must gain this many nats.
_LEAST_GAIN = 1.0

#: Shifts in pixels, below the first or beyond the second, that :class:`BetweenPixels` leaves alone: too small to matter, or of a target not yet centred.
_LEAST_FRACTION, _FARTHEST = 0.1, 1.0

#: Distance in pixels from the middle that :class:`CentreGauge` leaves alone: the centre of mass of an object moves a little at every iteration. The
#: soft edge of a disc that cuts the target is two pixels wide.
_SLACK = 1

_AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
_BESIDE = [(i, j) for i, j in _AROUND if not (i and j)]


@dataclass(frozen=True)
class CentreGauge:
    """Moves the centre of mass of the bright pixels to the middle of the box, without rotation. A :class:`mtdcore.em.gauge.seen.Gauge` without prior."""

    def choose(self, target: np.ndarray, seen: Seen) -> np.ndarray:
        """The (L, L) target, moved by whole pixels; pixels that enter the box are 0, and the next iterations fill them.

        Args:
            target: (L, L).
            seen: by the copies; only its size is used, since no move is larger than the margin.
        """
        padded, (height, width) = widened(target, seen.average.shape), target.shape
        offset = recentring(bright(padded), target.shape, ((height - 1) / 2, (width - 1) / 2))
        return target if max(map(abs, offset)) <= _SLACK else crop(padded, target.shape, offset)


@dataclass(frozen=True)
class BetweenPixels:
    """Another gauge of whole pixels, followed by the fractional shift that centres the bright pixels in the box.

    If copies lie between pixels, the target may as well; the positions of the copies are then those of its middle.

    Attributes:
        gauge: the gauge of whole pixels.
    """

    gauge: Gauge

    def choose(self, target: np.ndarray, seen: Seen) -> np.ndarray:
        """The (L, L) target of the other gauge, moved by half a pixel at most; arguments as in :class:`mtdcore.em.gauge.seen.Gauge`."""
        image = self.gauge.choose(target, seen)
        masses = centre_of_mass(bright(image))
        down, right = ((n - 1) / 2 - mass for n, mass in zip(image.shape, masses, strict=True))
        near = _LEAST_FRACTION < max(abs(down), abs(right)) < _FARTHEST
        if not near:
            return image
        shift = float(np.clip(down, -0.5, 0.5)), float(np.clip(right, -0.5, 0.5))
        return np.asarray(translate(image, shift))


def centred(target: np.ndarray, gain: Callable[[np.ndarray], float]) -> np.ndarray:
    """The target shifted to where its gain is largest: a pattern search (Hooke and Jeeves 1961).

    The search starts at the present position, or, if that gains more, with the centre of mass in the middle of the box or
    one pixel from it.

    Args:
        target: (L, L).
        gain: nats of an (L, L) target: its expected log-likelihood.

    Returns:
        (L, L); the target itself when no shift gains anything.
    """

    @cache  # steps of one length return to the same shifts
    def gained(place: Shift) -> float:
        return gain(translate(target, place) if any(place) else target)

    place = (0.0, 0.0)
    row, column = (
        float(round((n - 1) / 2 - mass)) for n, mass in zip(target.shape, centre_of_mass(target), strict=True)
    )
    if (row, column) != (0.0, 0.0):
        place = _better(gained, place, [(row, column), *_moved((row, column), 1.0, _AROUND)])
    for step in _STEPS:
        for _ in range(_MOVES):
            before = place
            near = _moved(place, step, _AROUND if step == 1.0 else _BESIDE)
            place = _better(gained, place, near)
            if place == before:
                break
    return target if place == (0.0, 0.0) else translate(target, place)


def _moved(place: Shift, step: float, moves: list[tuple[int, int]]) -> list[Shift]:
    return [(place[0] + step * i, place[1] + step * j) for i, j in moves]


def _better(gained: Callable[[Shift], float], place: Shift, shifts: list[Shift]) -> Shift:
    """The best of some shifts, or ``place`` if none is better."""
    top = max(shifts, key=gained)
    return top if gained(top) > gained(place) + _LEAST_GAIN else place
