"""Fourier transforms between a cube of voxels and arbitrary frequencies, and their exact adjoints.

Kaiser-Bessel kernel of width 4 on a grid oversampled twice (Beatty, Nishimura and Pauly, IEEE Trans. Med. Imaging 24 (2005)
799): errors are about 1e-3 of the largest value, below those of the band limit of a projection. Written with Numba, which the engine
has anyway: at the sizes of a box (24 to 64 voxels) gathering costs less than the transform of the grid, and a NUFFT library
would be one more dependency for 5 % of an iteration.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft

from .kernels import kernel

#: Width of the kernel in samples of the grid, and of the grid in sides of the cube.
_WIDTH, _OVERSAMPLING = 4, 2

#: Shape of the kernel: the formula of Beatty et al. for this width and oversampling.
_BETA = math.pi * math.sqrt((_WIDTH / _OVERSAMPLING * (_OVERSAMPLING - 0.5)) ** 2 - 0.8)

#: Samples of half a kernel in the table; linear interpolation between them errs by 1e-7.
_STEPS = 4096

_kernel = kernel(error_model="numpy")


def transform(volume: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """``sum_r V(r) exp(-2 pi i k . r)`` at any frequencies, r counted from voxel N // 2; see :class:`Gathering`."""
    return Gathering(volume).at(frequencies)


class Gathering:
    """The transform of a volume at any frequencies, in parts: ``sum_r V(r) exp(-2 pi i k . r)``, r counted from voxel N // 2.

    Args:
        volume: (N, N, N) real, axes (z, y, x).
    """

    def __init__(self, volume: np.ndarray) -> None:
        side = len(volume)
        padded = np.zeros((_OVERSAMPLING * side,) * 3)
        padded[_centred(side)] = volume * _correction(side)
        self._grid = scipy.fft.fftn(padded)

    def at(self, frequencies: np.ndarray) -> np.ndarray:
        """(m,) complex128 at (m, 3) float64 frequencies (z, y, x) in cycles per voxel."""
        values = np.empty(len(frequencies), np.complex128)
        _gather(self._grid, frequencies, _table(), values)
        return values


class Spreading:
    """The adjoint of :class:`Gathering`, in parts: ``Re sum_j v_j exp(2 pi i k_j . r)``.

    Args:
        side: N of the cube of voxels to make.
    """

    def __init__(self, side: int) -> None:
        self._side = side
        self._grid = np.zeros((_OVERSAMPLING * side,) * 3, np.complex128)

    def add(self, values: np.ndarray, frequencies: np.ndarray) -> None:
        """Enter (m,) values at (m, 3) frequencies (z, y, x) in cycles per voxel."""
        _scatter(np.ascontiguousarray(values, np.complex128), frequencies, _table(), self._grid)

    def volume(self) -> np.ndarray:
        """(N, N, N) float64, r counted from voxel N // 2."""
        side, size = self._side, len(self._grid)
        inner = scipy.fft.ifftn(self._grid)[_centred(side)].real * size**3
        return np.asarray(inner * _correction(side))


def _centred(side: int) -> tuple[np.ndarray, ...]:
    """Indices of the voxels of a cube in the grid, whose first sample is voxel N // 2."""
    line = (np.arange(side) - side // 2) % (_OVERSAMPLING * side)
    return np.ix_(line, line, line)


@functools.cache
def _table() -> np.ndarray:
    """Half of the kernel, from its middle to its end and one zero beyond."""
    at = np.arange(_STEPS + 2) / _STEPS
    inside = np.sqrt(np.maximum(1.0 - at**2, 0.0))
    return np.where(at < 1.0, np.i0(_BETA * inside), 0.0) / np.i0(_BETA)


@functools.lru_cache(maxsize=8)
def _correction(side: int) -> np.ndarray:
    """Reciprocal of the transform of the kernel, at the voxels of a cube."""
    at = (np.arange(side) - side // 2) / (_OVERSAMPLING * side)
    root = np.sqrt(_BETA**2 - (np.pi * _WIDTH * at) ** 2)  # real: |at| <= 1/4
    line = root * np.i0(_BETA) / (_WIDTH * np.sinh(root))
    return np.asarray(line[:, None, None] * line[:, None] * line)


@_kernel
def _near(at, size, table, places, weights):
    """The four grid points around a coordinate, wrapped, and their weights."""
    first = math.floor(at) - 1
    for j in range(4):
        distance = abs(at - (first + j)) * 2048.0
        step = min(int(distance), 4096)
        weights[j] = table[step] + (table[step + 1] - table[step]) * (distance - step)
        places[j] = (first + j) % size


@_kernel
def _gather(grid, frequencies, table, values):
    """Interpolate the grid at the frequencies."""
    size = grid.shape[0]
    iz, iy, ix = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    wz, wy, wx = np.empty(4), np.empty(4), np.empty(4)
    for m in range(values.size):
        _near(frequencies[m, 0] * size, size, table, iz, wz)
        _near(frequencies[m, 1] * size, size, table, iy, wy)
        _near(frequencies[m, 2] * size, size, table, ix, wx)
        total = 0j
        for a in range(4):
            for b in range(4):
                row = grid[iz[a], iy[b]]
                line = wx[0] * row[ix[0]] + wx[1] * row[ix[1]] + wx[2] * row[ix[2]] + wx[3] * row[ix[3]]
                total += wz[a] * wy[b] * line
        values[m] = total


@_kernel
def _scatter(values, frequencies, table, grid):
    """The adjoint of :func:`_gather`: add values at frequencies to the grid."""
    size = grid.shape[0]
    iz, iy, ix = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    wz, wy, wx = np.empty(4), np.empty(4), np.empty(4)
    for m in range(values.size):
        _near(frequencies[m, 0] * size, size, table, iz, wz)
        _near(frequencies[m, 1] * size, size, table, iy, wy)
        _near(frequencies[m, 2] * size, size, table, ix, wx)
        for a in range(4):
            for b in range(4):
                row = grid[iz[a], iy[b]]
                share = wz[a] * wy[b] * values[m]
                for c in range(4):
                    row[ix[c]] += wx[c] * share
