"""Measurements made of another one, tile by tile and never in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from .measurement import Measurement, Viewable
from .tiles import Tile, TileGeometry


@dataclass(frozen=True)
class DerivedMeasurement(Viewable, ABC):
    """Another measurement with something done to its tiles; shape, dtype, cut and order stay; see :class:`Measurement`.

    Attributes:
        source: the other measurement.
    """

    source: Measurement

    @abstractmethod
    def derive(self, tile: Tile) -> Tile:
        """What becomes of one tile of the source."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H, W)."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.source.dtype

    def tile_count(self, geometry: TileGeometry) -> int:
        """Number of tiles."""
        return self.source.tile_count(geometry)

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """The derived tiles, in the order of the source."""
        return map(self.derive, self.source.tiles(geometry))

    def split(self, parts: int) -> list[Self]:
        """Consecutive parts."""
        return [replace(self, source=part) for part in self.source.split(parts)]


@dataclass(frozen=True)
class WithoutOffset(DerivedMeasurement):
    """A measurement less a constant, which is taken off in float64: counts of 1000 +- 30 lose no digit in float32.

    Attributes:
        offset: the constant, in the units of the measurement.
    """

    offset: float

    def derive(self, tile: Tile) -> Tile:
        """The tile less the offset; invalid pixels stay 0."""
        values = np.subtract(tile.values, self.offset, dtype=np.float64).astype(tile.values.dtype)
        if tile.valid is not None:
            values[~tile.valid] = 0
        return replace(tile, values=values)


def without_offset(measurement: Measurement, offset: float) -> Measurement:
    """The measurement less a constant; the measurement itself where that is 0."""
    return WithoutOffset(measurement, offset) if offset else measurement


def files_of(measurement: Any) -> list[Path]:
    """Files and folders that a measurement, or what it was made of, reads; none where it lies in memory."""
    source = getattr(measurement, "source", None)
    if source is not None:
        return files_of(source)
    micrographs = getattr(measurement, "micrographs", ())
    paths = [getattr(measurement, "path", None), *(getattr(one, "path", None) for one in micrographs)]
    return [path for path in paths if isinstance(path, Path)]
