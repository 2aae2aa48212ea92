"""Measurements on disk as Zarr arrays (formats 2 and 3, sharded or not), streamed chunk by chunk."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from ...errors import InputError
from ..measurement import Reader, TiledMeasurement
from ..prefetch import TILES_AHEAD, prefetched
from ..tiles import Region, Tile, TileGeometry
from .guard import ChunkDamaged, ChunkMissing
from .stored import StoredArray

#: Bound on the decoded chunks that one pass keeps for later tiles. Micrographs up to 2048 pixels wide are decoded
#: once; of wider ones a part is decoded again, which is cheap and happens in the background.
CACHE_BYTES = 4 << 20

#: A tile can lie on the corner of four chunks; these stay for its neighbour, whatever their size.
_FEWEST_CHUNKS = 4

#: Bad chunks that a message describes in full; the others it only names.
_IN_FULL = 20

#: Chunks probed when an array is opened: if all are missing, its shape is wrong or it was never written.
_PROBES = 64

_Key: TypeAlias = tuple[int, int, int]  # micrograph, row and column of the chunk


class BadChunk(NamedTuple):
    """A chunk that could not be used.

    Attributes:
        key: name of its file, relative to the array (of a sharded array: its shard).
        micrograph: index of the micrograph.
        rows: first and last + 1 pixel row.
        columns: first and last + 1 pixel column.
        reason: "missing", or "damaged" with the error of decoding.
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
    Damage inside a chunk is detected only if its codecs hold a checksum, exchanged and outdated chunks only if digests
    were written: mtdcore writes both.

    Args:
        path: folder of an array (H, W) or (micrographs, H, W); further axes before these may have the length 1, as the
            axes t, c and z of other programs' OME-Zarr images do.
        mask: see :class:`TiledMeasurement`.
        skip_bad: mark the pixels of bad chunks invalid, and list the chunks in :attr:`bad_chunks`, instead of raising.
        cache_bytes: bound on the decoded chunks that one pass keeps (four chunks at least).

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
        self._bad: dict[_Key, BadChunk] = {}
        stored = StoredArray.open(self.path)
        super().__init__(_as_stack(self.path, stored.layout.shape), stored.layout.dtype, mask)
        if math.prod(self.shape) and not stored.has_any(_PROBES):
            raise InputError(
                f"{self.path} should hold chunks of a measurement of shape {self.shape}; of {_PROBES} looked for not one is "
                "there: it was never filled, or its shape is wrong."
            )

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
        return prefetched(super().tiles(geometry), TILES_AHEAD)

    def _reader(self) -> Reader:
        return _Chunks(self).read

    def _met(self, key: _Key, bad: BadChunk) -> None:
        """Record a bad chunk, or refuse it together with all others."""
        if not self.skip_bad:
            found = self.find_bad_chunks() or [bad]  # a chunk readable again by now is still named
            listed = [str(chunk) for chunk in found[:_IN_FULL]] + [chunk.key for chunk in found[_IN_FULL:]]
            raise InputError(
                f"{self.path} has {len(found)} bad chunk(s): {'; '.join(listed)}. Restore the file(s), or pass skip_bad=True "
                "(--skip-bad) to treat their pixels as invalid."
            )
        self._bad[key] = bad

    def __repr__(self) -> str:
        return f"ZarrMeasurement(shape={self.shape}, dtype={self.dtype}, source={self.path})"


