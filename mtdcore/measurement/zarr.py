"""Measurements on disk as Zarr arrays (formats 2 and 3, sharded or not), streamed chunk by chunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..likelihood import Tile, TileGeometry
from ._zarr_store import ChunkDamaged, ChunkMissing, StoredArray
from .base import Reader, TiledMeasurement
from .prefetch import prefetched

#: Decoded chunks kept in memory by one pass over the tiles. Tiles overlap, so a chunk is needed by a few
#: neighbours; one that has left the cache is simply decoded again.
CACHE_BYTES = 32 << 20

_TILES_AHEAD = 2


class BadChunk(NamedTuple):
    """A chunk that could not be used.

    Attributes:
        key: name of what stores it, relative to the array (of a sharded array: the shard).
        micrograph: index of the micrograph.
        rows: first and last + 1 pixel row.
        columns: first and last + 1 pixel column.
        reason: "missing", or what went wrong in decoding it.
    """

    key: str
    micrograph: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    reason: str

    def __str__(self) -> str:
        rows, columns = (f"{a}:{b}" for a, b in (self.rows, self.columns))
        return f"{self.key} [micrograph {self.micrograph}, rows {rows}, columns {columns}] {self.reason}"


class ZarrMeasurement(TiledMeasurement):
    """A Zarr array in a local folder. It holds the path, never an open handle.

    Every pass opens the array, keeps a bounded number of decoded chunks and reads ahead in a thread of its own. A
    chunk that is missing (zarr would return the fill value) or damaged is an error that names all such chunks.
    Damage inside a chunk is only detected where its codecs hold a checksum, as those written by mtdcore do.

    Args:
        path: folder of an array (H, W) or (micrographs, H, W).
        mask: see :class:`TiledMeasurement`.
        skip_bad: mark the pixels of bad chunks invalid, and list the chunks in :attr:`bad_chunks`, instead of raising.
        cache_bytes: bound on the decoded chunks kept by one pass (one chunk at least).

    Raises:
        InputError: not such an array.
    """

    def __init__(
        self,
        path: str | Path,
        mask: np.ndarray | None = None,
        *,
        skip_bad: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.path = Path(path).absolute()
        self.skip_bad = skip_bad
        self.cache_bytes = cache_bytes
        self._bad: dict[tuple[int, int, int], BadChunk] = {}
        array = StoredArray.open(self.path).array
        super().__init__(array.shape, np.dtype(array.dtype), mask)

    @property
    def bad_chunks(self) -> list[BadChunk]:
        """Bad chunks met so far by this measurement and its parts in this process (``skip_bad`` only)."""
        return [self._bad[key] for key in sorted(self._bad)]

    def find_bad_chunks(self) -> list[BadChunk]:
        """Read every chunk of the array once and list those that are missing or damaged."""
        chunks = _Chunks(self)
        rows, columns = (range(-(-n // side)) for n, side in zip(self.shape[1:], chunks.sides, strict=True))
        every = ((m, row, column) for m in range(self.shape[0]) for row in rows for column in columns)
        return [found for key in every if isinstance(found := chunks.load(key), BadChunk)]

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Tiles read ahead of their consumer; see :class:`Measurement`."""
        return prefetched(super().tiles(geometry), _TILES_AHEAD)

    def _reader(self) -> Reader:
        return _Chunks(self).window

    def _met(self, key: tuple[int, int, int], bad: BadChunk) -> None:
        """Record a bad chunk, or refuse it together with all others."""
        if not self.skip_bad:
            found = self.find_bad_chunks() or [bad]  # one that healed meanwhile is still named
            listed = "; ".join(str(chunk) for chunk in found[:20]) + ("; ..." if len(found) > 20 else "")
            raise InputError(
                f"{self.path} has {len(found)} bad chunk(s): {listed}. Restore the file(s), or pass skip_bad=True "
                "(--skip-bad) to treat their pixels as invalid."
            )
        self._bad[key] = bad

    def __repr__(self) -> str:
        return f"ZarrMeasurement(shape={self.shape}, dtype={self.dtype}, source={self.path})"


class _Chunks:
    """Windows assembled from the least recently used cache of decoded chunks; lives for one pass."""

    def __init__(self, measurement: ZarrMeasurement) -> None:
        self._measurement = measurement
        self._stored = StoredArray.open(measurement.path)
        array = self._stored.array
        if (1,) * (3 - array.ndim) + array.shape != measurement.shape:
            raise InputError(
                f"{measurement.path} has changed: shape {measurement.shape} became {array.shape}."
            )
        self._cache: OrderedDict[tuple[int, int, int], np.ndarray | BadChunk] = OrderedDict()
        self._bytes = 0
        self.sides = array.chunks[-2:]

    def window(self, micrograph: int, rows: slice, columns: slice) -> np.ndarray:
        """(h, w) pixels in the dtype of the measurement, NaN where a chunk is bad."""
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), self._measurement.dtype)
        height, width = self.sides
        for i in range(rows.start // height, -(-rows.stop // height)):
            for j in range(columns.start // width, -(-columns.stop // width)):
                chunk = self._get((micrograph, i, j))
                outer, inner = zip(
                    _common(rows, i * height, height), _common(columns, j * width, width), strict=True
                )
                out[outer] = np.nan if isinstance(chunk, BadChunk) else chunk[inner]
        return out

    def load(self, key: tuple[int, int, int]) -> np.ndarray | BadChunk:
        """The pixels of one micrograph in one chunk, read from disk."""
        micrograph, *place = key
        corners = [
            (i * side, min((i + 1) * side, n))
            for i, side, n in zip(place, self.sides, self._measurement.shape[1:], strict=True)
        ]
        array = self._stored.array
        stack = () if array.ndim == 2 else (micrograph,)
        index = (*(m // side for m, side in zip(stack, array.chunks, strict=False)), *place)
        region = (*(slice(m, m + 1) for m in stack), *(slice(a, b) for a, b in corners))
        try:
            return self._stored.read(index, region).reshape([b - a for a, b in corners])
        except ChunkMissing:
            reason = "missing"
        except ChunkDamaged as error:
            reason = f"damaged ({error})"
        return BadChunk(self._stored.key(index), micrograph, corners[0], corners[1], reason)

    def _get(self, key: tuple[int, int, int]) -> np.ndarray | BadChunk:
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        chunk = self.load(key)
        if isinstance(chunk, BadChunk):
            self._measurement._met(key, chunk)
        self._cache[key] = chunk
        self._bytes += _size(chunk)
        while self._bytes > self._measurement.cache_bytes and len(self._cache) > 1:
            self._bytes -= _size(self._cache.popitem(last=False)[1])
        return chunk


def _size(chunk: np.ndarray | BadChunk) -> int:
    return chunk.nbytes if isinstance(chunk, np.ndarray) else 0


def _common(wanted: slice, start: int, side: int) -> tuple[slice, slice]:
    """Where the pixels common to a window and a chunk lie along one axis, in the window and in the chunk."""
    first, last = max(wanted.start, start), min(wanted.stop, start + side)
    return slice(first - wanted.start, last - wanted.start), slice(first - start, last - start)
