"""Measurements: what the engine reads its pixels from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, StorageError
from .array import ArrayMeasurement
from .measurement import Measurement, TiledMeasurement

__all__ = ["ArrayMeasurement", "Measurement", "TiledMeasurement", "open_measurement"]


def open_measurement(source: Any, mask: np.ndarray | None = None, *, skip_bad: bool = False) -> Measurement:
    """Open a measurement; pixels are read later, tile by tile.

    Args:
        source: a NumPy array, masked or not, (H, W) or (micrographs, H, W), the path of a ``.npy``, MRC or TIFF file or of a STAR list of
            micrographs (mapped, pixels as stored), the path of the folder of a Zarr array (format 2 or 3) or of an
            OME-Zarr image, or a measurement, which is returned as it is.
        mask: (H, W) or (micrographs, H, W) bool, true where a pixel may be used. None: everywhere. Pixels
            that are not finite are never used.
        skip_bad: treat Zarr chunks that are missing or damaged as invalid pixels instead of raising.

    Raises:
        InputError: the source is none of these, or its content cannot be used.
        StorageError: the path does not exist or cannot be opened.
    """
    if hasattr(source, "tiles") and hasattr(source, "split"):
        if mask is not None:
            raise InputError("a mask belongs to the array or path; this source is a measurement already.")
        measurement: Measurement = source
        return measurement
    if isinstance(source, str | os.PathLike):
        path = Path(source)
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
            f"{path} is no .npy, MRC, TIFF or STAR file nor the folder of a Zarr array; `mtd import` converts images."
        )
    if isinstance(source, np.ma.MaskedArray):
        seen = ~np.ma.getmaskarray(source)
        return ArrayMeasurement(source.data, seen if mask is None else seen & mask)
    if isinstance(source, np.ndarray):
        return ArrayMeasurement(source, mask)
    raise InputError(
        "a measurement is a NumPy array, the path of a .npy, MRC, TIFF or STAR file or the path of a Zarr array; "
        f"got {type(source).__name__}."
    )