class _Chunks:
    """The decoded chunks of one pass. Its tiles are known ahead: a full cache evicts the chunk whose next use is farthest away,
    and a chunk that no further tile needs is evicted at once.
    """

    def __init__(self, measurement: ZarrMeasurement) -> None:
        self._measurement = measurement
        self._stored = StoredArray.open(measurement.path)
        layout = self._stored.layout
        stack = _as_stack(measurement.path, layout.shape)
        if (1,) * (3 - len(stack)) + stack != measurement.shape:
            raise InputError(f"{measurement.path} changed from shape {measurement.shape} to {layout.shape}.")
        self._axis = _stack_axis(layout.shape)
        self._cache: dict[_Key, np.ndarray | BadChunk] = {}
        self.sides = layout.chunks[-2:]
        size = math.prod(self.sides) * layout.dtype.itemsize
        self._capacity = max(_FEWEST_CHUNKS, measurement.cache_bytes // size)

    def read(self, micrograph: int, regions: Sequence[Region]) -> Iterator[np.ndarray]:
        """The pixels of each region in the dtype of the measurement, NaN where a chunk is bad."""
        uses: dict[_Key, deque[int]] = defaultdict(deque)  # numbers of the regions that still need a chunk
        for number, region in enumerate(regions):
            for key in self._keys(micrograph, region.read):
                uses[key].append(number)
        for region in regions:
            rows, columns = region.read
            out = np.empty((rows.stop - rows.start, columns.stop - columns.start), self._measurement.dtype)
            for key in self._keys(micrograph, region.read):
                chunk = self._get(key, uses)
                common = [_common(*axis) for axis in zip(region.read, key[1:], self.sides, strict=True)]
                outer, inner = zip(*common, strict=True)
                out[outer] = np.nan if isinstance(chunk, BadChunk) else chunk[inner]
                uses[key].popleft()
                if uses[key]:
                    self._cache[key] = chunk
                else:
                    self._cache.pop(key, None)
                del chunk  # freed before the next chunk is decoded
            yield out
            del out

    def _keys(self, micrograph: int, window: tuple[slice, slice]) -> Iterator[_Key]:
        """Chunks that a window overlaps."""
        rows, columns = (
            range(span.start // side, -(-span.stop // side))
            for span, side in zip(window, self.sides, strict=True)
        )
        return ((micrograph, i, j) for i in rows for j in columns)

    def load(self, key: _Key) -> np.ndarray | BadChunk:
        """The pixels of one micrograph in one chunk, read from disk."""
        micrograph, *place = key
        chunks = self._stored.layout.chunks
        leading = [micrograph if axis == self._axis else 0 for axis in range(len(chunks) - 2)]
        index = (*(m // side for m, side in zip(leading, chunks, strict=False)), *place)
        try:
            image: np.ndarray = self._stored.read(index)[
                tuple(m % side for m, side in zip(leading, chunks, strict=False))
            ]
            return image
        except ChunkMissing:
            reason = "missing"
        except ChunkDamaged as error:
            reason = f"damaged ({error})"
        rows, columns = (
            (i * side, min((i + 1) * side, n))
            for i, side, n in zip(place, self.sides, self._measurement.shape[1:], strict=True)
        )
        return BadChunk(self._stored.key(index), micrograph, rows, columns, reason)

    def _get(self, key: _Key, uses: dict[_Key, deque[int]]) -> np.ndarray | BadChunk:
        """A chunk from the cache, or from disk after room was made for it."""
        if key in self._cache:
            return self._cache[key]
        if len(self._cache) >= self._capacity:
            del self._cache[max(self._cache, key=lambda cached: uses[cached][0])]
        chunk = self.load(key)
        if isinstance(chunk, BadChunk):
            self._measurement._met(key, chunk)
        return chunk


def _common(wanted: slice, index: int, side: int) -> tuple[slice, slice]:
    """Pixels common to a window and a chunk along one axis: where in the window, and where in the chunk."""
    start = index * side
    first, last = max(wanted.start, start), min(wanted.stop, start + side)
    return slice(first - wanted.start, last - wanted.start), slice(first - start, last - start)


def _stack_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the micrographs: the one before the last two that is longer than 1, or the last of them; None: there is none."""
    leading = range(len(shape) - 2)
    return next((axis for axis in leading if shape[axis] != 1), leading[-1] if leading else None)


def _as_stack(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(H, W) or (micrographs, H, W); InputError where several axes could be the micrographs."""
    axis = _stack_axis(shape)
    if any(n != 1 for i, n in enumerate(shape[:-2]) if i != axis):
        raise InputError(
            f"{path} should hold images along one axis before the last two; it has the shape {shape}: take one channel, or one "
            "time, of it."
        )
    return shape if axis is None else (shape[axis], *shape[-2:])
