"""Measurements that are NumPy arrays, in memory or memory-mapped from a ``.npy`` file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._base.guarded import opened
from .._base.numerics.conversion import on_host
from ..errors import InputError, StorageError
from .measurement import Reader, TiledMeasurement
from .prefetch import TILES_AHEAD, prefetched
from .tiles import Region, Tile, TileGeometry


class ArrayMeasurement(TiledMeasurement):
    """A NumPy array of any integer or real dtype, byte order and layout; neither copied as a whole nor written to.

    Args:
        array: (H, W) or (micrographs, H, W), or a signal (N,).
        mask: see :class:`TiledMeasurement`.

    Attributes:
        array: (micrographs, H, W) view of the given array.
    """

    def __init__(self, array: np.ndarray, mask: np.ndarray | None = None) -> None:
        super().__init__(array.shape, array.dtype, mask)
        self.array = array.reshape(self.shape)
        self._path: Path | None = None

    @classmethod
    def from_npy(cls, path: str | Path, mask: np.ndarray | None = None) -> ArrayMeasurement:
        """A ``.npy`` file, memory-mapped; pickling sends its path, not its pixels.

        Raises:
            InputError: not a readable ``.npy`` file of numbers.
            StorageError: the file cannot be opened.
        """
        path = Path(path).absolute()
        measurement = cls(_map(path), mask)
        measurement._path = path
        return measurement

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Tiles, read ahead when they come from a file; see :class:`Measurement`."""
        tiles = super().tiles(geometry)
        return prefetched(tiles, TILES_AHEAD) if self._path else tiles

    @property
    def path(self) -> Path | None:
        """The mapped file; None: memory."""
        return self._path

    def _reader(self) -> Reader:
        def read(micrograph: int, regions: Sequence[Region]) -> Iterator[np.ndarray]:
            for region in regions:
                # Pages of a map stay resident once read: a new map for each tile releases them.
                array = _map(self._path).reshape(self.shape) if self._path else self.array
                yield array[micrograph][region.read]

        return read

    def __getstate__(self) -> dict[str, Any]:
        return {name: None if name == "array" and self._path else value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._path:
            self.array = _map(self._path).reshape(self.shape)

    def __repr__(self) -> str:
        return f"ArrayMeasurement(shape={self.shape}, dtype={self.dtype}, source={self._path or 'memory'})"


class LazyMeasurement(TiledMeasurement):
    """An array of another library that is read piece by piece: dask, HDF5, Zarr in memory.

    Args:
        array: (N,), (H, W) or (micrographs, H, W), with ``shape``, ``dtype`` and slices that NumPy can take.
        mask: see :class:`TiledMeasurement`.
    """

    def __init__(self, array: Any, mask: np.ndarray | None = None) -> None:
        super().__init__(tuple(array.shape), np.dtype(array.dtype), mask)
        self.array = array

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Tiles read ahead of their consumer; see :class:`Measurement`."""
        return prefetched(super().tiles(geometry), TILES_AHEAD)

    def _reader(self) -> Reader:
        def read(micrograph: int, regions: Sequence[Region]) -> Iterator[np.ndarray]:
            for region in regions:
                index = (micrograph, *region.read)[-len(self.array.shape) :]
                # A slice may be a view of the caller's pixels.
                yield np.atleast_2d(np.array(self.array[index]))

        return read

    def __repr__(self) -> str:
        return f"LazyMeasurement(shape={self.shape}, dtype={self.dtype}, source={type(self.array).__name__})"


def from_arrays(source: Any, mask: np.ndarray | None = None) -> TiledMeasurement:
    """A measurement of an array of any library, of a masked array (masked pixels are invalid), or of a list of images.

    Raises:
        InputError: none of these, or arrays of several shapes.
    """
    if isinstance(source, np.ma.MaskedArray):
        usable = ~np.ma.getmaskarray(source)
        return ArrayMeasurement(
            np.asarray(source.data), usable if mask is None else usable & np.asarray(mask)
        )
    if isinstance(source, np.ndarray):
        return ArrayMeasurement(source, mask)
    if isinstance(source, list | tuple) and any(isinstance(one, np.ma.MaskedArray) for one in source):
        return from_arrays(np.ma.stack(source), mask)
    if not isinstance(source, list | tuple) and _reads_lazily(source):
        return LazyMeasurement(source, mask)
    try:
        elsewhere = hasattr(source, "detach") or hasattr(source, "__cuda_array_interface__")
        array = on_host(source) if elsewhere else np.asarray(source)
    except Exception as problem:  # libraries share no exception type
        raise InputError(
            f"a measurement needs images of one shape, (H, W) or (micrographs, H, W); {type(source).__name__} could not be made "
            f"into an array ({' '.join(str(problem).split())})."
        ) from problem
    return ArrayMeasurement(array, mask)


def _reads_lazily(source: Any) -> bool:
    """Whether an array is in pieces, so that taking it whole would fill the memory."""
    return hasattr(source, "chunks") and all(
        hasattr(source, name) for name in ("shape", "dtype", "__getitem__")
    )


def _map(path: Path) -> np.ndarray:
    opened(path).close()
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise StorageError(f"{path} could not be opened: {error}.") from error
    except Exception as error:  # the header is parsed as Python text, which fails in many ways
        raise InputError(
            f"{path} should be a .npy file of numbers; it could not be read: {str(error).partition('. ')[0].rstrip('.')}."
        ) from error
    if not isinstance(loaded, np.ndarray):
        raise InputError(f"{path} should hold one array (.npy); it is an archive of several.")
    return loaded
