"""A measurement binned by block means, computed tile by tile and never held in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .._base.typing import plain
from ..errors import ParameterError
from .measurement import Measurement, Viewable
from .tiles import Region, Tile, TileGeometry


@dataclass(frozen=True)
class BinnedMeasurement(Viewable):
    """Means over blocks of another measurement, computed tile by tile; see :class:`Measurement`.

    White noise of standard deviation sigma becomes white noise of sigma / factor. A block with an invalid pixel is
    invalid; rows and columns beyond the last whole block are left out.

    Attributes:
        source: the other measurement.
        factor: side f of a block in pixels.

    Raises:
        ParameterError: no block of this side fits the micrographs.
    """

    source: Measurement
    factor: int

    def __post_init__(self) -> None:
        if not 1 <= self.factor <= min(self.source.shape[1:]):
            raise ParameterError(
                f"a block needs a side between 1 and that of the micrographs {self.source.shape[1:]}; got {self.factor}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H // f, W // f)."""
        count, height, width = self.source.shape
        return count, height // self.factor, width // self.factor

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.source.dtype

    def tile_count(self, geometry: TileGeometry) -> int:
        """Number of tiles."""
        return self.source.tile_count(self._fine(geometry))

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Tiles of blocks, in the order of the source."""
        coarse = replace(geometry, shares=1)
        for tile in self.source.tiles(self._fine(geometry)):
            owned, read = ((self._blocks(rows), self._blocks(columns)) for rows, columns in tile.region)
            size = tuple(s.stop - s.start for s in read)
            values = self._cut(tile.values, size).mean(axis=(1, 3), dtype=tile.values.dtype)
            valid = None if tile.valid is None else self._cut(tile.valid, size).all(axis=(1, 3))
            if valid is not None:
                values[~valid] = 0
            yield Tile(values, valid, Region(owned, read), tile.micrograph, self.shape[1:], coarse)

    def split(self, parts: int) -> list[Self]:
        """Consecutive parts."""
        return [replace(self, source=part) for part in self.source.split(parts)]

    def _fine(self, geometry: TileGeometry) -> TileGeometry:
        """The cut of the source in fine pixels; ``shares``, whose limit of 256 sites does not scale, is left out."""
        f = self.factor
        side, unit, halo, reach = (
            plain(f * rows, f * columns)
            for rows, columns in (geometry.sides, geometry.units, geometry.halos, geometry.reaches)
        )
        return TileGeometry(side, unit, halo, reach)

    def _blocks(self, pixels: slice) -> slice:
        return slice(pixels.start // self.factor, pixels.stop // self.factor)

    def _cut(self, array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """(rows, f, columns, f) view without the pixels beyond the last whole block."""
        f, (rows, columns) = self.factor, size
        return array[: rows * f, : columns * f].reshape(rows, f, columns, f)
