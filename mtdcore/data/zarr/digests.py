"""Digests of the chunks of an array, in a file beside them, against faults that the checksum of a codec cannot detect.

A crc32c proves that a chunk is intact, not that it is the right one: two chunks exchanged, or one left from an earlier
version, pass. ``digests.npz`` holds 64 bits of every stored chunk, by its place in the grid, and of the metadata that
decide how chunks are read. They are CRC-32C, for which processors have an instruction (0.04 ms per MiB; BLAKE2b takes
1.2 ms, a third of an E-step at L = 5): they guard against faults, not against forgery.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

from ..._base.files import write_whole
from ..._base.guarded import Archive
from ...errors import InputError
from .guard import DIGESTS, MAX_METADATA_BYTES, ChunkDamaged, read_inside

#: Largest size of the file, for the largest number of chunks.
MAX_DIGEST_BYTES = (8 << 24) + (1 << 16)

#: The entries of zarr.json that may change without changing a pixel.
_FREE = ("attributes", "dimension_names", "consolidated_metadata")


@dataclass(frozen=True)
class Digests:
    """Digests of one array.

    Attributes:
        chunks: uint64, one per chunk, in the shape of the grid of chunks.
    """

    chunks: np.ndarray

    @classmethod
    def read(cls, root: Path) -> Digests:
        """The digests beside an array; its metadata must be unchanged since they were written.

        Raises:
            InputError: the file is missing or damaged, or the metadata have changed.
        """
        path = root / DIGESTS
        try:
            content = read_inside(root, DIGESTS, MAX_DIGEST_BYTES)
            file = Archive(path, io.BytesIO(content))
            metadata, chunks = int(file["metadata"]), file["chunks"]
            if chunks.dtype != np.uint64:
                raise ValueError(f"digests of dtype {chunks.dtype}")
        except Exception as error:  # NumPy, zipfile and zlib share no exception type
            raise InputError(
                f"{path} should hold the digests that {root} announces; it is missing or damaged: {error}. Restore it, "
                'or take "digests" out of the attributes in zarr.json to read without it.'
            ) from error
        if metadata != metadata_digest(root):
            raise InputError(
                f"{root / 'zarr.json'} should be as mtdcore wrote it (attributes may change); shape, chunks, dtype or codecs "
                "have changed: restore it."
            )
        return cls(chunks)

    def check(self, index: tuple[int, ...], raw: bytes) -> None:
        """Raise ChunkDamaged unless these bytes are those of the chunk at this place."""
        if len(index) != self.chunks.ndim or any(
            i >= n for i, n in zip(index, self.chunks.shape, strict=True)
        ):
            raise ChunkDamaged("its digest is missing")
        if digest(raw) != int(self.chunks[index]):
            raise ChunkDamaged("its digest is that of other content (damaged, exchanged or out of date)")


def digest(content: bytes) -> int:
    """CRC-32C of the content, then its last four bytes, as one integer.

    The CRC-32C of content that ends with its own CRC-32C is one constant for all intact content; the last four bytes then
    tell contents apart.
    """
    return int(crc32c(content)) << 32 | int.from_bytes(content[-4:], "little")


def metadata_digest(root: Path) -> int:
    """Digest of the entries of zarr.json on which the pixels depend."""
    content = json.loads(read_inside(root, "zarr.json", MAX_METADATA_BYTES))
    return digest(json.dumps({k: v for k, v in content.items() if k not in _FREE}, sort_keys=True).encode())


def write_digests(root: Path, grid: tuple[int, ...], found: Mapping[tuple[int, ...], int]) -> None:
    """Write the digests of all chunks of a finished array.

    Args:
        root: folder of the array.
        grid: number of chunks along each axis.
        found: digest of each chunk by its index.
    """
    chunks = np.zeros(grid, np.uint64)
    for index, value in found.items():
        chunks[index] = value
    metadata = np.uint64(metadata_digest(root))
    write_whole(root / DIGESTS, lambda file: np.savez(file, chunks=chunks, metadata=metadata))
