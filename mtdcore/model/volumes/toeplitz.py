"""The normal operator of projections, a convolution: its sum, eigenvalue bound and solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import scipy.fft

from ..._base.numerics.conjugate_gradients import conjugate_gradients
from ..._base.typing import Array
from .grids import ball, filtered, shell_mean

#: Share of the largest weight that :meth:`Toeplitz.solve` adds to all weights: frequencies with few views would be amplified noise.
_DAMPING = 1e-3

#: Relative residual at which :meth:`Toeplitz.solve` stops, and its largest number of steps.
_TOLERANCE, _STEPS = 1e-4, 50


@dataclass(frozen=True, eq=False)
class Toeplitz:
    """The normal operator ``V -> sum_t A_t^T c_t A_t V``: a convolution, because it commutes with shifts of V.

    Attributes:
        spectrum: (2L, 2L, L + 1) float64, the kernel's ``rfftn`` on the doubled grid, where the convolution does not wrap.
    """

    spectrum: np.ndarray

    exact = False
    spread = 1.0

    @property
    def side(self) -> int:
        """L in voxels."""
        return len(self.spectrum) // 2

    @property
    def bound(self) -> float:
        """Upper bound of the eigenvalues: the largest sum of absolute values of a row (Schur's test)."""
        side, shape = self.side, self.spectrum.shape[:2] + self.spectrum.shape[:1]
        lags = np.abs(scipy.fft.irfftn(self.spectrum, s=shape))
        sums = Toeplitz(scipy.fft.rfftn(lags).real)(np.ones((side, side, side)))
        return float(sums.max())

    @property
    def shell_weights(self) -> np.ndarray:
        """(n,) mean eigenvalue at the frequencies of each shell: the weight of the views there."""
        return shell_mean(self.weights, self.side)

    @cached_property
    def weights(self) -> np.ndarray:
        """(L, L, L // 2 + 1) float64 non-negative eigenvalues of the nearest periodic convolution.

        Nearest in the Frobenius norm (Chan, SIAM J. Sci. Stat. Comput. 9 (1988) 766): each lag counts as often as it occurs in the box.
        """
        side, shape = self.side, self.spectrum.shape[:2] + self.spectrum.shape[:1]
        often = np.maximum(1.0 - np.abs(np.fft.fftfreq(2 * side) * 2.0), 0.0)
        lags = scipy.fft.irfftn(self.spectrum, s=shape) * often[:, None, None] * often[:, None] * often
        folded = lags.reshape(2, side, 2, side, 2, side).sum(axis=(0, 2, 4))
        return np.asarray(np.maximum(scipy.fft.rfftn(folded).real, 0.0))

    def __call__(self, target: Array) -> np.ndarray:
        """(L, L, L) -> (L, L, L) float64."""
        side = self.side
        mask, shape = ball(side), self.spectrum.shape[:2] + self.spectrum.shape[:1]
        product = self.spectrum * scipy.fft.rfftn(np.asarray(target) * mask, s=shape)
        return np.asarray(scipy.fft.irfftn(product, s=shape)[:side, :side, :side] * mask)

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, Toeplitz):
            return NotImplemented
        return type(self)(self.spectrum + other.spectrum)

    def scaled(self, factor: float) -> Self:
        """The operator of ``factor`` times the copies."""
        return type(self)(self.spectrum * factor)

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """The operator itself: its kernel always is a host array."""
        return self

    def solve(self, right: Array, start: Array) -> np.ndarray:
        """``V`` with ``N V = right`` by damped, preconditioned conjugate gradients; frequencies without views keep the values of ``start``."""
        damping = _DAMPING * float(self.weights.max())
        nearly = 1.0 / (self.weights + damping)
        first = np.asarray(start, np.float64)
        step = conjugate_gradients(
            lambda v: self(v) + damping * v,
            np.asarray(right, np.float64) - self(first),
            np.zeros_like(first),
            lambda v: filtered(v, nearly),
            _STEPS,
            _TOLERANCE,
        )
        return np.asarray(first + step)

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """Weight of the views at frequencies of (n,) cycles per voxel: the mean eigenvalue of their shells."""
        shell = np.arange(len(self.shell_weights)) / self.side
        return np.asarray(np.interp(frequencies, shell, self.shell_weights))
