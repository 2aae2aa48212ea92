"""Position of a target in its box according to the prior: to whole pixels, and between them (docs/model.md 9).

The likelihood hardly fixes the position, as the copies move the other way. The restored target does not fix it either: the prior has shaped the
target for its present position. The unregularised statistics of each frame do: with the information h of the frame
(:class:`mtdcore.em.gauge.seen.Seen`) and N the quadratic part of its log-likelihood the frame is worth

    phi(h) = log E exp(<F, h> - <F, N F> / 2)        F from the prior,

its log evidence against pure noise, so that a shift gains nothing by cutting off noise. phi is convex, and its gradient is the posterior mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from ...model.shifts import shift_matrices, translate
from .frames import Offset, crop, widened
from .seen import Restored

Shift = tuple[float, float]

#: Offset in whole pixels, the posterior mean there, and its cost in nats.
Placed = tuple[Offset, np.ndarray, float]

#: Largest number of moves by a pixel.
_MOVES = 6

#: Largest number of sub-pixel steps, the size in pixels of a last step, and the factor by which a step exceeds that of the maximiser.
_STEPS, _LEAST, _LONGER = 10, 0.02, 2.0

#: Fraction of a pixel below which a target is left alone, as the shift is not worth an interpolation.
_LEAST_FRACTION = 0.05

#: Spacing in pixels of the shifts through which a parabola of the correlation is fitted, and the farthest move: beyond it another whole pixel is nearer.
_APART, _FARTHEST = 0.25, 0.75


def likeliest_offset(
    information: np.ndarray,
    restored: Restored,
    image: np.ndarray,
    first: Offset,
    surprise: Callable[[np.ndarray, bool], np.ndarray],
    least: float,
) -> Placed:
    """The frame whose restored image is likeliest, by ascent from a first frame.

    The cost of a frame is the surprise of the prior less the nats by which the image explains the copies. (Integrating phi along the shifts
    would need a score that is a gradient to a few nats in thousands; the scores of networks are not.)

    Args:
        information: (B, B) of the target and a margin around it.
        restored: posterior mean of a frame.
        image: (h, w) target.
        first: where the search begins.
        surprise: nats, up to a constant, of -log density of (A, h, w) images, roughly or exactly.
        least: nats that another frame must gain.
    """
    shape, wide = image.shape, widened(image, information.shape)
    reaches = [(n - m) // 2 for n, m in zip(wide.shape, shape, strict=True)]
    made: dict[Offset, tuple[np.ndarray, float]] = {}

    def costs(offsets: list[Offset], exactly: bool) -> np.ndarray:
        for o in offsets:
            if o not in made:
                made[o] = restored(crop(information, shape, o), crop(wide, shape, o))
        images, nats = zip(*(made[o] for o in offsets), strict=True)
        return np.asarray(surprise(np.stack(images), exactly) - np.array(nats))

    place, cost = first, float(costs([first], True)[0])
    for _ in range(_MOVES):
        row, column = place
        around = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        inside = [o for o in around if all(abs(n) <= reach for n, reach in zip(o, reaches, strict=True))]
        roughly = costs([place, *inside], False)
        best = int(np.argmin(roughly))
        if not best or roughly[best] > roughly[0] - least / 2.0:
            break
        lower = float(costs([inside[best - 1]], True)[0])
        if lower > cost - least:
            break
        place, cost = inside[best - 1], lower
    return place, made[place][0], cost


def likeliest_fraction(information: np.ndarray, restored: Restored, image: np.ndarray) -> Shift:
    """(down, right) in pixels of the shift S near 0 that maximises ``phi(S h)``; (0, 0) if it is too small to matter.

    phi is convex, so from any S' it grows at least as fast as ``<F', S h>``, with F' the posterior mean given ``S' h``. Each step goes twice as far as
    the maximiser of that correlation (minorise and maximise: Hunter and Lange 2004).

    Args:
        information: (h, w) of the frame.
        restored: posterior mean.
        image: (h, w) target.
    """
    place = np.zeros(2)
    for _ in range(_STEPS):
        moved = np.asarray(translate(information, cast(Shift, tuple(place))))
        image, _ = restored(moved, image)
        step = _LONGER * _top(image, information, place)
        place = np.clip(place + step, -_FARTHEST, _FARTHEST)
        if np.abs(step).max() < _LEAST:
            break
    return (float(place[0]), float(place[1])) if np.abs(place).max() > _LEAST_FRACTION else (0.0, 0.0)


def _top(clean: np.ndarray, image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(2,) step from a shift of the image to the vertices of the parabolas through its correlations with the clean image, along each axis."""
    steps = _APART * np.array([-1.0, 0.0, 1.0])
    down, right = (shift_matrices(n, at + steps) for n, at in zip(image.shape, place, strict=True))
    along = np.einsum("iab,bc,dc,ad->i", down, image, right[1], clean, optimize=True)
    across = np.einsum("ab,bc,idc,ad->i", down[1], image, right, clean, optimize=True)
    return np.array([_vertex(along), _vertex(across)])


def _vertex(values: np.ndarray) -> float:
    """Vertex of the parabola through values at -1, 0 and 1 spacings, clipped to one spacing."""
    rise, bend = 0.5 * (values[2] - values[0]), values[0] - 2.0 * values[1] + values[2]
    farthest = _APART * float(np.sign(rise))
    return farthest if bend >= 0.0 or abs(rise) > -bend else float(-_APART * rise / bend)
