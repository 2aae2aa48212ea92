"""Statistics of an E-step of volumes: in target space when complete, in the basis of its templates before."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ...model.volumes.toeplitz import Toeplitz
from ..ledger import joined


@dataclass(frozen=True, eq=False)
class VolumeStatistics:
    """The statistics of an E-step in target space: independent of the views, additive over tiles and parts.

    If the likelihood distinguishes micrographs, right, normal, energy, total, bright and weighed_pixels weight micrograph m by
    ``sigma^2 / sigma_m^2``, as if all had the noise level sigma; counts and evidence are not weighted.

    Attributes:
        right: (L, L, L) float64, ``sum_t A_t^T b_t``.
        normal: ``sum_t c_t A_t^T A_t``.
        log_likelihood: nats of evidence against "no copies" (docs/model.md 7).
        energy: sum of the squared valid pixels.
        expected_count: posterior expected number of copies.
        sites: number of owned corners.
        pixels: valid pixels that ``energy`` sums over, each once.
        local: number of owned corners in tiles with a local search.
        total: sum of the valid pixels.
        bright: sum of the amplitudes of the copies, each times the transfer of its micrograph at frequency 0.
        amplitude_sum: sum of the posterior mean amplitudes of the copies.
        amplitude_squares: sum of the posterior mean squared amplitudes.
        weighed_pixels: number of the valid pixels, weighted as in ``energy``.
        ledger: sums of each micrograph, if the likelihood distinguishes micrographs, see :mod:`mtdcore.estep.ledger`.
    """

    right: np.ndarray
    normal: Toeplitz
    log_likelihood: float
    energy: float
    expected_count: float
    sites: float
    pixels: float
    local: float
    total: float
    bright: float
    amplitude_sum: float
    amplitude_squares: float
    weighed_pixels: float
    ledger: np.ndarray | None = None

    def __add__(self, other: VolumeStatistics) -> VolumeStatistics:
        numbers = {name: getattr(self, name) + getattr(other, name) for name in NUMBERS}
        ledger = joined(self.ledger, other.ledger)
        return VolumeStatistics(
            self.right + other.right, self.normal + other.normal, **numbers, ledger=ledger
        )

    def normalised(self) -> VolumeStatistics:
        """Statistics of amplitudes with mean 1: the mean amplitude is moved to the volume, as in :meth:`mtdcore.Statistics.normalised`."""
        if not self.amplitude_sum > 0.0 or self.amplitude_sum == self.expected_count:
            return self
        mean = self.amplitude_sum / self.expected_count
        return replace(
            self,
            right=self.right / mean,
            normal=self.normal.scaled(1.0 / mean**2),
            bright=self.bright / mean,
            amplitude_sum=self.expected_count,
            amplitude_squares=self.amplitude_squares / mean**2,
        )

    def copy_energy(self, volume: np.ndarray) -> float:
        """``||A_t V||^2`` of a copy of amplitude 1, averaged over the copies; 0 without copies."""
        if not self.amplitude_squares > 0.0:
            return 0.0
        return float(np.vdot(volume, self.normal(volume))) / self.amplitude_squares

    def residual_energy(self, volume: np.ndarray) -> float:
        """Expected squared residual of the measurement given a volume, summed over the valid pixels."""
        return self.energy + float(np.vdot(volume, self.normal(volume) - 2.0 * self.right))


#: Names of the sums that are numbers, in order.
NUMBERS = tuple(f.name for f in fields(VolumeStatistics))[2:-1]


@dataclass(frozen=True, eq=False)
class BasisSums:
    """Sums of some tiles, weighted as in :class:`VolumeStatistics`.

    Attributes:
        wide: (T, r) posterior-weighted features.
        copies: (T,) squared amplitudes of copies, or (T, R) with their squared transfers.
        numbers: scalar sums, in the order of :data:`NUMBERS`.
        ledger: as of :class:`VolumeStatistics`.
    """

    wide: np.ndarray
    copies: np.ndarray
    numbers: np.ndarray
    ledger: np.ndarray | None = None

    def __add__(self, other: BasisSums) -> BasisSums:
        ledger = joined(self.ledger, other.ledger)
        return BasisSums(
            self.wide + other.wide, self.copies + other.copies, self.numbers + other.numbers, ledger
        )
