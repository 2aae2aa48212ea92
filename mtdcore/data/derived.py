"""Measurements derived from another one tile by tile, never held in memory as a whole."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy import fft, ndimage

from .._base.numerics.convolution import wrapped
from .._base.typing import plain
from .measurement import Measurement, Tiles, Viewable
from .tiles import Region, Tile, TileGeometry

#: Sides of the squares around an invalid pixel whose mean replaces it, the widest first, and the share of a square that must be valid.
_WIDTHS, _LEAST = (129, 33, 9), 0.05


@dataclass(frozen=True)
class DerivedMeasurement(Viewable, ABC):
    """Another measurement whose tiles are transformed; shape, dtype, cut and order stay; see :class:`Measurement`.

    Attributes:
        source: the other measurement.
    """

    source: Measurement

    @abstractmethod
    def derive(self, tile: Tile) -> Tile:
        """Transform one tile of the source."""

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
    """A measurement minus a constant, subtracted in float64: counts of 1000 +- 30 lose no digit in float32.

    Attributes:
        offset: the constant, in the units of the measurement.
    """

    offset: float

    @property
    def identity(self) -> tuple[Hashable, ...] | None:
        """Of the pixels, see :class:`.measurement.Tiles`; None: nothing is known of the source."""
        source: tuple[Hashable, ...] | None = getattr(self.source, "identity", None)
        return None if source is None else (*source, self.offset)

    def derive(self, tile: Tile) -> Tile:
        """The tile minus the offset; invalid pixels stay 0."""
        values = np.subtract(tile.values, self.offset, dtype=np.float64).astype(tile.values.dtype)
        if tile.valid is not None:
            values[~tile.valid] = 0
        return replace(tile, values=values)


def without_offset(measurement: Measurement, offset: float) -> Measurement:
    """The measurement minus a constant; the measurement itself if the constant is 0."""
    return WithoutOffset(measurement, offset) if offset else measurement


def as_stored(tiles: Iterable[Tile]) -> tuple[Iterable[Tile], float]:
    """The same tiles before their offset was subtracted, and the offset.

    The offset changes from one E-step to the next, the stored pixels do not: a backend that keeps the stored pixels subtracts
    the offset anew.
    """
    if isinstance(tiles, Tiles) and isinstance(tiles.measurement, WithoutOffset):
        return replace(tiles, measurement=tiles.measurement.source), tiles.measurement.offset
    return tiles, 0.0


@dataclass(frozen=True, eq=False)
class Filtered(DerivedMeasurement):
    """A measurement through a filter, tile by tile.

    A micrograph is continued beyond its edges by its mirror image. The filter takes an invalid pixel as the mean of valid pixels around
    it; the pixel stays invalid.

    Attributes:
        kernel: (2 R + 1, 2 R + 1) float64, its centre in the middle.
    """

    kernel: np.ndarray

    @property
    def identity(self) -> tuple[Hashable, ...] | None:
        """Of the pixels, see :class:`.measurement.Tiles`; None: nothing is known of the source."""
        source: tuple[Hashable, ...] | None = getattr(self.source, "identity", None)
        return None if source is None else (*source, hashlib.blake2b(self.kernel.tobytes()).hexdigest())

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """The filtered tiles of this cut, from wider tiles of the source."""
        for tile in self.source.tiles(self._wide(geometry)):
            read = geometry.read(tile.region.owned, tile.micrograph_shape)
            yield self.derive(replace(tile, region=Region(tile.region.owned, read), geometry=geometry))

    def derive(self, tile: Tile) -> Tile:
        """Filter one tile, whose values may reach beyond its region on each side."""
        reach, shape = self._reach, tile.micrograph_shape
        wide = self._wide(tile.geometry).read(tile.region.owned, shape)
        values = np.asarray(tile.values, np.float32 if self.dtype == np.float32 else np.float64)
        if tile.valid is not None:
            values = np.where(tile.valid, values, _around(values, tile.valid))
        # pixels to add beyond the edges of the micrograph
        beyond = [
            (reach - (r.start - w.start), reach - (w.stop - r.stop))
            for r, w in zip(tile.region.read, wide, strict=True)
        ]
        padded = np.pad(values, beyond, mode="symmetric")
        inner = tuple(
            slice(r.start - w.start, r.stop - w.start) for r, w in zip(tile.region.read, wide, strict=True)
        )
        shape = tuple(fft.next_fast_len(n, real=True) for n in padded.shape)
        factors = fft.rfft2(wrapped(self.kernel, shape).astype(values.dtype))
        whole = fft.irfft2(fft.rfft2(padded, shape) * factors, shape)
        found = np.ascontiguousarray(
            whole[reach : padded.shape[0] - reach, reach : padded.shape[1] - reach], self.dtype
        )
        valid = None if tile.valid is None else np.ascontiguousarray(tile.valid[inner])
        if valid is not None:
            found[~valid] = 0
            valid = None if valid.all() else valid
        return replace(tile, values=found, valid=valid)

    @property
    def _reach(self) -> int:
        return len(self.kernel) // 2

    def _wide(self, geometry: TileGeometry) -> TileGeometry:
        """The cut with its halo enlarged by the reach of the filter."""
        rows, columns = geometry.halos
        return replace(geometry, halo=plain(rows + self._reach, columns + self._reach))


def filtered(measurement: Measurement, kernel: np.ndarray) -> Measurement:
    """The measurement through a filter, (2 R + 1, 2 R + 1) with its centre in the middle."""
    return Filtered(measurement, kernel)


def _around(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """For every pixel the mean of valid pixels in the smallest square around it with enough of them; of all valid pixels where no square has."""
    if not valid.any():
        return np.zeros_like(values)
    filled = np.full_like(values, values[valid].mean(dtype=np.float64))
    for width in _WIDTHS:
        weight = ndimage.uniform_filter(valid.astype(np.float64), width, mode="constant")
        near = ndimage.uniform_filter(np.where(valid, values, 0).astype(np.float64), width, mode="constant")
        known = weight > _LEAST
        filled[known] = near[known] / weight[known]
    return filled


def files_of(measurement: Any) -> list[Path]:
    """Files and folders that a measurement or its source reads; none for one in memory."""
    source = getattr(measurement, "source", None)
    if source is not None:
        return files_of(source)
    micrographs = getattr(measurement, "micrographs", ())
    paths = [getattr(measurement, "path", None), *(getattr(one, "path", None) for one in micrographs)]
    return [path for path in paths if isinstance(path, Path)]
