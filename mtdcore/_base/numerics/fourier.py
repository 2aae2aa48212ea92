"""Radial filters: their factors depend on |frequency| only."""

from __future__ import annotations

import functools

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import DTypeLike

from ..typing import Array
from .conversion import like


def radial_frequencies(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """|frequency| in cycles per pixel on the ``rfftn`` grid of this shape: (H, W // 2 + 1) of an image."""
    lines = [*(np.fft.fftfreq(n) for n in shape[:-1]), np.fft.rfftfreq(shape[-1])]
    return np.asarray(functools.reduce(np.hypot, np.ix_(*(line.astype(dtype) for line in lines))))


def radial_factors(shape: tuple[int, int], profiles: np.ndarray, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Radial profiles on the ``rfft2`` grid of an image of this shape.

    Args:
        shape: (H, W).
        profiles: (R,) or (T, R), values at R frequencies evenly spaced from 0 to 1/2 cycles per pixel, both included;
            linear between them, constant beyond.
        dtype: of frequencies and factors.

    Returns:
        (H, W // 2 + 1) or (T, H, W // 2 + 1).
    """
    frequencies, at = radial_frequencies(shape, dtype), np.linspace(0.0, 0.5, profiles.shape[-1])
    if profiles.ndim == 1:
        return np.asarray(np.interp(frequencies, at, profiles), dtype)
    return np.array([np.interp(frequencies, at, profile) for profile in profiles], dtype)


def radial_filter(images: Array, profiles: Array) -> Array:
    """Filter images by radial factors.

    Images are zero-padded to twice their sides and cropped again, so nothing wraps around; a side of one pixel (a signal) is not padded.
    The map is symmetric. It commutes with reflections and, on square images, with quarter turns.

    Args:
        images: (T, h, w) floating-point array of any library.
        profiles: (R,) or (T, R) NumPy, see :func:`radial_factors`.

    Returns:
        (T, h, w) of the library and dtype of ``images``.
    """
    xp = array_namespace(images)
    height, width = images.shape[-2:]
    wide = (2 * height if height > 1 else 1, 2 * width if width > 1 else 1)
    padded = xp.zeros((images.shape[0], *wide), dtype=images.dtype, device=device(images))
    inner = (slice(None), slice(0, height), slice(0, width))
    padded[inner] = images
    factors = radial_factors(wide, np.asarray(profiles), np.float64)
    spectra = xp.fft.rfftn(padded, axes=(1, 2)) * xp.astype(like(factors, images), images.dtype)
    return xp.fft.irfftn(spectra, s=wide, axes=(1, 2))[inner]
