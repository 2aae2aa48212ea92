"""Filters whose factors depend on the length of the frequency alone."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, device

from .typing import Array


def radial_filter(images: Array, profiles: Array) -> Array:
    """Filter images by factors that depend on the length of the frequency alone.

    Images are padded to twice their sides with zeros and cropped again, so nothing wraps around; on (h, w) images the
    map is symmetric, and commutes with quarter turns (where h = w) and reflections.

    Args:
        images: (T, h, w) float64 of any library.
        profiles: (R,) or (T, R) NumPy, factors at R frequencies evenly spaced from 0 to 1/2 cycles per pixel, both
            included; linear between them, constant beyond.

    Returns:
        (T, h, w) of the library of ``images``.
    """
    xp = array_namespace(images)
    height, width = images.shape[-2:]
    rows, columns = np.fft.fftfreq(2 * height), np.fft.rfftfreq(2 * width)
    factors = radial_profile(np.asarray(profiles), np.hypot(rows[:, None], columns))
    padded = xp.concat([images, xp.zeros_like(images)], axis=1)
    padded = xp.concat([padded, xp.zeros_like(padded)], axis=2)
    spectra = xp.fft.rfftn(padded, axes=(1, 2)) * like(factors, images)
    return xp.fft.irfftn(spectra, s=(2 * height, 2 * width), axes=(1, 2))[:, :height, :width]


def radial_profile(profiles: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """(..., R) profiles at frequencies of any shape: (..., *frequencies.shape) float64; see :func:`radial_filter`."""
    at = np.minimum(frequencies, 0.5) * 2 * (profiles.shape[-1] - 1)
    below = np.minimum(at.astype(np.int64), profiles.shape[-1] - 2)
    return np.asarray(profiles[..., below] + (at - below) * (profiles[..., below + 1] - profiles[..., below]))


def like(array: np.ndarray, other: Array) -> Array:
    """A host array in the library and on the device of another one."""
    return array_namespace(other).asarray(array, device=device(other))
