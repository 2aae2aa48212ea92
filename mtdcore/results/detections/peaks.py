"""Peaks of the posterior of tiles that are copies, the most probable first, at a minimum separation.

Each tile also scores the corners around those that it owns, and the separation is kept across tiles. So the list does not depend on the
tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..._base.typing import Lengths, plain
from ...data.tiles import Region, Tile
from ...errors import ParameterError
from ...model.likelihood import Likelihood


def check_threshold(threshold: float) -> None:
    """Raise ParameterError unless the threshold is a probability in (0, 1)."""
    if not 0.0 < threshold < 1.0:
        raise ParameterError(f"threshold should be a probability strictly between 0 and 1; got {threshold}.")


def neighbourhood(likelihood: Likelihood, wanted: int) -> tuple[int, int]:
    """Corners up, down and sideways over which the posterior of one copy is summed.

    Args:
        likelihood: two copies at its minimum separation never share any.
        wanted: largest number.
    """
    down, across = (min(wanted, (d - 1) // 2) for d in likelihood.separations)
    return down, across


def halo(likelihood: Likelihood, reaches: tuple[int, int]) -> Lengths:
    """Margin of a likelihood whose tiles can also judge ``reaches`` corners around those that they own."""
    return plain(*(d - 1 + near for d, near in zip(likelihood.separations, reaches, strict=True)))


def grown(tile: Tile, reaches: tuple[int, int]) -> tuple[Tile, tuple[slice, slice]]:
    """The tile owning ``reaches`` more sites on each side, and its former own sites among them."""
    extent = tile.geometry.extent(tile.micrograph_shape)
    own = tile.region.owned
    rows, columns = (
        slice(max(0, s.start - reach), min(n, s.stop + reach))
        for s, n, reach in zip(own, extent, reaches, strict=True)
    )
    core_rows, core_columns = (
        slice(s.start - g.start, s.stop - g.start) for s, g in zip(own, (rows, columns), strict=True)
    )
    wide = replace(tile, region=Region((rows, columns), tile.region.read))
    return wide, (core_rows, core_columns)


def peaks(
    mass: np.ndarray, core: tuple[slice, slice], threshold: float, reaches: tuple[int, int]
) -> Iterator[tuple[int, int, float]]:
    """(row, column, probability) of the local maxima in the core that hold a copy.

    Args:
        mass: (rows, columns) float64 posterior of a copy at each site, all poses together.
        core: the sites whose peaks are wanted.
        threshold: smallest probability.
        reaches: the neighbourhood is 2 reach + 1 corners high, and wide.
    """
    sides = tuple(2 * reach + 1 for reach in reaches)
    around = ndimage.uniform_filter(mass, sides, mode="constant") * math.prod(sides)
    highest = mass == ndimage.maximum_filter(mass, sides, mode="constant")
    top, left = (s.start for s in core)
    for i, j in np.argwhere((highest & (around >= threshold))[core]).tolist():
        yield top + i, left + j, float(around[top + i, left + j])


def apart(positions: np.ndarray, separations: tuple[int, int]) -> np.ndarray:
    """Indices of the corners that no earlier kept corner excludes; (N, 3) rows (micrograph, row, column).

    Kept corners are entered into cells of the separations' sides: a cell holds one at most, and only the nine
    cells around a corner can hold one that excludes it.
    """
    cells: dict[tuple[int, int, int], tuple[int, int]] = {}
    kept, (down, across) = [], separations
    for index, (micrograph, row, column) in enumerate(positions.tolist()):
        i, j = row // down, column // across
        near = (cells.get((micrograph, i + a, j + b)) for a in (-1, 0, 1) for b in (-1, 0, 1))
        if all(abs(row - p[0]) >= down or abs(column - p[1]) >= across for p in near if p is not None):
            cells[micrograph, i, j] = (row, column)
            kept.append(index)
    return np.array(kept, dtype=np.int64)
