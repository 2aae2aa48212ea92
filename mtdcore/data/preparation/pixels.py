"""Pixels of micrograph files, mapped and never read whole: MRC (every real mode, either byte order) and TIFF."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..._base.guarded import check_declared, opened
from ..._base.optional import optional
from ...errors import DependencyError, InputError, MtdError

#: Extensions of MRC and TIFF files. Both hold raw micrographs, whose particles are dark.
MRC = (".mrc", ".mrcs", ".map", ".st")
TIFF = (".tif", ".tiff")


class Pixels(NamedTuple):
    """An open image file.

    Attributes:
        stack: (sections, H, W), real numbers as stored, mapped where the format allows it; rows of TIFF files as
            cryo-EM programs read them, the last row of the file first.
        pixel_size: angstrom; None: unknown. In a header 0, exactly 1, values outside of 0.1 to 20, and sizes that
            differ in x and y count as unknown.
    """

    stack: np.ndarray
    pixel_size: float | None


#: Smallest and largest plausible pixel size of a header, angstrom.
_SMALLEST, _LARGEST = 0.1, 20.0

#: "IMOD" in bytes 152 to 155 of an MRC header; bit 0 of the next four then says that bytes are signed.
_IMOD, _SIGNED = 1146047817, 1

#: First bytes of compressed files, and the program that unpacks them.
_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"PK\x03\x04": "unzip",
}


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
    opened(path).close()
    try:
        data, pixel_size = _mrc(path) if suffix in MRC else _tiff(path)
    except MtdError:
        raise
    except Exception as problem:  # readers share no exception type for damage
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
    unsigned = check_mrc_header(path)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # permissive mode warns; the relevant fields are checked below
        file = optional("mrcfile").mmap(path, mode="r", permissive=True)
    with file:
        if file.data is None or file.data.ndim == 0:
            raise InputError(f"{path} should hold an MRC image; its data block is missing or truncated.")
        size = file.voxel_size
        # The array keeps the map alive; the file object would only flush it.
        data = np.asarray(file.data)
    if unsigned and data.dtype == np.int8:
        data = data.view(np.uint8)
    return data, _believable(float(size.x), float(size.y))


def check_mrc_header(path: Path) -> bool:
    """Whether the bytes of an MRC file are unsigned, as IMOD writes them; InputError for files that mrcfile mistakes for truncated ones."""
    with opened(path) as file:
        header = file.read(1024)
    for magic, tool in _PACKED.items():
        if header.startswith(magic):
            raise InputError(
                f"{path} should hold an MRC image; it is a compressed file: unpack it first ({tool})."
            )
    if len(header) < 1024:
        return False  # mrcfile reports the error
    order: Literal["little", "big"] = "big" if header[212] == 0x11 else "little"
    mode, stamp, flags = (int.from_bytes(header[at : at + 4], order) for at in (12, 152, 156))
    if mode == 101:
        raise InputError(
            f"{path} should hold whole bytes or numbers; it has 4 bits per pixel (mode 101): unpack it with IMOD, "
            f"newstack -mode 1 {path.name} OUTPUT."
        )
    return mode == 0 and stamp == _IMOD and not flags & _SIGNED


def _tiff(path: Path) -> tuple[np.ndarray, float | None]:
    """Pixels of all pages, the last row of the file first, as RELION, IMOD, EMAN2 and MotionCor2 read and write TIFF."""
    tifffile = optional("tifffile")
    with tifffile.TiffFile(path) as file:
        series = list(file.series)
        shapes = {(one.shape, one.dtype) for one in series}
        if any("S" in one.axes for one in series):
            raise InputError(
                f"{path} should hold one grey value per pixel; it is a colour picture (axes {series[0].axes}): convert it."
            )
        if len(shapes) != 1:
            raise InputError(
                f"{path} should hold images of one size and dtype; it holds {len(series)} kinds of pages "
                f"({', '.join(str(shape) for shape, _ in sorted(shapes, key=str))}): write each kind to a file of its own."
            )
        check_declared(path, sum(one.nbytes for one in series), path.stat().st_size)
        try:
            data = tifffile.memmap(path, mode="r") if len(series) == 1 else None
        except (ValueError, MemoryError):  # compressed, or tiled
            data = None
        if data is None:
            data = np.stack([_decoded(path, one) for one in series])
    return np.squeeze(np.asarray(data))[..., ::-1, :], None


def _decoded(path: Path, series: Any) -> np.ndarray:
    try:
        return np.asarray(series.asarray())
    except ValueError as problem:
        if "imagecodecs" not in str(problem):
            raise
        raise DependencyError(
            f"{path} is compressed in a way that needs the package imagecodecs, which is not installed: pip install "
            f"'mtdcore[em]' ({problem})."
        ) from problem


def _believable(x: float, y: float) -> float | None:
    """The pixel size of a header; None for implausible values and placeholders."""
    if not (_SMALLEST <= x <= _LARGEST and abs(x - y) <= 1e-3 * x) or abs(x - 1.0) <= 1e-6:
        return None
    return x
