"""Borders without measured pixels: constant, or smeared by an earlier shift, rotation or filter of the micrograph."""

from __future__ import annotations

import numpy as np

#: A line repeats its neighbour if their mean difference is below this share of the typical one.
_REPEATS = 0.2

#: Largest share of a side that can be border, and the shortest side whose lines are judged.
_MOST, _SHORTEST = 0.25, 32


def find_borders(image: np.ndarray) -> np.ndarray:
    """Rows and columns along the edges that are constant, or repeat the next line inwards.

    Args:
        image: (H, W) pixels as stored, not filtered; non-finite pixels are ignored. In an image without noise nothing is found.

    Returns:
        (H, W) bool.
    """
    found = np.zeros(image.shape, bool)
    for lines, seen in ((image, found), (image.T, found.T)):
        lines = np.asarray(lines, np.float32)
        count = len(lines)
        if count < _SHORTEST or lines.shape[1] < _SHORTEST:
            continue
        across, along = _mean(np.diff(lines, axis=0)), _mean(np.diff(lines, axis=1))
        # A picture may vary more along rows than along columns: each kind of difference has its own typical size.
        typical_across, typical_along = np.median(across), np.median(along)
        if not (0 < typical_across < np.inf and 0 < typical_along < np.inf):
            continue
        smeared, constant = across < _REPEATS * typical_across, along < _REPEATS * typical_along
        most = int(_MOST * count)
        near = _run(smeared | constant[:-1], most)
        far = _run(smeared[::-1] | constant[1:][::-1], most)
        seen[:near] = True
        seen[count - far :] = True
    return found


def _mean(differences: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each line over its finite pixels; infinite where there is none."""
    finite = np.isfinite(differences)
    total = np.where(finite, np.abs(differences), 0).sum(axis=1, dtype=np.float64)
    count = finite.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def _run(bad: np.ndarray, most: int) -> int:
    """Length of the run of true values at the start; 0 if it is longer than ``most`` and thus no border."""
    good = np.flatnonzero(~bad)
    length = int(good[0]) if good.size else len(bad)
    return length if length <= most else 0
