"""M-steps of volumes: preconditioned conjugate gradients on the doubled grid, converged in every M-step.

The statistics of any views are a right side ``b = sum_t A_t^T b_t`` and a convolution ``N = sum_t c_t A_t^T A_t``; the M-step maximises
``-(<V, N V> - 2 <b, V>) / 2 sigma^2 + log p(V)``. Convergence matters, as stopping after a few steps regularises by an unknown amount.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._base.numerics.conjugate_gradients import Linear, conjugate_gradients
from .._base.numerics.gaussian_draws import gaussian_draw
from ..model.priors import Prior, ScaledPrior, denoise, has_own_units, spread_of
from ..model.volumes.grids import ball, filtered, shell_sizes, shells
from ..model.volumes.toeplitz import Toeplitz
from .envelope import EnvelopePrior


@dataclass(frozen=True)
class VolumeUpdate:
    """Maximiser under a Gaussian prior estimated from the data, then half-quadratic denoising if there is a learned prior.

    Attributes:
        rounds: number of estimates of the power per shell in one M-step, each followed by a solution.
        steps: largest number of steps of one solution.
        tolerance: relative residual at which a solution has converged.
        denoisings: calls of the denoiser in one M-step.
        seed: of the noise that is added before denoising.
    """

    rounds: int = 1
    steps: int = 20
    tolerance: float = 1e-3
    denoisings: int = 4
    seed: int = 0

    def __call__(
        self,
        volume: np.ndarray,
        right: np.ndarray,
        normal: Toeplitz,
        noise_std: float,
        band: float,
        spectrum: EnvelopePrior | None = None,
        prior: Prior | None = None,
        diameter: float | None = None,
    ) -> tuple[np.ndarray, EnvelopePrior]:
        """The next volume, and its Gaussian prior.

        Args:
            volume: (L, L, L) at which the statistics were computed.
            right: (L, L, L) right side.
            normal: operator.
            noise_std: of a pixel; larger by ``1 / sqrt(share)`` if statistics of a share of the data were scaled up.
            band: highest frequency of the views, in cycles per voxel.
            spectrum: prior from the last M-step; None: estimated from the right side.
            prior: learned prior over volumes; None: no learned prior. If it has units of its own, see :func:`in_units_of`.
            diameter: of the ball that holds the density, in voxels; None: that of the box.
        """
        support = ball(len(volume), diameter)
        top = max(1, math.floor(band * len(volume) + 1e-6))
        if spectrum is None:
            spectrum = EnvelopePrior.begin(volume, right, normal, noise_std, top, support)
        else:
            spectrum = spectrum.at(volume, top, support)
        factor = volume / np.maximum(spectrum.envelope, 1e-3) * (spectrum.envelope > 0)
        for _ in range(self.rounds):
            factor = solve(right, normal, noise_std, spectrum, factor, self.steps, self.tolerance)
            spectrum = spectrum.learned(factor, normal, noise_std)
        found = spectrum.envelope * factor
        if prior is not None:
            scaled, rng = in_units_of(prior, found), np.random.default_rng(self.seed)
            for _ in range(self.denoisings):
                found = half_quadratic(
                    found, right, normal, noise_std, band, scaled, rng, self.steps, self.tolerance
                )
            found = found * support
        return found, spectrum


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """The left side A of an M-step, from data and prior: the unknown has the posterior ``N(A^-1 b, sigma^2 A^-1)``.

    Attributes:
        operator: A, symmetric and positive definite.
        nearly: (L, L, L // 2 + 1) eigenvalues of a periodic convolution that approximates ``A^-1``.
    """

    operator: Linear
    nearly: np.ndarray

    @classmethod
    def of(cls, normal: Toeplitz, noise_std: float, prior: EnvelopePrior) -> NormalEquations:
        """The equations of u: ``A = e N e + sigma^2 / P``; ``nearly`` is the inverse for a flat envelope."""
        envelope, power = prior.envelope, prior.power.copy()
        # Beyond the band there are no data: a tiny power keeps the solution at 0 there, and the number of steps small.
        power[prior.top + 1 :] = 1e-4 * power[prior.top]
        inverse = (noise_std**2 / power)[shells(normal.side)]
        return cls(
            lambda u: envelope * normal(envelope * u) + filtered(u, inverse),
            1.0 / (normal.weights * prior.mean_square + inverse),
        )

    @classmethod
    def tied(cls, normal: Toeplitz, tie: float) -> NormalEquations:
        """The equations of a volume tied to another volume: ``A = N + tie``."""
        return cls(lambda v: normal(v) + tie * v, 1.0 / (normal.weights + tie))

    def solve(self, right: np.ndarray, start: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
        """``A^-1`` of a right side, from a first guess; see :func:`conjugate_gradients`."""
        solved: np.ndarray = conjugate_gradients(
            self.operator, right, start, lambda v: filtered(v, self.nearly), steps, tolerance
        )
        return solved

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(L, L, L) from ``N(0, A^-1)``."""
        gains = np.sqrt(self.nearly)
        white = rng.standard_normal((len(gains),) * 3)
        return gaussian_draw(self.operator, lambda v: filtered(v, gains), white)


def solve(
    right: np.ndarray,
    normal: Toeplitz,
    noise_std: float,
    prior: EnvelopePrior,
    start: np.ndarray,
    steps: int = 20,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """The posterior mean u of ``V = e u``: ``(e N e + sigma^2 / P) u = e b``.

    Args:
        right: (L, L, L) b.
        normal: N.
        noise_std: sigma.
        prior: e and P.
        start: (L, L, L) first guess of u.
        steps: largest number of steps.
        tolerance: see :func:`conjugate_gradients`.

    Returns:
        (L, L, L) float64.
    """
    equations = NormalEquations.of(normal, noise_std, prior)
    return equations.solve(prior.envelope * right, start, steps, tolerance)


def half_quadratic(
    volume: np.ndarray,
    right: np.ndarray,
    normal: Toeplitz,
    noise_std: float,
    band: float,
    prior: Prior,
    rng: np.random.Generator,
    steps: int = 20,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """One denoiser call, and the volume that balances it with the data: ``(N + sigma^2 / s^2) V = b + sigma^2 / s^2 D(V; s)``.

    s is the noise that the data leave in a voxel, ``s^2 = sum_(|k| <= band) sigma^2 / N(k) / L^3``; the denoiser runs at this level. The estimate V has
    less noise than s, and the output of a network is arbitrary for volumes unlike its training set. So the denoiser gets V + s n and V - s n, n white,
    and its outputs are averaged: the score of the smoothed density, in expectation over its noise.

    Source: half-quadratic splitting with a denoiser (Zoran and Weiss 2011; Zhang et al., *Plug-and-play image restoration with
    deep denoiser prior*, 2022); the noise after Renaud et al., *Plug-and-play image restoration with stochastic denoising
    regularization*, 2024.

    Returns:
        (L, L, L) float64.
    """
    level = noise_level(normal, noise_std, band)
    noise = level * rng.standard_normal(volume.shape)
    clean = np.asarray(denoise(prior, np.stack([volume + noise, volume - noise]), level), np.float64).mean(
        axis=0
    )
    tie = (noise_std / level) ** 2
    return NormalEquations.tied(normal, tie).solve(right + tie * clean, clean, steps, tolerance)


def in_units_of(prior: Prior, volume: np.ndarray) -> Prior:
    """A prior with units of its own, in the units of a volume: its images get the root mean square of the volume.

    The first shells hold nearly all of the mean square, and the data determine them at any poses. The volume is the Gaussian solution of the
    same M-step, not the output of the prior, so that the scale cannot run away.
    """
    size = math.sqrt(float(np.mean(np.square(volume))))
    return ScaledPrior(prior, size / spread_of(prior)) if has_own_units(prior) and size > 0.0 else prior


def noise_level(normal: Toeplitz, noise_std: float, band: float) -> float:
    """Standard deviation of a voxel of the unregularised solution, band-limited: ``sqrt(sum_k sigma^2 / N(k) / L^3)``.

    N is averaged over each shell, as single frequencies that few slices pass would dominate the sum.
    """
    side = normal.side
    weights = np.maximum(normal.shell_weights, 1e-9 * normal.shell_weights.max())
    top = max(1, math.floor(band * side + 1e-6))
    counts = shell_sizes(side)
    return noise_std * math.sqrt(float(np.sum(counts[: top + 1] / weights[: top + 1])) / side**3)
