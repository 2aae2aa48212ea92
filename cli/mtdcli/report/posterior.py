"""The posterior of one tile as a picture: probability of a copy per corner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mtdcore.data.tiles import Tile


def occupancy(tile: Tile, weights: np.ndarray, box_size: int) -> np.ndarray:
    """(h, w) posterior probability of a copy in any rotation with its corner at each pixel of a tile.

    Args:
        tile: (h, w) pixels.
        weights: its posterior, from :meth:`mtdcore.estep.backends.Backend.posterior` of either likelihood.
        box_size: side L.
    """
    if weights.ndim == 3:
        return _place(weights.sum(0), tile)
    return _unfold(weights.sum(2), box_size, tile.values.shape)


def _place(weights: np.ndarray, tile: Tile) -> np.ndarray:
    """Weights of the owned corners on a map of the whole tile."""
    whole = np.zeros(tile.values.shape, dtype=np.float32)
    whole[tile.owned] = weights
    return whole


def _unfold(weights: np.ndarray, box_size: int, shape: tuple[int, ...]) -> np.ndarray:
    """(patch rows, patch columns, 2L, 2L) weights over shifts -> largest weight per corner, (h, w).

    Shift l puts the corner at l in the patch, or at l - 2L when l > L; l = L shows nothing (docs/model.md 3).
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
