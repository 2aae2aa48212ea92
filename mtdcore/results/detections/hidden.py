"""Tiles in which a later round of detection may find a copy that others hid; most tiles need not be scored again."""

from __future__ import annotations

import math

import numpy as np

from ...estep.posteriors import Chances
from ...model.likelihood import Likelihood

#: Side of the blocks of corners that are stored, and largest number of blocks in all.
_BLOCK, _ROOM = 4, 1 << 21

#: Factor on the threshold that allows for rounding in a sum of probabilities.
_NEARLY = 0.99


class Hidden:
    """Corners at which a later round may find a copy: so likely before corners compete that they can be part of a peak.

    If copies at the minimum separation do not overlap, known copies do not contribute to the boxes of others. So the log-odds of corners that known
    copies do not exclude stay the same, and a tile in which every likely corner is excluded holds no further copy.

    Args:
        likelihood: window model.
        threshold: smallest probability of a copy.
        reaches: of the neighbourhood that it is summed over.
    """

    def __init__(self, likelihood: Likelihood, threshold: float, reaches: tuple[int, int]) -> None:
        self._apart = np.array(likelihood.separations)
        self._stays = bool((self._apart >= likelihood.views.box_shape).all())
        self._least = math.log(_NEARLY * threshold / math.prod(2 * reach + 1 for reach in reaches))
        self._blocks: dict[int, np.ndarray] = {}
        self._room = _ROOM

    def keep(self, number: int, chances: Chances) -> None:
        """Store the likely corners of a tile, if there is room."""
        if not self._stays:
            return
        likely = chances.log_odds >= self._least
        high, wide = (-(-n // _BLOCK) for n in likely.shape)
        padded = np.zeros((high * _BLOCK, wide * _BLOCK), bool)
        padded[: likely.shape[0], : likely.shape[1]] = likely
        some = padded.reshape(high, _BLOCK, wide, _BLOCK).any(axis=(1, 3))
        first = [s.start for s in chances.tile.region.owned]
        blocks = (np.argwhere(some) * _BLOCK + first).astype(np.int32)
        self._room += len(self._blocks.pop(number, blocks[:0])) - len(blocks)
        if self._room >= 0:
            self._blocks[number] = blocks
        else:
            self._room += len(blocks)

    def may_be_in(self, number: int, copies: np.ndarray) -> bool:
        """Whether a tile may hold a further copy beside known copies, (N, 2) rows (row, column) of the corners in its micrograph."""
        left = self._blocks.get(number)
        if left is None:
            return True
        if not len(left):
            return False
        within = (copies >= left.min(axis=0) - self._apart) & (copies <= left.max(axis=0) + self._apart)
        for copy in copies[within.all(axis=1)]:
            far = np.maximum(np.abs(left - copy), np.abs(left + (_BLOCK - 1) - copy))
            left = left[(far >= self._apart).any(axis=1)]
        return bool(len(left))
