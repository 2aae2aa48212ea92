"""The only file that imports zarr: creating an array folder, and reading one chunk of it without ever guessing.

Reading is strict. zarr returns the fill value for a chunk that was never written or has vanished; here that is
an error of its own, for plain chunks, whole shards and the inner chunks of a shard alike.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, WrapperStore

from ..._base.outputs import MARK, making_folder
from ...errors import InputError, ParameterError, StorageError
from .digests import Digests, check_crc32c, digest, write_digests
from .guard import DIGESTS, ChunkDamaged, ChunkMissing, Encoding, read_encoding, read_inside
from .ome import AXES, LEVEL, finest, multiscales

Compressor: TypeAlias = Literal["lz4", "zstd"]
Index: TypeAlias = tuple[int, ...]

#: Rows and columns of the chunks that mtdcore writes: 1 MiB of float32. Tiles are read row by row of tiles, and flat
#: chunks keep what one row of tiles has to leave in memory for the next one small.
CHUNK = (256, 1024)

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_NEVER_WRITTEN = struct.pack("<QQ", 2**64 - 1, 2**64 - 1)  # shard index entry of an absent inner chunk


class _StrictStore(WrapperStore[LocalStore]):
    """A store in which a chunk that is asked for must exist.

    Args:
        store: the store underneath.
        nested: whether chunks lie in folders (``0/1``), although the metadata do not say so.
    """

    def __init__(self, store: LocalStore, nested: bool = False) -> None:
        super().__init__(store)
        self._nested = nested

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if self._nested and key not in _METADATA:
            key = key.replace(".", "/")
        value = await super().get(key, prototype, byte_range)
        if value is None and key.rsplit("/", 1)[-1] not in _METADATA:
            raise ChunkMissing
        return value


class _DigestingStore(WrapperStore[LocalStore]):
    """A store that remembers the digest of every chunk it was given."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.digests: dict[Index, int] = {}

    async def set(self, key: str, value: Any, *rest: Any) -> None:
        name, *place = key.split("/")
        if name == "c":
            self.digests[tuple(map(int, place))] = digest(value.to_bytes())
        await super().set(key, value, *rest)


