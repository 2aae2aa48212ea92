"""The only file that imports zarr: creating an array folder, and reading one chunk of it without ever guessing.

Reading is strict. zarr returns the fill value for a chunk that was never written or has vanished; here that is
an error of its own, for plain chunks, whole shards and the inner chunks of a shard alike.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, WrapperStore

from ..errors import InputError, ParameterError, StorageError
from .ome import AXES, LEVEL, finest, multiscales

Compressor: TypeAlias = Literal["lz4", "zstd"]
Index: TypeAlias = tuple[int, ...]

#: Rows and columns of the chunks that mtdcore writes: 1 MiB of float32. Tiles are read row by row of tiles, and flat
#: chunks keep what one row of tiles has to leave in memory for the next one small.
CHUNK = (256, 1024)

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_NEVER_WRITTEN = struct.pack("<QQ", 2**64 - 1, 2**64 - 1)  # shard index entry of an absent inner chunk


class ChunkMissing(Exception):
    """The chunk is not in the store."""


class ChunkDamaged(Exception):
    """The chunk is in the store and cannot be decoded (checksum, truncation)."""


class _StrictStore(WrapperStore[LocalStore]):
    """A store in which a chunk that is asked for must exist."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        if value is None and key.rsplit("/", 1)[-1] not in _METADATA:
            raise ChunkMissing
        return value


@dataclass(frozen=True)
class StoredArray:
    """An open Zarr array of format 2 or 3, read chunk by chunk.

    Attributes:
        root: folder of the array.
        array: the zarr array over a strict store.
    """

    root: Path
    array: zarr.Array[Any]

    @classmethod
    def open(cls, root: Path) -> StoredArray:
        """Open the array in a local folder, or the finest array of an OME-Zarr image there.

        Raises:
            InputError: no Zarr array there, or sharding that is not supported.
        """
        root = finest(root)
        try:
            array = zarr.open_array(store=_StrictStore(LocalStore(root, read_only=True)), mode="r")
            stored = cls(root, array)
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
        return str(self.array.metadata.encode_chunk_key(self._stored_index(index)))

    def read(self, index: Index, region: tuple[slice, ...]) -> np.ndarray:
        """Pixels of a region that lies within chunk ``index``.

        Raises:
            ChunkMissing, ChunkDamaged: see there.
            StorageError: the operating system failed to read.
        """
        try:
            self._check_inner_chunk(index)
            return np.asarray(self.array[region])
        except (ChunkMissing, ChunkDamaged):
            raise
        except OSError as error:
            raise StorageError(
                f"chunk {self.key(index)} of {self.root} could not be read: {error}."
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # codecs share no exception type
            raise ChunkDamaged(f"{type(error).__name__}: {error}") from error

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

    def _check_inner_chunk(self, index: Index) -> None:
        """Raise ChunkMissing when the shard index says that the inner chunk was never written."""
        location = self._shard_layout()
        if location is None:
            return
        ratio = self._chunks_per_shard()
        inner = tuple(i % n for i, n in zip(index, ratio, strict=True))
        size = 16 * int(np.prod(ratio)) + 4
        try:
            with open(self.root / self.key(index), "rb") as file:
                if location == "end":
                    file.seek(max(0, os.fstat(file.fileno()).st_size - size))
                table = file.read(size)
        except FileNotFoundError:
            raise ChunkMissing from None
        entry = 16 * int(np.ravel_multi_index(inner, ratio))
        if len(table) != size:
            raise ChunkDamaged(f"the shard is too short for its index of {size} bytes")
        if table[entry : entry + 16] == _NEVER_WRITTEN:
            raise ChunkMissing


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
) -> Iterator[tuple[zarr.Array[Any], Path]]:
    """Create a Zarr v3 stack of micrographs in a temporary folder that becomes ``path`` when the block succeeds.

    Chunks of one micrograph and 256 x 1024 pixels, each closed by a crc32c checksum; empty chunks are written too, so
    that an absent chunk is always damage.

    Args:
        path: where it will be.
        shape: (micrographs, H, W).
        dtype: of the pixels.
        attributes: JSON-able.
        compressor: of the chunks.
        overwrite: replace what is at ``path``.
        pixel_size: angstrom, for OME metadata; None: unknown.
        ome: make the folder an OME-Zarr 0.5 image (a group, the array in it), which other programs open.

    Yields:
        The array to fill, and its folder (for small files beside the chunks).

    Raises:
        ParameterError: an unknown compressor.
        StorageError: ``path`` exists and ``overwrite`` is false, or writing failed; nothing is left behind.
    """
    if compressor not in (None, "lz4", "zstd"):
        raise ParameterError(f"the compressor of a measurement is None, lz4 or zstd; got {compressor}.")
    if path.exists() and not overwrite:
        raise StorageError(f"{path} exists already; choose another path or ask to overwrite it.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    packers = {
        None: (),
        "lz4": (BloscCodec(cname="lz4", shuffle="shuffle", typesize=dtype.itemsize),),
        "zstd": (ZstdCodec(level=3),),
    }
    try:
        if ome:
            metadata = {"ome": multiscales(path.stem, pixel_size), **attributes}
            zarr.create_group(LocalStore(temporary), zarr_format=3, attributes=metadata)
        array = zarr.create_array(
            LocalStore(temporary / LEVEL if ome else temporary),
            shape=shape,
            dtype=dtype,
            chunks=(1, *(min(side, max(1, n)) for side, n in zip(CHUNK, shape[1:], strict=True))),
            compressors=(*packers[compressor], Crc32cCodec()),
            fill_value=0,
            attributes={} if ome else dict(attributes),
            dimension_names=AXES if ome else ("micrograph", "row", "column"),
            config={"write_empty_chunks": True},
        )
        yield array, temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
