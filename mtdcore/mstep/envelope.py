"""A Gaussian prior over volumes estimated from the data: the place of the density, and its power spectrum.

``V = e u``: the envelope e is the local root mean square of the last volume, which shows where density is expected; u is stationary with a
variance per shell of frequency. As in regularised-likelihood refinement (Scheres, J. Struct. Biol. 180 (2012) 519) the power per shell
follows from the data; the envelope acts as a tight mask without an edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from ..model.volumes.grids import shell_mean, shell_sizes
from ..model.volumes.toeplitz import Toeplitz

#: Least envelope inside the support, so that density may still appear where there is none yet.
_LEAST = 0.1

#: Width in boxes of the Gaussian window of the local mean square: that of a residue in a protein that fills the box.
_WIDTH = 0.05

#: Least power of a shell, in units of the noise of the unregularised solution: a smaller power cannot be told from 0.
_FIRST_FLOOR, _FLOOR = 0.05, 0.1

#: Ratio of the powers of neighbouring shells beyond the band.
_FALL = 0.7


@dataclass(frozen=True, eq=False)
class EnvelopePrior:
    """The prior of one M-step.

    Attributes:
        envelope: (L, L, L) float64 between 0 and 1.
        power: (n,) variance per voxel of u at each shell of frequency.
        top: last shell of the band.
    """

    envelope: np.ndarray
    power: np.ndarray
    top: int

    @classmethod
    def begin(
        cls,
        volume: np.ndarray,
        right: np.ndarray,
        normal: Toeplitz,
        noise_std: float,
        top: int,
        support: np.ndarray,
    ) -> EnvelopePrior:
        """A first estimate: the power of the right side beyond noise, made non-increasing with the frequency.

        ``e b = e N e u + noise`` has at each shell the variance ``N^2 P <e^4> + N sigma^2 <e^2>``.

        Args:
            volume: (L, L, L), the volume at which the statistics were computed.
            right: (L, L, L) right side of the M-step.
            normal: its operator.
            noise_std: standard deviation of the noise of a pixel.
            top: last shell of the band.
            support: (L, L, L) where density may be.
        """
        envelope = envelope_of(volume, support)
        seen = _seen(normal)
        measured = _spectrum(envelope * right)
        noise = seen * noise_std**2 * np.mean(envelope**2)
        power = (measured - noise) / (seen**2 * np.mean(envelope**4))
        power = np.maximum(power, _FIRST_FLOOR * noise_std**2 / seen)
        # Shell 0 is a single number with much leakage, so it gets the power of shell 1.
        falling = np.minimum.accumulate(power[np.maximum(np.arange(len(power)), 1)])
        return cls(envelope, _continued(falling, top), top)

    def at(self, volume: np.ndarray, top: int, support: np.ndarray) -> EnvelopePrior:
        """The same powers with the envelope of another volume and another band."""
        power = self.power if top <= self.top else _continued(self.power, self.top)
        return EnvelopePrior(envelope_of(volume, support), _continued(power, top), top)

    def learned(self, factor: np.ndarray, normal: Toeplitz, noise_std: float) -> EnvelopePrior:
        """The prior whose powers explain the posterior mean u of :func:`mtdcore.mstep.volumes.solve`.

        The mean shrinks the measured coefficients by x / (1 + x), x the signal-to-noise ratio of the shell; the measured power is the sum of the
        powers of u and of the noise. Frequencies are weighted by the copies that measured them: if views cluster, frequencies between the slices hold
        only rounding and misfit, and with equal weights the power would grow without bound.

        Args:
            factor: (L, L, L) u.
            normal: operator of the M-step.
            noise_std: standard deviation of the noise of a pixel.
        """
        weights, seen = normal.weights, _seen(normal)
        typical = np.maximum(shell_mean(weights**2, len(factor)) / seen, seen)
        noise = noise_std**2 / (typical * self.mean_square)
        ratio = self.power / noise
        share = np.mean(self.envelope > 0)  # u is 0 outside the envelope
        power = _spectrum(factor, weights) / seen / share * ((1.0 + ratio) / ratio) ** 2 - noise
        return replace(self, power=_continued(np.maximum(power, _FLOOR * noise), self.top))

    def drawn(self, factor: np.ndarray, rng: np.random.Generator, order: int = 1) -> EnvelopePrior:
        """The prior with powers drawn given u: ``sum |u|^2 / chi^2_(n - 2)`` for a shell of n free numbers, under a flat prior on the power.

        Shell 0 is one number, and is joined to shell 1.

        Args:
            factor: (L, L, L) u, a draw itself.
            rng: of the powers.
            order: number of rotations under which u is invariant, by which the free numbers are divided.
        """
        counts = shell_sizes(len(factor)).astype(np.float64)
        sums = _spectrum(factor) * counts
        counts[1], sums[1] = counts[0] + counts[1], sums[0] + sums[1]
        power = sums / rng.chisquare(np.maximum(counts / order - 2.0, 1.0))
        power[0] = power[1]
        return replace(self, power=_continued(power, self.top))

    @property
    def mean_square(self) -> float:
        """Mean of the squared envelope where it is not 0."""
        return float(np.mean(self.envelope[self.envelope > 0] ** 2))


def envelope_of(volume: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Local root mean square of a volume, at most 1, at least 0.1 inside the support; the support itself for a blank volume."""
    width = _WIDTH * len(volume)
    near, seen = (gaussian_filter(x, width, mode="constant") for x in (volume**2 * support, support))
    inside = support > 0
    local = np.sqrt(np.divide(near, seen, out=np.zeros_like(near), where=inside))
    largest = local.max()
    if not largest > 0.0:
        return support
    return np.asarray(np.maximum(local / largest, _LEAST) * support)


def _continued(power: np.ndarray, top: int) -> np.ndarray:
    """Powers continued beyond the band, falling from the last shell of the band: nothing was measured there."""
    power = power.copy()
    power[top + 1 :] = power[top] * _FALL ** np.arange(1, len(power) - top)
    return power


def _seen(normal: Toeplitz) -> np.ndarray:
    """Weight of the copies per shell, positive."""
    weights = normal.shell_weights
    return np.asarray(np.maximum(weights, 1e-9 * max(weights.max(), 1e-30)))


def _spectrum(volume: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    side = len(volume)
    return np.asarray(shell_mean(weights * np.abs(np.fft.rfftn(volume)) ** 2, side) / side**3)
