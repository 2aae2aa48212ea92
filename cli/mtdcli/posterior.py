"""The posterior of one tile as a picture: probability per corner, and the copies one would read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from mtdcore.likelihood import Likelihood, Tile

#: A copy is drawn when the corners around a peak hold at least this much posterior mass.
_THRESHOLD = 0.5


@dataclass(frozen=True)
class PosteriorView:
    """What the posterior says about the pixels of one tile.

    Attributes:
        values: (h, w) pixels of the tile; NaN where the measurement is masked.
        best: (h, w) posterior of the best rotation with its corner at that pixel.
        corners: (n, 2) row and column of the copies found, in pixels of ``values``.

    """

    values: np.ndarray
    best: np.ndarray
    corners: np.ndarray


def view(tile: Tile, weights: np.ndarray, likelihood: Likelihood) -> PosteriorView:
    """Lay the posterior of a tile (:meth:`mtdcore.backends.Backend.posterior`) over its pixels."""
    values = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
    if weights.ndim == 3:
        best, mass = _place(weights.max(0), tile), _place(weights.sum(0), tile)
    else:
        box = likelihood.box_size
        best, mass = (_unfold(w, box, values.shape) for w in (weights.max(2), weights.sum(2)))
    separation = getattr(likelihood, "separation", likelihood.box_size)
    return PosteriorView(np.asarray(values), best, peaks(mass, separation))


def peaks(mass: np.ndarray, separation: int) -> np.ndarray:
    """(n, 2) local maxima of a map of posterior mass, at least ``separation`` apart, that hold a copy.

    A copy's posterior spreads over neighbouring corners, so the mass of the 3 x 3 corners around a peak counts.
    """
    around = ndimage.uniform_filter(mass.astype(np.float64), 3, mode="constant") * 9
    highest = ndimage.maximum_filter(mass, 2 * separation - 1, mode="constant")
    return np.argwhere((around >= _THRESHOLD) & (mass == highest))


def _place(weights: np.ndarray, tile: Tile) -> np.ndarray:
    """Weights of the owned corners on a map of the whole tile."""
    whole = np.zeros(tile.values.shape, dtype=np.float32)
    whole[tile.owned] = weights
    return whole


def _unfold(weights: np.ndarray, box_size: int, shape: tuple[int, ...]) -> np.ndarray:
    """(patch rows, patch columns, 2L, 2L) weights over shifts -> largest weight per corner, (h, w).

    Shift l puts the corner at l in the patch, or at l - 2L when l > L; l = L shows nothing (SPEC 3).
    Neighbouring patches judge the parts of one copy independently, so the surest of them is drawn.
    """
    rows, cols = weights.shape[:2]
    side = 2 * box_size - 1
    order = np.r_[box_size + 1 : 2 * box_size, 0:box_size]  # corners -(L - 1) .. L - 1 of the patch
    windows = weights[:, :, order[:, None], order[None, :]]
    margin = box_size - 1
    whole = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), dtype=np.float32)
    for i in range(rows):
        for j in range(cols):
            part = whole[i * box_size : i * box_size + side, j * box_size : j * box_size + side]
            np.maximum(part, windows[i, j], out=part)
    return whole[margin : margin + shape[0], margin : margin + shape[1]]
