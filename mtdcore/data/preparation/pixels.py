"""Pixels of micrograph files, mapped and never read whole: MRC (every real mode, either byte order) and TIFF."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..._base.optional import optional
from ...errors import InputError, MtdError, StorageError

#: Extensions of MRC and TIFF files. Both hold raw micrographs, whose particles are dark.
MRC = (".mrc", ".mrcs", ".map", ".st")
TIFF = (".tif", ".tiff")


class Pixels(NamedTuple):
    """An open image file.

    Attributes:
        stack: (sections, H, W), real numbers as stored, mapped where the format allows it.
        pixel_size: angstrom, as far as the header can be believed: 0 and exactly 1 count as unknown, None.
    """

    stack: np.ndarray
    pixel_size: float | None


#: No compression of TIFF files makes more of a byte.
_MOST_COMPRESSION = 2000


def open_pixels(path: Path) -> Pixels:
    """Open an MRC or TIFF file.

    Raises:
        InputError: another format, a damaged or truncated file, complex pixels.
        DependencyError: the reader of this format is not installed.
        StorageError: no such file, or the operating system refuses it.
    """
    suffix = path.suffix.lower()
    if suffix not in MRC + TIFF:
        raise InputError(
            f"{path} should be a micrograph, one of {', '.join(MRC + TIFF)}; its extension is '{suffix}'."
        )
    if path.exists() and not path.is_file():
        raise InputError(f"{path} should be a file; it is a folder, a pipe or a device.")
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError as problem:
        raise StorageError(f"{path} should be a file; there is none.") from problem
    except OSError as problem:
        raise StorageError(f"{path} could not be opened: {problem}.") from problem
    try:
        data, pixel_size = _mrc(path) if suffix in MRC else _tiff(path)
    except MtdError:
        raise
    except Exception as problem:  # on damaged files every reader raises what it likes
        raise InputError(
            f"{path} could not be read as {suffix} ({' '.join(str(problem).split())})."
        ) from problem
    if data.dtype.kind not in "iuf" or data.ndim not in (2, 3) or not data.size:
        raise InputError(
            f"{path} should hold real numbers in 2 dimensions (or 3 for a stack); it holds {data.dtype} of shape "
            f"{data.shape}."
        )
    return Pixels(data if data.ndim == 3 else data[None], pixel_size)


def _mrc(path: Path) -> tuple[np.ndarray, float | None]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # permissive mode warns; what matters is checked below
        file = optional("mrcfile").mmap(path, mode="r", permissive=True)
    with file:
        if file.data is None or file.data.ndim == 0:
            raise InputError(f"{path} should hold an MRC image; its data block is missing or truncated.")
        # The array keeps the map alive; the file object would only flush it.
        return np.asarray(file.data), _believable(float(file.voxel_size.x))


def _tiff(path: Path) -> tuple[np.ndarray, float | None]:
    tifffile = optional("tifffile")
    with tifffile.TiffFile(path) as file:
        axes = file.series[0].axes if file.series else ""
    if "S" in axes:
        raise InputError(
            f"{path} should hold one grey value per pixel; it is a colour picture (axes {axes}): convert it."
        )
    try:
        data = tifffile.memmap(path, mode="r")
    except (ValueError, MemoryError):  # compressed, or tiled
        with tifffile.TiffFile(path) as file:
            declared, stored = file.series[0].nbytes, path.stat().st_size
        if declared > _MOST_COMPRESSION * stored:
            raise InputError(
                f"{path} should hold the {declared} bytes of pixels that it declares; it has {stored} bytes."
            ) from None
        data = tifffile.imread(path)
    return np.squeeze(np.asarray(data)), None


def _believable(size: float) -> float | None:
    return size if np.isfinite(size) and size > 0 and abs(size - 1.0) > 1e-6 else None