@dataclass(frozen=True)
class StoredArray:
    """An open Zarr array of format 2 or 3, read chunk by chunk.

    Attributes:
        root: folder of the array.
        array: the zarr array over a strict store.
        encoding: how its chunks become bytes.
        digests: digests of its chunks, where the writer left some.
    """

    root: Path
    array: zarr.Array[Any]
    encoding: Encoding
    digests: Digests | None

    @classmethod
    def open(cls, root: Path) -> StoredArray:
        """Open the array in a local folder, or the finest array of an OME-Zarr image there.

        Raises:
            InputError: no Zarr array there, one that is not safe to read, or sharding that is not supported.
        """
        root = finest(root)
        encoding = read_encoding(root)
        digests = None if encoding.digest_file is None else Digests.read(root)
        try:
            store = _StrictStore(LocalStore(root, read_only=True), encoding.nested)
            array = zarr.open_array(store=store, mode="r")
            stored = cls(root, array, encoding, digests)
            stored._shard_layout()
        except InputError:
            raise
        except Exception as error:  # zarr raises whatever its metadata parser meets
            raise InputError(
                f"{root} should be the folder of a Zarr array (format 2 or 3); it could not be opened as one: "
                f"{type(error).__name__}: {error}."
            ) from error
        return stored

    def key(self, index: Index) -> str:
        """Name, relative to the array, of what stores chunk ``index`` (of a sharded array: its shard)."""
        return self._name(self._stored_index(index))

    def has_any(self, probes: int) -> bool:
        """Whether any of this many chunks, spread evenly over the array, is in the store."""
        sides = self.array.shards or self.array.chunks
        grid = tuple(-(-n // c) for n, c in zip(self.array.shape, sides, strict=True))
        chosen = np.unique(np.linspace(0, math.prod(grid) - 1, probes).astype(np.int64))
        names = (self._name(tuple(map(int, i))) for i in zip(*np.unravel_index(chosen, grid), strict=True))
        return any((self.root / name).exists() for name in names)

    def _name(self, stored: Index) -> str:
        name = str(self.array.metadata.encode_chunk_key(stored))
        return name.replace(".", "/") if self.encoding.nested else name

    def read(self, index: Index, region: tuple[slice, ...]) -> np.ndarray:
        """Pixels of a region that lies within chunk ``index``.

        Raises:
            ChunkMissing, ChunkDamaged: see there.
            StorageError: the operating system failed to read.
        """
        try:
            raw = self._raw(index)
            self.encoding.check(raw)
            if self.digests is not None:
                self.digests.check(index, raw)
            if self.encoding.plain is not None:
                return self._plain(raw, region)
            return np.asarray(self.array[region])
        except (ChunkMissing, ChunkDamaged, StorageError):
            raise
        except OSError as error:
            raise StorageError(
                f"chunk {self.key(index)} of {self.root} could not be read: {error}."
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # codecs share no exception type
            raise ChunkDamaged(f"{type(error).__name__}: {error}") from error

    def whole(self) -> np.ndarray:
        """All of the array, in its own dtype.

        Raises:
            InputError: a chunk is missing or damaged.
            StorageError: the operating system failed to read.
        """
        out = np.empty(self.array.shape, self.array.dtype)
        sides = self.array.chunks
        for index in np.ndindex(*(-(-n // c) for n, c in zip(out.shape, sides, strict=True))):
            region = tuple(
                slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, sides, out.shape, strict=True)
            )
            try:
                out[region] = self.read(index, region)
            except (ChunkMissing, ChunkDamaged) as error:
                raise InputError(
                    f"{self.root} should be whole; chunk {self.key(index)} is {error or 'missing'}."
                ) from error
        return out

    def _plain(self, raw: bytes, region: tuple[slice, ...]) -> np.ndarray:
        """Pixels of a chunk that needs no decoding: zarr would read it once more and take ten times as long."""
        size = self.encoding.size
        if self.digests is None and self.encoding.codecs:  # which have seen all of its bytes otherwise
            check_crc32c(raw[:size], raw[size:])
        sides = self.array.chunks
        pixels = np.frombuffer(raw, self.encoding.plain, math.prod(sides)).reshape(sides)
        return pixels[
            tuple(slice(s.start % n, (s.stop - 1) % n + 1) for s, n in zip(region, sides, strict=True))
        ]

    def _stored_index(self, index: Index) -> Index:
        if self.array.shards is None:
            return index
        ratio = self._chunks_per_shard()
        return tuple(i // n for i, n in zip(index, ratio, strict=True))

    def _chunks_per_shard(self) -> Index:
        assert self.array.shards is not None
        return tuple(s // c for s, c in zip(self.array.shards, self.array.chunks, strict=True))

    def _shard_layout(self) -> Literal["start", "end"] | None:
        """Where the index of a shard is; None for an array without shards."""
        if self.array.shards is None:
            return None
        codecs = self.array.metadata.to_dict()["codecs"]
        configuration: Any = codecs[0]["configuration"]  # type: ignore[index,call-overload]
        index_codecs = [codec["name"] for codec in configuration["index_codecs"]]
        nested = any(codec["name"] == "sharding_indexed" for codec in configuration["codecs"])
        if index_codecs != ["bytes", "crc32c"] or nested or len(codecs) != 1:  # type: ignore[arg-type]
            raise InputError(
                f"{self.root} uses shards inside shards, or a shard index not stored as bytes + crc32c; only the common "
                "layout can be checked for missing chunks, so rewrite the array with default sharding."
            )
        return "start" if configuration["index_location"] == "start" else "end"

    def _raw(self, index: Index) -> bytes:
        """A chunk as it lies on disk; of a shard, the inner chunk.

        Raises:
            ChunkMissing: also where the index of a shard says that the inner chunk was never written.
            ChunkDamaged, StorageError: see :func:`read_inside`.
        """
        location, most = self._shard_layout(), self.encoding.largest
        if location is None:
            return read_inside(self.root, self.key(index), most)
        ratio = self._chunks_per_shard()
        inner = tuple(i % n for i, n in zip(index, ratio, strict=True))
        size = 16 * math.prod(ratio) + 4
        at = (0 if location == "start" else -size, size)
        table = read_inside(self.root, self.key(index), size, at)
        if len(table) != size:
            raise ChunkDamaged(f"the shard is too short for its index of {size} bytes")
        entry = table[16 * int(np.ravel_multi_index(inner, ratio)) :][:16]
        if entry == _NEVER_WRITTEN:
            raise ChunkMissing
        offset, length = struct.unpack("<QQ", entry)
        if max(offset, length) >= 1 << 62:
            raise ChunkDamaged("the index of the shard points outside of it")
        return read_inside(self.root, self.key(index), most, (offset, length))


@contextmanager
def creating(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    attributes: Mapping[str, Any],
    compressor: Compressor | None = None,
    overwrite: bool = False,
    *,
    pixel_size: float | None = None,
    ome: bool = False,
    inputs: Sequence[Path] = (),
) -> Iterator[tuple[zarr.Array[Any], Path]]:
    """Create a Zarr v3 stack of micrographs in a temporary folder that becomes ``path`` when the block succeeds.

    Chunks of one micrograph and 256 x 1024 pixels, each closed by a crc32c checksum, their digests in a file beside them;
    empty chunks are written too, so that an absent chunk is always damage.

    Args:
        path: where it will be.
        shape: (micrographs, H, W).
        dtype: of the pixels.
        attributes: JSON-able.
        compressor: of the chunks.
        overwrite: replace a measurement that mtd wrote to ``path``; never anything else, see :mod:`mtdcore._base.outputs`.
        pixel_size: angstrom, for OME metadata; None: unknown.
        ome: make the folder an OME-Zarr 0.5 image (a group, the array in it), which other programs open.
        inputs: files and folders that are read meanwhile, which ``path`` must not hold.

    Yields:
        The array to fill, and its folder (for small files beside the chunks).

    Raises:
        ParameterError: an unknown compressor.
        StorageError: ``path`` may not be written or replaced, or writing failed; nothing is left behind.
    """
    if compressor not in (None, "lz4", "zstd"):
        raise ParameterError(f"the compressor of a measurement is None, lz4 or zstd; got {compressor}.")
    packers = {
        None: (),
        "lz4": (BloscCodec(cname="lz4", shuffle="shuffle", typesize=dtype.itemsize),),
        "zstd": (ZstdCodec(level=3),),
    }
    try:
        with making_folder(path, overwrite, inputs) as temporary:
            marked = {MARK: {}, **attributes}
            if ome:
                metadata = {"ome": multiscales(path.stem, pixel_size), **marked}
                zarr.create_group(LocalStore(temporary), zarr_format=3, attributes=metadata)
            folder = temporary / LEVEL if ome else temporary
            store = _DigestingStore(LocalStore(folder))
            array = zarr.create_array(
                store,
                shape=shape,
                dtype=dtype,
                chunks=(1, *(min(side, max(1, n)) for side, n in zip(CHUNK, shape[1:], strict=True))),
                compressors=(*packers[compressor], Crc32cCodec()),
                fill_value=0,
                attributes={**({} if ome else marked), "digests": DIGESTS},
                dimension_names=AXES if ome else ("micrograph", "row", "column"),
                config={"write_empty_chunks": True},
            )
            yield array, temporary
            grid = tuple(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
            write_digests(folder, grid, store.digests)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}.") from error
