"""A stack that grows by one micrograph at a time; after a crash at any moment the published micrographs stay readable.

Chunks of a new micrograph are new files. No reader opens them before :meth:`GrowingStack.publish` enlarges the shape.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

from ..._base.files import write_whole
from ...errors import StorageError
from .digests import digest, write_digests
from .guard import MAX_METADATA_BYTES, read_inside, read_layout
from .ome import LEVEL


@dataclass(frozen=True)
class GrowingStack:
    """An OME-Zarr stack without compressor that :func:`mtdcore.data.zarr.store.creating` has begun.

    Attributes:
        path: its folder.
    """

    path: Path

    @property
    def _array(self) -> Path:
        return self.path / LEVEL

    def put(self, index: int, pixels: np.ndarray) -> np.ndarray:
        """Write the chunks of one micrograph, replacing remains of a crash.

        Args:
            index: of the micrograph.
            pixels: (H, W) float32.

        Returns:
            (rows, columns) uint64, the digests of its chunks, for :meth:`publish`.

        Raises:
            StorageError: the operating system refused.
        """
        chunks = read_layout(self._array).chunks[1:]
        rows, columns = (-(-n // side) for n, side in zip(pixels.shape, chunks, strict=True))
        found = np.zeros((rows, columns), np.uint64)
        try:
            shutil.rmtree(self._array / "c" / str(index), ignore_errors=True)
            for i, j in np.ndindex(rows, columns):
                content = _encoded(pixels, (i, j), chunks)
                place = self._array / "c" / str(index) / str(i)
                place.mkdir(parents=True, exist_ok=True)
                (place / str(j)).write_bytes(content)
                found[i, j] = digest(content)
        except OSError as error:
            raise StorageError(f"{self.path} could not be written: {error}.") from error
        return found

    def publish(self, digests: np.ndarray) -> None:
        """Make the first micrographs visible to readers: write their digests and the shape.

        Args:
            digests: (micrographs, rows, columns) uint64, what :meth:`put` returned for each.

        Raises:
            StorageError: the operating system refused.
        """
        self.tidy()
        metadata = json.loads(read_inside(self._array, "zarr.json", MAX_METADATA_BYTES))
        metadata["shape"][0] = len(digests)
        text = json.dumps(metadata, indent=2)
        write_whole(self._array / "zarr.json", lambda file: file.write(text.encode()))
        write_digests(self._array, digests.shape, {i: int(digests[i]) for i in np.ndindex(digests.shape)})

    def tidy(self) -> None:
        """Remove unfinished files of a killed process."""
        for left in self._array.glob(".*.part"):
            left.unlink(missing_ok=True)


def _encoded(pixels: np.ndarray, place: tuple[int, int], sides: tuple[int, ...]) -> bytes:
    """A chunk as it is stored: little-endian float32, zeros beyond the edge, and its checksum."""
    window = tuple(slice(i * side, (i + 1) * side) for i, side in zip(place, sides, strict=True))
    chunk = np.zeros(sides, "<f4")
    inside = pixels[window]
    chunk[: inside.shape[0], : inside.shape[1]] = inside
    raw = chunk.tobytes()
    return raw + int(crc32c(raw)).to_bytes(4, "little")
