"""Operations on whole micrographs in Fourier space: binning, phase flipping, radial filters."""

from __future__ import annotations

import numpy as np
from scipy import fft

from ..._base.numerics.fourier import radial_factors
from ...errors import ParameterError
from .ctf import Ctf


def bin_by(image: np.ndarray, factor: int, phases: np.ndarray | None = None) -> np.ndarray:
    """Fourier binning: keep the frequencies of the coarser grid, so that nothing aliases and all detail below its Nyquist frequency stays.

    Pixel ``(i, j)`` of the result lies where ``(factor i, factor j)`` was. Up to ``factor - 1`` far rows and columns, which
    fill no whole pixel, are cut off first.

    Args:
        image: (H, W) finite, floating point.
        factor: 1 or more.
        phases: real factors on the ``rfft2`` grid of the (cut) image, for instance the signs of a CTF; None: ones.

    Returns:
        (H // factor, W // factor) of the dtype of ``image``; the mean stays.

    Raises:
        ParameterError: the factor is larger than the image.
    """
    height, width = (side // factor * factor for side in image.shape)
    if factor < 1 or not height or not width:
        raise ParameterError(
            f"the binning factor should be from 1 to the size of the image, {image.shape}; got {factor}."
        )
    spectrum = fft.rfft2(image[:height, :width])
    if phases is not None:
        spectrum *= phases
    rows, columns = height // factor, width // factor
    if factor > 1:
        half = rows // 2
        # The Nyquist row of an even side is left out: its two halves would have to be split evenly.
        kept = np.zeros((rows, columns // 2 + 1), spectrum.dtype)
        upper, last = (rows + 1) // 2, (columns + 1) // 2
        kept[:upper, :last] = spectrum[:upper, :last]
        if half:
            kept[rows - upper + 1 :, :last] = spectrum[height - upper + 1 :, :last]
        spectrum = kept / factor**2
    return np.asarray(fft.irfft2(spectrum, (rows, columns)), image.dtype)


def flip_signs(ctf: Ctf, shape: tuple[int, int], pixel_size: float) -> np.ndarray:
    """Factors of phase flipping on the ``rfft2`` grid: they give a CTF its sign at low frequencies everywhere.

    Args:
        ctf: of the micrograph, with its astigmatism.
        shape: (H, W) of the micrograph.
        pixel_size: angstrom.
    """
    return np.where(ctf.grid(shape, pixel_size) > 0, np.float32(-1.0), np.float32(1.0))


def filter_radially(image: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """The image with every frequency multiplied by a radial curve.

    Args:
        image: (H, W) finite, floating point.
        curve: values at equally spaced frequencies from 0 to 1/2 cycles per pixel, constant beyond, as in
            :attr:`mtdcore.Micrographs.transfer`.

    Returns:
        (H, W) of the dtype of ``image``.
    """
    height, width = image.shape
    factors = radial_factors((height, width), curve)
    return np.asarray(fft.irfft2(fft.rfft2(image) * factors, image.shape), image.dtype)
