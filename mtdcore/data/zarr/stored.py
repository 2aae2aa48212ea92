"""Reading one chunk of an array without fill values: a missing chunk, which zarr would fill in, is an error, for plain
chunks, whole shards and the inner chunks of a shard alike.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from .codecs import decode
from .digests import Digests
from .guard import DIGESTS, ChunkDamaged, ChunkMissing, Index, Layout, read_inside, read_layout
from .ome import finest

_NEVER_WRITTEN = struct.pack("<QQ", 2**64 - 1, 2**64 - 1)  # shard index entry of an absent inner chunk

#: Bound on the bytes that a codec adds to an incompressible chunk.
_OVERHEAD = 1 << 16


@dataclass(frozen=True)
class StoredArray:
    """A Zarr array of format 2 or 3, read chunk by chunk. It holds no open handle.

    Attributes:
        root: folder of the array.
        layout: its metadata.
        digests: digests of its chunks; None: the writer left none.
    """

    root: Path
    layout: Layout
    digests: Digests | None

    @classmethod
    def open(cls, root: Path) -> StoredArray:
        """The array in a local folder, or the finest array of an OME-Zarr image there.

        Raises:
            InputError: no Zarr array there, one that is not safe to read, or sharding that is not supported.
            StorageError: its metadata cannot be read.
        """
        root = finest(root)
        layout = read_layout(root)
        return cls(root, layout, Digests.read(root) if layout.attributes.get("digests") == DIGESTS else None)

    def key(self, index: Index) -> str:
        """Name, relative to the array, of the file of chunk ``index`` (of a sharded array: of its shard)."""
        return self.layout.name(index)

    def has_any(self, probes: int) -> bool:
        """Whether any of this many chunks, spread evenly over the array, is in the store."""
        grid = self.layout.grid
        chosen = np.unique(np.linspace(0, math.prod(grid) - 1, probes).astype(np.int64))
        found = zip(*np.unravel_index(chosen, grid), strict=True)
        return any((self.root / self.key(tuple(map(int, index)))).exists() for index in found)

    def read(self, index: Index) -> np.ndarray:
        """Pixels of chunk ``index`` that lie in the array; read-only if they were not compressed.

        Raises:
            ChunkMissing, ChunkDamaged: see :mod:`mtdcore.data.zarr.guard`.
            StorageError: the operating system failed to read.
        """
        layout, raw = self.layout, self._raw(index)
        if self.digests is not None:
            self.digests.check(index, raw)
        content = decode(raw, layout.codecs, layout.size, checksums=self.digests is None)
        pixels = np.frombuffer(content, layout.dtype).reshape([layout.chunks[axis] for axis in layout.axes])
        inside = (slice(n - i * c) for n, i, c in zip(layout.shape, index, layout.chunks, strict=True))
        return pixels.transpose(np.argsort(layout.axes))[tuple(inside)]

    def whole(self) -> np.ndarray:
        """All of the array, in its own dtype.

        Raises:
            InputError: a chunk is missing or damaged.
            StorageError: the operating system failed to read.
        """
        out = np.empty(self.layout.shape, self.layout.dtype.newbyteorder("="))
        for index in np.ndindex(*self.layout.grid):
            place = (slice(i * c, (i + 1) * c) for i, c in zip(index, self.layout.chunks, strict=True))
            try:
                out[tuple(place)] = self.read(index)
            except (ChunkMissing, ChunkDamaged) as error:
                raise InputError(
                    f"{self.root} should be whole; chunk {self.key(index)} is {error or 'missing'}."
                ) from error
        return out

    def _raw(self, index: Index) -> bytes:
        """A chunk as stored; of a shard, the inner chunk.

        Raises:
            ChunkMissing: also where the index of a shard says that the inner chunk was never written.
            ChunkDamaged, StorageError: see :func:`read_inside`.
        """
        most = 2 * self.layout.size + _OVERHEAD
        if self.layout.shards is None:
            return read_inside(self.root, self.key(index), most)
        ratio = self.layout.per_shard
        inner = tuple(i % n for i, n in zip(index, ratio, strict=True))
        size = 16 * math.prod(ratio) + 4
        at = (0 if self.layout.index_first else -size, size)
        table = read_inside(self.root, self.key(index), size, at)
        if len(table) != size:
            raise ChunkDamaged(f"the shard is too short for its index of {size} bytes")
        decode(table, ["crc32c"], size - 4, checksums=True)
        entry = table[16 * int(np.ravel_multi_index(inner, ratio)) :][:16]
        if entry == _NEVER_WRITTEN:
            raise ChunkMissing
        offset, length = struct.unpack("<QQ", entry)
        if max(offset, length) >= 1 << 62:
            raise ChunkDamaged("the index of the shard points outside of it")
        return read_inside(self.root, self.key(index), most, (offset, length))
