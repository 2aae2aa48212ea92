"""The posterior of one tile as a picture: probability of a copy per corner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtdcore._base.typing import Lengths, pair

if TYPE_CHECKING:
    from mtdcore.data.tiles import Tile


def occupancy(tile: Tile, weights: np.ndarray, box: Lengths) -> np.ndarray:
    """(h, w) posterior probability of a copy in any rotation with its corner at each pixel of a tile.

    Args:
        tile: (h, w) pixels.
        weights: its posterior, from :meth:`mtdcore.estep.backends.Backend.posterior` of either likelihood.
        box: side of the templates, or (h, w).
    """
    if weights.ndim == 3:
        return _place(weights.sum(0), tile)
    return _unfold(weights.sum(2), pair(box), tile.values.shape)


def _place(weights: np.ndarray, tile: Tile) -> np.ndarray:
    """Weights of the owned corners on a map of the whole tile."""
    whole = np.zeros(tile.values.shape, dtype=np.float32)
    whole[tile.owned] = weights
    return whole


def _unfold(weights: np.ndarray, box: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """(patch rows, patch columns, 2h, 2w) weights over shifts -> largest weight per corner, (h, w).

    Along a side of L pixels shift l puts the corner at l in the patch, or at l - 2L when l > L; l = L stands for an empty patch
    (docs/model.md 3).
    Neighbouring patches weigh the parts of one copy independently; the largest of their weights is drawn.
    """
    rows, cols = weights.shape[:2]
    high, wide = box
    down, across = (np.r_[n + 1 : 2 * n, 0:n] for n in box)  # corners -(L - 1) .. L - 1 of the patch
    windows = weights[:, :, down[:, None], across[None, :]]
    whole = np.zeros((shape[0] + 2 * (high - 1), shape[1] + 2 * (wide - 1)), dtype=np.float32)
    for i in range(rows):
        for j in range(cols):
            part = whole[i * high : i * high + len(down), j * wide : j * wide + len(across)]
            np.maximum(part, windows[i, j], out=part)
    return whole[high - 1 : high - 1 + shape[0], wide - 1 : wide - 1 + shape[1]]
