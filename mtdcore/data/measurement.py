"""The interface of a measurement (shape, dtype, tiles in a fixed order), and the code that all kinds share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Protocol, Self, TypeAlias
from uuid import uuid4

import numpy as np

from ..errors import InputError, ParameterError
from .tiles import Region, Tile, TileGeometry


class Measurement(Protocol):
    """A stack of equally shaped micrographs, in memory or on disk.

    Measurements are picklable and cheap to send: one that lives on disk holds its path, never an open handle.

    Attributes:
        shape: (micrographs, H, W).
        dtype: dtype of the tiles it yields, float32 or float64.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H, W)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        ...

    def tile_count(self, geometry: TileGeometry) -> int:
        """Number of tiles that :meth:`tiles` yields."""
        ...

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Host tiles: micrograph by micrograph, each in the row-major order of ``geometry.regions``.

        Invalid pixels (non-finite, or masked by the user) are marked and set to 0 in ``Tile.values``, which is
        always a fresh, writable, C-contiguous array; the measurement itself is never written to.
        """
        ...

    def split(self, parts: int) -> list[Self]:
        """``parts`` measurements whose tiles, one after another, are the tiles of this one.

        Part i of n yields tiles ``[i * N // n, (i + 1) * N // n)`` of the N tiles of a geometry; ``shape`` stays
        that of the whole, so a likelihood bound to one part fits every part.
        """
        ...


@dataclass(frozen=True)
class Tiles:
    """The tiles of a measurement, which can be iterated repeatedly.

    Attributes:
        measurement: their source.
        geometry: the cut.
    """

    measurement: Measurement
    geometry: TileGeometry

    def __iter__(self) -> Iterator[Tile]:
        return self.measurement.tiles(self.geometry)

    @property
    def identity(self) -> tuple[Hashable, ...] | None:
        """Key of the tiles: equal keys mean equal tiles, so that cached tiles can be reused; None: unknown."""
        source = getattr(self.measurement, "identity", None)
        return None if source is None else (*source, self.geometry)


#: Called with a micrograph and regions of it in order; yields the pixels that each reads, in any real dtype, NaN where
#: a pixel cannot be read. An array that owns its memory passes to the tile, any other is copied.
Reader: TypeAlias = Callable[[int, Sequence[Region]], Iterator[np.ndarray]]


#: A cut whose tiles read every pixel exactly once.
_WHOLE = TileGeometry(side=1024, unit=1, halo=0, reach=0)


def whole(measurement: Measurement) -> np.ndarray:
    """All pixels of a measurement, in memory: (H, W) of one micrograph, (micrographs, H, W) of several; NaN where invalid."""
    pixels = np.full(measurement.shape, np.nan, measurement.dtype)
    for tile in measurement.tiles(_WHOLE):
        pixels[tile.micrograph][tile.region.read] = _usable(tile)
    return pixels[0] if len(pixels) == 1 else pixels


def micrograph(measurement: Measurement, index: int) -> np.ndarray:
    """(H, W) pixels of one micrograph, NaN where invalid; no other micrograph is read.

    Args:
        measurement: a whole measurement, not a part made by ``split``.
        index: of the micrograph, from 0.
    """
    count, *sides = measurement.shape
    pixels = np.full(sides, np.nan, measurement.dtype)
    for tile in measurement.split(count)[index].tiles(_WHOLE):
        pixels[tile.region.read] = _usable(tile)
    return pixels


def _usable(tile: Tile) -> np.ndarray:
    """The pixels of a tile, NaN where invalid."""
    return tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)


class Viewable:
    """A measurement that NumPy and matplotlib take as an array, see :func:`whole`."""

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All pixels; ``np.asarray(measurement)``."""
        if copy is False:
            raise ValueError(
                "the pixels of a measurement cannot be had without a copy: they are put together from tiles."
            )
        return whole(self).astype(dtype or self.dtype, copy=False)  # type: ignore[arg-type,attr-defined]


class TiledMeasurement(Viewable, ABC):
    """Cutting, masking and splitting; a subclass says where pixels come from (:meth:`_reader`).

    Args:
        shape: (H, W) or (micrographs, H, W) of the stored pixels; (N,), a signal, is a single row.
        dtype: dtype of the stored pixels, integer or real.
        mask: (H, W) for every micrograph, (micrographs, H, W), or (N,) for a signal; true where a pixel may be used. None: everywhere.

    Raises:
        InputError: pixels that are not real numbers, a wrong number of axes, or a mask of another shape.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, mask: np.ndarray | None = None) -> None:
        if dtype.kind not in "iuf":
            raise InputError(f"a measurement needs integer or real pixels; got dtype {dtype}.")
        if len(shape) not in (1, 2, 3) or shape == (0,):
            raise InputError(
                "expected a signal (N,), one micrograph (H, W) or a stack (micrographs, H, W); got an array of shape "
                f"{shape}."
            )
        count, height, width = (*(1,) * (3 - len(shape)), *shape)
        self._shape = (count, height, width)
        # The smallest of the two dtypes that holds every stored value (float16 and short integers fit float32).
        lossless = np.result_type(dtype, np.float32).newbyteorder("=")
        self._dtype = lossless if lossless == np.float32 else np.dtype(np.float64)
        self._mask = None if mask is None else self._stack_mask(np.asarray(mask))
        self._parts: tuple[tuple[int, int], ...] = ()
        self._name = uuid4().hex

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """Key of the pixels, which must not change while a measurement is in use; keys of copies and parts begin with the name of their origin."""
        return self._name, self._parts

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H, W) of the whole measurement, also for a part of it."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """Tiles are float32, or float64 where the stored pixels need it."""
        return self._dtype

    def tile_count(self, geometry: TileGeometry) -> int:
        """Number of tiles that :meth:`tiles` yields."""
        first, last = self._range(geometry)
        return last - first

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Tiles of this measurement or part; see :class:`Measurement`."""
        read = self._reader()
        for micrograph, group in groupby(self._regions(geometry), key=itemgetter(0)):
            regions = [region for _, region in group]
            for region, pixels in zip(regions, read(micrograph, regions), strict=True):
                fresh = None if pixels.flags.owndata else True  # an array that owns its memory needs no copy
                values = np.array(pixels, dtype=self._dtype, order="C", copy=fresh)
                valid = self._valid(micrograph, region, values)
                yield Tile(values, valid, region, micrograph, self._shape[1:], geometry)

    def split(self, parts: int) -> list[Self]:
        """Consecutive parts; see :class:`Measurement`."""
        if parts < 1:
            raise ParameterError(f"a measurement splits into at least 1 part; got {parts}.")
        pieces = [copy.copy(self) for _ in range(parts)]
        for i, piece in enumerate(pieces):
            piece._parts = (*self._parts, (i, parts))
        return pieces

    @abstractmethod
    def _reader(self) -> Reader:
        """The reader of the pixels for one pass over the tiles."""

    def _valid(self, micrograph: int, region: Region, values: np.ndarray) -> np.ndarray | None:
        """Where the pixels may be used, None: everywhere; invalid ``values`` are set to 0."""
        valid: np.ndarray = np.isfinite(values)
        if self._mask is not None:
            valid &= self._mask[micrograph][region.read]
        if valid.all():
            return None
        values[~valid] = 0
        return valid

    def _regions(self, geometry: TileGeometry) -> Iterator[tuple[int, Region]]:
        first, last = self._range(geometry)
        count = geometry.count(self._shape[1:])
        for micrograph in range(first // count, -(-last // count)) if count else ():
            start = micrograph * count
            for region in geometry.regions(self._shape[1:], max(0, first - start), last - start):
                yield micrograph, region

    def _range(self, geometry: TileGeometry) -> tuple[int, int]:
        """First and last + 1 of this part among the tiles of the whole measurement."""
        first, last = 0, self._shape[0] * geometry.count(self._shape[1:])
        for i, parts in self._parts:
            count = last - first
            first, last = first + i * count // parts, first + (i + 1) * count // parts
        return first, last

    def _stack_mask(self, mask: np.ndarray) -> np.ndarray:
        mask = np.atleast_2d(mask)
        if mask.dtype != np.bool_ or mask.shape not in (self._shape, self._shape[1:]):
            raise InputError(
                f"the mask must be boolean (true where a pixel may be used) of shape {self._shape[1:]} or {self._shape}; "
                f"got {mask.dtype} of shape {mask.shape}."
            )
        return np.broadcast_to(mask, self._shape)
