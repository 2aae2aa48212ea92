"""Measurements: what the engine reads its pixels from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, StorageError
from .array import ArrayMeasurement, from_arrays
from .measurement import Measurement, TiledMeasurement

__all__ = ["ArrayMeasurement", "Measurement", "MeasurementLike", "TiledMeasurement", "open_measurement"]

#: What :func:`open_measurement` takes.
MeasurementLike: TypeAlias = (
    Measurement | ArrayLike | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
)


def open_measurement(
    source: MeasurementLike, mask: np.ndarray | None = None, *, skip_bad: bool = False
) -> Measurement:
    """Open a measurement; pixels are read later, tile by tile.

    Args:
        source: one of

            - an array (H, W) or (micrographs, H, W) of NumPy, PyTorch or CuPy; of Dask, h5py or Zarr, read piece by piece; a masked
              array, whose masked pixels count as invalid; a list of images,
            - the path of a ``.npy``, MRC or TIFF file or of a STAR list of micrographs (mapped, pixels as stored), or a list of
              such paths except ``.npy``,
            - the path of the folder of a Zarr array (format 2 or 3) or of an OME-Zarr image,
            - a measurement, which is returned as it is.
        mask: (H, W) or (micrographs, H, W) bool, true where a pixel may be used. None: everywhere. Non-finite
            pixels are never used.
        skip_bad: treat Zarr chunks that are missing or damaged as invalid pixels instead of raising.

    Raises:
        InputError: the source is none of these, or its content cannot be used.
        StorageError: the path does not exist or cannot be opened.
    """
    if hasattr(source, "tiles") and hasattr(source, "tile_count"):
        if mask is not None:
            raise InputError("a mask belongs to the array or path; this source is a measurement already.")
        return cast(Measurement, source)
    if isinstance(source, str | os.PathLike):
        return _at(Path(source), mask, skip_bad)
    if (
        isinstance(source, list | tuple)
        and source
        and all(isinstance(one, str | os.PathLike) for one in source)
    ):
        from .micrographs.measurement import open_micrographs

        return open_micrographs(cast(Sequence[str | Path], source), mask=mask)
    stored = _stored_at(source)
    if stored is not None:
        return _at(stored, mask, skip_bad)
    if source is None or isinstance(source, dict | set | bytes | int | float | complex):
        raise InputError(
            "a measurement is an array, a list of images, or the path of a .npy, MRC, TIFF or STAR file or of a Zarr array; "
            f"got {type(source).__name__}."
        )
    return from_arrays(source, mask)


def _stored_at(source: Any) -> Path | None:
    """The folder of an open Zarr array; read by mtdcore, its missing chunks are noticed."""
    root, inside = getattr(getattr(source, "store", None), "root", None), getattr(source, "path", None)
    return root / inside if isinstance(root, Path) and isinstance(inside, str) else None


def _at(path: Path, mask: np.ndarray | None, skip_bad: bool) -> Measurement:
    if path.is_dir():
        from .zarr.measurement import ZarrMeasurement  # only users of Zarr pay for importing it

        return ZarrMeasurement(path, mask, skip_bad=skip_bad)
    if not path.exists():
        raise StorageError(
            f"{path} does not exist; expected a .npy, MRC, TIFF or STAR file or the folder of a Zarr array."
        )
    if path.suffix == ".npy":
        return ArrayMeasurement.from_npy(path, mask)
    from .micrographs.listing import SUFFIXES

    if path.suffix.lower() in SUFFIXES:
        from .micrographs.measurement import open_micrographs

        return open_micrographs(path, mask=mask)
    raise InputError(
        f"{path} is no .npy, MRC, TIFF or STAR file nor the folder of a Zarr array; `mtd import` converts images and signals."
    )
