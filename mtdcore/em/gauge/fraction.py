"""The fraction of a pixel by which a target is off, as the prior sees it (docs/model.md 9).

Where copies lie between pixels the likelihood does not know it. The denoised target does not either: it seems best where it is, the
denoiser has seen to that. The aligned average, noise and all, does.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from ...model.priors import Prior, denoise
from ...model.shifts import shift_matrices, translate

Shift = tuple[float, float]

#: Steps at most, the size in pixels below which one is the last, and how much longer than the maximiser's they are.
_STEPS, _LEAST, _LONGER = 10, 0.02, 2.0

#: Distance in pixels of the shifts between which the correlation is a parabola, and the farthest move: beyond, another whole pixel is nearer.
_APART, _FARTHEST = 0.25, 0.75


def likeliest_fraction(average: np.ndarray, prior: Prior, level: float) -> Shift:
    """(down, right) in pixels of the shift S at which an average is likeliest, near 0.

    ``phi(y) = log p_level(y) + ||y||^2 / (2 level^2)`` weighs the prior against nothing but noise, so that what a shift takes off the noise
    is no gain. It is convex, with the denoised image over ``level^2`` as its slope, so ``phi(S y)`` grows at least as
    ``<D(S' y), S y> / level^2`` does from any S'. Each step maximises that correlation (minorise and maximise: Hunter and Lange 2004), and goes
    twice as far.

    Args:
        average: (h, w) average without prior.
        prior: over images in the units of the average.
        level: noise level of the average, positive.
    """
    place = np.zeros(2)
    for _ in range(_STEPS):
        clean = denoise(prior, np.asarray(translate(average, cast(Shift, tuple(place))))[None], level)[0]
        step = _LONGER * _top(clean, average, place)
        place = np.clip(place + step, -_FARTHEST, _FARTHEST)
        if np.abs(step).max() < _LEAST:
            break
    return float(place[0]), float(place[1])


def _top(clean: np.ndarray, image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(2,) from a shift of the image to the top of the parabolas through its correlations with a clean one, along each axis."""
    steps = _APART * np.array([-1.0, 0.0, 1.0])
    down, right = (shift_matrices(n, at + steps) for n, at in zip(image.shape, place, strict=True))
    along = np.einsum("iab,bc,dc,ad->i", down, image, right[1], clean, optimize=True)
    across = np.einsum("ab,bc,idc,ad->i", down[1], image, right, clean, optimize=True)
    return np.array([_vertex(along), _vertex(across)])


def _vertex(values: np.ndarray) -> float:
    """Of a parabola through values at -1, 0 and 1 times the distance apart, no farther than that."""
    rise, bend = 0.5 * (values[2] - values[0]), values[0] - 2.0 * values[1] + values[2]
    farthest = _APART * float(np.sign(rise))
    return farthest if bend >= 0.0 or abs(rise) > -bend else float(-_APART * rise / bend)
