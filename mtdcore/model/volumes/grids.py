"""Cubes of voxels: coordinates, the inscribed ball, shells of frequency.

Volumes are indexed (z, y, x), as MRC files store them, and turn about voxel L // 2 of each axis, as in RELION.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft
from scipy.ndimage import affine_transform

from ..._base.numerics.fourier import radial_frequencies


def radii(side: int) -> np.ndarray:
    """(L, L, L) float64 distance of each voxel from the centre, in voxels."""
    at = np.arange(side) - side // 2
    return np.asarray(np.sqrt(at[:, None, None] ** 2 + at[:, None] ** 2 + at**2))


@functools.lru_cache(maxsize=16)
def ball(side: int, diameter: float | None = None) -> np.ndarray:
    """(L, L, L) float64: 1 in the ball about the centre, 0 outside; a soft edge of one voxel.

    Args:
        side: L in voxels.
        diameter: diameter of the ball in voxels; None: the largest that fits, L - 1.
    """
    radius = (side - 1 if diameter is None else min(diameter, side - 1)) / 2
    inside = np.clip(radius + 0.5 - radii(side), 0.0, 1.0)
    inside.flags.writeable = False
    return inside


@functools.lru_cache(maxsize=16)
def shells(side: int) -> np.ndarray:
    """(L, L, L // 2 + 1) int: |k| L rounded, for the frequencies k of ``rfftn``."""
    found = np.rint(side * radial_frequencies((side,) * 3, np.float64)).astype(np.int64)
    found.flags.writeable = False
    return np.asarray(found)


@functools.lru_cache(maxsize=16)
def _counts(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiplicity of each entry of ``rfftn`` in ``fftn``, and its sum over each shell."""
    twice = np.full(shells(side).shape, 2.0)
    twice[..., 0] = 1.0
    if side % 2 == 0:
        twice[..., -1] = 1.0
    return twice, np.bincount(shells(side).ravel(), twice.ravel())


def shell_mean(values: np.ndarray, side: int) -> np.ndarray:
    """Mean over each shell of values at the frequencies of ``rfftn``, every frequency of ``fftn`` counted once."""
    twice, total = _counts(side)
    return np.asarray(np.bincount(shells(side).ravel(), (values * twice).ravel()) / total)


def shell_sizes(side: int) -> np.ndarray:
    """(n,) number of frequencies of ``fftn`` in each shell."""
    return _counts(side)[1]


def filtered(volume: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """A volume filtered by gains: one for each frequency of ``rfftn``, or for each shell."""
    side = len(volume)
    transfer = gains[shells(side)] if gains.ndim == 1 else gains
    return np.asarray(scipy.fft.irfftn(scipy.fft.rfftn(volume) * transfer, s=volume.shape))


def low_passed(volume: np.ndarray, band: float) -> np.ndarray:
    """A volume reduced to the shells up to ``band`` cycles per voxel."""
    side = len(volume)
    return filtered(volume, (np.arange(shells(side).max() + 1) <= band * side + 1e-6).astype(float))


def spherical_mean(volume: np.ndarray) -> np.ndarray:
    """(L, L, L): the mean over each sphere about the centre, linear between spheres half a voxel apart."""
    at = 2.0 * radii(len(volume))
    low = at.astype(np.int64)
    part = at - low
    size = int(low.max()) + 2
    weight = _spread(low, part, np.ones_like(part), size)
    mean = _spread(low, part, volume, size) / np.maximum(weight, 1e-12)
    return np.asarray((1.0 - part) * mean[low] + part * mean[low + 1])


def _spread(low: np.ndarray, part: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    below = np.bincount(low.ravel(), ((1.0 - part) * values).ravel(), size)
    above = np.bincount(low.ravel() + 1, (part * values).ravel(), size)
    return np.asarray(below + above)


def shifted(volume: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Band-limited shift by (x, y, z) voxels; voxels that leave the box enter at the opposite side."""
    side = len(volume)
    line, half = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    turns = line[:, None, None] * shift[2] + line[:, None] * shift[1] + half * shift[0]
    spectrum = scipy.fft.rfftn(volume) * np.exp(-2j * np.pi * turns)
    return np.asarray(scipy.fft.irfftn(spectrum, s=volume.shape))


def moved(
    volume: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray | tuple[float, ...] = (0, 0, 0),
    order: int = 3,
) -> np.ndarray:
    """The volume turned by a rotation about its centre and then shifted by (x, y, z) voxels; zeros move in.

    Args:
        volume: (L, L, L).
        rotation: (3, 3), acting on (x, y, z).
        shift: (x, y, z) in voxels.
        order: order of the interpolating spline, 1 to 5.
    """
    centre = np.full(3, len(volume) // 2)
    inverse = rotation.T[::-1, ::-1]  # axes (z, y, x)
    offset = centre - inverse @ (centre + np.asarray(shift)[::-1])
    return np.asarray(affine_transform(volume, inverse, offset, order=order, mode="constant"))
