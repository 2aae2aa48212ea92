"""The cut of a micrograph into tiles.

A tile *owns* a rectangle of sites (patch pixels or window corners) and *reads* whatever pixels the
posterior of those sites depends on. Owned rectangles partition the micrograph, so the sum over tiles
is the sum over sites. The cut depends on shapes only, never on threads or on storage: results therefore have the
same bits however they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .._base.typing import Array, Lengths, pair, plain

#: Sites along one axis below which a tile is not cut for sharing.
_SMALLEST_SHARE = 256

#: The level of a tile is estimated from every eighth row: it need not be exact, and all rows would cost a pass.
_LEVEL_ROWS = 8


class Region(NamedTuple):
    """One tile of one micrograph: owned sites and pixels to read, as half-open (row, column) ranges."""

    owned: tuple[slice, slice]
    read: tuple[slice, slice]


@dataclass(frozen=True)
class Brightness:
    """Summaries of the pixels of a tile, and the same summaries after a constant is subtracted from the pixels.

    Attributes:
        sampled: of every eighth row, the number of pixels, the number of valid ones, their sum and the sum of their squares.
        lowest: lowest valid pixel; None: there is none.
        highest: highest valid pixel; None: there is none.
        owned: number of valid pixels that the tile alone counts.
        total: sum of the owned valid pixels.
    """

    sampled: tuple[int, int, float, float]
    lowest: float | None
    highest: float | None
    owned: int
    total: float

    @classmethod
    def of(cls, tile: Tile) -> Brightness:
        """The summaries of the pixels as they are, in float64."""
        rows, valid = tile.values[::_LEVEL_ROWS].astype(np.float64), tile.valid
        inside = tile.values if valid is None else tile.values[valid]
        seen = rows.size if valid is None else int(np.count_nonzero(valid[::_LEVEL_ROWS]))
        cut = tile.owned_pixels
        owned = tile.values[cut].size if valid is None else int(np.count_nonzero(valid[cut]))
        # invalid pixels are 0
        return cls(
            (rows.size, seen, float(rows.sum()), float(np.einsum("ij,ij->", rows, rows))),
            float(inside.min()) if inside.size else None,
            float(inside.max()) if inside.size else None,
            owned,
            tile.total,
        )

    def less(self, offset: float) -> dict[str, float]:
        """``level``, ``peak`` and ``total`` of the tile minus a constant, see :class:`Tile`."""
        size, seen, total, squares = self.sampled
        squares = max(squares - 2.0 * offset * total + seen * offset**2, 0.0)
        ends = [abs(end - offset) for end in (self.lowest, self.highest) if end is not None]
        return {
            "level": math.sqrt(squares / size),
            "peak": max(ends, default=0.0),
            "total": self.total - self.owned * offset,
        }


@dataclass(frozen=True)
class Tile:
    """Pixels of one region, as a backend receives them.

    Attributes:
        values: (h, w) floating-point pixels of ``region.read``; finite wherever ``valid`` is true.
        valid: (h, w) bool, or None when every pixel is valid.
        region: the owned sites and the pixels read, in micrograph coordinates.
        micrograph: index of the micrograph in the stack.
        micrograph_shape: (H, W) of the whole micrograph.
        geometry: the cut that this tile is part of.
    """

    values: Array
    valid: Array | None
    region: Region
    micrograph: int
    micrograph_shape: tuple[int, int]
    geometry: TileGeometry

    @cached_property
    def brightness(self) -> Brightness:
        """Summaries of the pixels, for any offset."""
        return Brightness.of(self)

    @cached_property
    def level(self) -> float:
        """Root mean square of the pixels, from every eighth row."""
        values = self.values[::_LEVEL_ROWS]
        return float(np.sqrt(np.einsum("ij,ij->", values, values) / values.size))

    @cached_property
    def peak(self) -> float:
        """Largest absolute pixel."""
        return float(max(self.values.max(), -self.values.min()))

    @cached_property
    def total(self) -> float:
        """Sum of the valid pixels that this tile alone counts, in float64."""
        cut = self.owned_pixels
        pixels = self.values[cut] if self.valid is None else np.where(self.valid[cut], self.values[cut], 0)
        return float(np.sum(pixels, dtype=np.float64))

    @property
    def owned(self) -> tuple[slice, slice]:
        """Owned sites relative to the first pixel of ``values``."""
        (rows, cols), (read_rows, read_cols) = self.region
        return (
            slice(rows.start - read_rows.start, rows.stop - read_rows.start),
            slice(cols.start - read_cols.start, cols.stop - read_cols.start),
        )

    def holds_frames(self, margin: int) -> bool:
        """Whether the windows of the owned corners, with ``margin`` pixels around them, lie inside the micrograph."""
        return all(
            owned.start >= margin and owned.stop + reach + margin <= length
            for owned, reach, length in zip(
                self.region.owned, self.geometry.reaches, self.micrograph_shape, strict=True
            )
        )

    @property
    def owned_pixels(self) -> tuple[slice, slice]:
        """Pixels that this tile alone counts, relative to the first pixel of ``values``; every pixel belongs to one tile.

        Sites are fewer than pixels when ``geometry.reach`` > 0: the last tile of a row or column also
        takes the pixels beyond the last site.
        """
        extent = self.geometry.extent(self.micrograph_shape)
        cut = [
            slice(relative.start, relative.stop + (reach if owned.stop == last else 0))
            for relative, owned, reach, last in zip(
                self.owned, self.region.owned, self.geometry.reaches, extent, strict=True
            )
        ]
        return cut[0], cut[1]


@dataclass(frozen=True)
class TileGeometry:
    """The cut of a likelihood. Lengths are one number, or one along rows and one along columns.

    Attributes:
        side: largest number of sites a tile owns along one axis (a multiple of ``unit``).
        unit: sites come in whole multiples of this (patch side; 1 for windows).
        halo: extra pixels read on each side of the owned sites.
        reach: pixels beyond the last owned site that belong to it (L - 1 for window corners, 0 for patches).
        shares: the number of tiles along one axis is a multiple of this, as long as each keeps 256 sites. Threads then have equal
            shares, where cutting costs nothing.
    """

    side: Lengths
    unit: Lengths
    halo: Lengths
    reach: Lengths
    shares: int = 1

    @property
    def sides(self) -> tuple[int, int]:
        """``side`` along rows and columns."""
        return pair(self.side)

    @property
    def units(self) -> tuple[int, int]:
        """``unit`` along rows and columns."""
        return pair(self.unit)

    @property
    def halos(self) -> tuple[int, int]:
        """``halo`` along rows and columns."""
        return pair(self.halo)

    @property
    def reaches(self) -> tuple[int, int]:
        """``reach`` along rows and columns."""
        return pair(self.reach)

    def extent(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Number of sites along rows and columns of a micrograph of this shape (0 if too small)."""
        rows, cols = (
            max(0, (n - reach) // unit * unit)
            for n, reach, unit in zip(shape, self.reaches, self.units, strict=True)
        )
        return (rows, cols) if rows and cols else (0, 0)

    def sites(self, shape: tuple[int, int, int]) -> int:
        """Number of sites (patches or window corners) of a measurement of this (micrographs, rows, columns) shape."""
        rows, cols = self.extent(shape[1:])
        high, wide = self.units
        return shape[0] * (rows // high) * (cols // wide)

    def unused_pixels(self, shape: tuple[int, int]) -> int:
        """Pixels of the micrograph that no owned site covers (the remainder at the far edges)."""
        rows, cols = self.extent(shape)
        if not rows:
            return shape[0] * shape[1]
        below, right = self.reaches
        return shape[0] * shape[1] - (rows + below) * (cols + right)

    def enlarged(self, pixels: int) -> TileGeometry:
        """The same cut with larger tiles, which read up to ``pixels`` along a side; never smaller than now."""
        rows, columns = (
            max(side, (pixels - 2 * halo - reach) // unit * unit)
            for side, halo, reach, unit in zip(self.sides, self.halos, self.reaches, self.units, strict=True)
        )
        return replace(self, side=plain(rows, columns))

    def regions(self, shape: tuple[int, int], first: int = 0, last: int | None = None) -> Iterator[Region]:
        """Regions ``first .. last - 1`` (all) of a micrograph in row-major order."""
        row_cuts, col_cuts = (self._cuts(n, axis) for axis, n in enumerate(self.extent(shape)))
        count = len(row_cuts) * len(col_cuts)
        for n in range(first, count if last is None else min(last, count)):
            rows, cols = row_cuts[n // len(col_cuts)], col_cuts[n % len(col_cuts)]
            yield Region((rows, cols), (self._read(rows, shape[0], 0), self._read(cols, shape[1], 1)))

    def count(self, shape: tuple[int, int]) -> int:
        """Number of regions of a micrograph of this shape."""
        rows, cols = (len(self._cuts(n, axis)) for axis, n in enumerate(self.extent(shape)))
        return rows * cols

    def largest_read(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the largest region read from a micrograph of this shape."""
        sizes = []
        for axis, (sites, n) in enumerate(zip(self.extent(shape), shape, strict=True)):
            read = [self._read(cut, n, axis) for cut in self._cuts(sites, axis)]
            sizes.append(max((one.stop - one.start for one in read), default=0))
        return sizes[0], sizes[1]

    def _cuts(self, extent: int, axis: int) -> list[slice]:
        """Cuts of nearly equal length, without a sliver at the far edge."""
        unit = self.units[axis]
        units, tiles = extent // unit, -(-extent // self.sides[axis])
        even = -(-tiles // self.shares) * self.shares
        if extent >= even * _SMALLEST_SHARE:
            tiles = min(even, units)
        edges = [unit * (units * i // tiles) for i in range(tiles + 1)] if tiles else []
        return [slice(a, b) for a, b in pairwise(edges)]

    def read(self, owned: tuple[slice, slice], shape: tuple[int, int]) -> tuple[slice, slice]:
        """Pixels that the tile with these owned sites reads from a micrograph of this shape."""
        rows, columns = (
            self._read(cut, n, axis) for axis, (cut, n) in enumerate(zip(owned, shape, strict=True))
        )
        return rows, columns

    def _read(self, owned: slice, length: int, axis: int) -> slice:
        halo, reach = self.halos[axis], self.reaches[axis]
        return slice(max(0, owned.start - halo), min(length, owned.stop + halo + reach))
