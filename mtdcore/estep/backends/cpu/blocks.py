"""Blocks of window corners: their side, their cut, and the conversion of their cells (see ``window_kernels``) to arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .lanes.emitter import LANES
from .lanes.fft import relative_cost

#: Largest side of a block (its spectrum then fills a second-level cache), unless the side of the box times _BOXES is larger.
_LARGEST, _BOXES = 320, 4


class Block(NamedTuple):
    """A rectangle of corners."""

    rows: range
    columns: range


#: Second block of the last pair if the number of blocks is odd.
NOTHING = Block(range(0), range(0))


def block_side(scored: tuple[int, int], owned: tuple[int, int], box: int, margin: int, limit: int) -> int:
    """Side N of the cheapest blocks: small blocks overlap more, large ones fit a tile badly.

    Args:
        scored: number of corners of a tile along rows and columns that are scored once.
        owned: number of corners along rows and columns that are scored again and projected.
        box: side L of the templates.
        margin: pixels around the box that the statistics keep.
        limit: N should not exceed this, if possible.
    """
    least = -(-(box + 2 * margin) // LANES) * LANES
    sides = [n for n in range(least, max(_LARGEST, _BOXES * least) + 1, LANES) if relative_cost(n)]

    def cost(side: int) -> float:
        valid = side - box + 1
        transforms = _pairs(scored, valid) + 2 * _pairs(owned, valid - 2 * margin)
        return transforms * side**2 * relative_cost(side)

    return min([n for n in sides if n <= limit] or sides[:1], key=cost)


def pairs(rows: range, columns: range, valid: int) -> list[tuple[Block, Block]]:
    """The corners in blocks of at most ``valid`` x ``valid``, two at a time."""
    blocks = [Block(r, c) for r in _cut(rows, valid) for c in _cut(columns, valid)]
    return list(zip(blocks[::2], [*blocks[1::2], NOTHING], strict=False))


def to_cells(both: np.ndarray) -> np.ndarray:
    """(2, rows, bands * LANES) to 1-D cells, band by band."""
    rows = both.shape[1]
    return np.ascontiguousarray(both.reshape(2, rows, -1, LANES).transpose(2, 1, 0, 3)).reshape(-1)


def from_cells(flat: np.ndarray, rows: int) -> np.ndarray:
    """Inverse of :func:`to_cells`."""
    return np.asarray(flat.reshape(-1, rows, 2, LANES).transpose(2, 1, 0, 3).reshape(2, rows, -1))


def from_space(space: np.ndarray, side: int) -> np.ndarray:
    """(2, N, N) real and imaginary parts of a ``space`` of cells."""
    whole = space.reshape(side, -1, 2, LANES)[:, : side // LANES]
    return np.asarray(whole.transpose(2, 0, 1, 3).reshape(2, side, side))


def _pairs(corners: tuple[int, int], valid: int) -> int:
    """Number of pairs that :func:`pairs` returns."""
    rows, columns = (-(-n // valid) for n in corners)
    return -(-rows * columns // 2)


def _cut(corners: range, valid: int) -> list[range]:
    """As few pieces as possible, of nearly equal lengths."""
    count = -(-len(corners) // valid)
    edges = [corners.start + len(corners) * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(edges)]
