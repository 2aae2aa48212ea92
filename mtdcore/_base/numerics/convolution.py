"""Convolution of images with a kernel that has its centre in the middle."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from scipy.fft import next_fast_len

from ..typing import Array
from .conversion import like


def convolve(images: Array, kernel: np.ndarray) -> Array:
    """Images through a kernel, with zeros around them; with a point-symmetric kernel the map is symmetric.

    Args:
        images: (T, h, w) floating-point array of any library.
        kernel: (2 R + 1, 2 R + 1) NumPy.

    Returns:
        (T, h, w) of the library and dtype of ``images``.
    """
    xp = array_namespace(images)
    height, width = images.shape[-2:]
    # entries of the kernel further out than the image is long meet no pixel
    rows, columns = (min(kernel.shape[0] // 2, n - 1) for n in (height, width))
    middle = kernel.shape[0] // 2
    near = kernel[middle - rows : middle + rows + 1, middle - columns : middle + columns + 1]
    shape = next_fast_len(height + rows, real=True), next_fast_len(width + columns, real=True)
    factors = np.fft.rfft2(wrapped(near, shape))
    spectra = xp.fft.rfftn(images, s=shape, axes=(1, 2))
    spectra = spectra * xp.astype(like(factors, images), spectra.dtype)
    return xp.fft.irfftn(spectra, s=shape, axes=(1, 2))[:, :height, :width]


def wrapped(kernel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The kernel on a periodic grid of this shape, at least its own, with its centre at the first pixel."""
    grid = np.zeros(shape)
    grid[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.roll(grid, (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), (0, 1))
