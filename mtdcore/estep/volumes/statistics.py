"""What an E-step of volumes found: in target space once it is whole, in the basis of its templates until then."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ...model.volumes.toeplitz import Toeplitz


@dataclass(frozen=True, eq=False)
class VolumeStatistics:
    """What an E-step found, in target space: independent of the views, additive over tiles and parts.

    Attributes:
        right: (L, L, L) float64, ``sum_t A_t^T b_t``.
        normal: ``sum_t c_t A_t^T A_t``.
        log_likelihood: nats of evidence against "no copies" (docs/model.md 7).
        energy: sum of the squared valid pixels.
        expected_count: posterior expected number of copies.
        sites: corners that tiles own.
        pixels: valid pixels that ``energy`` sums over.
        local: corners of those tiles that were searched locally.
        total: sum of the valid pixels.
        bright: copies, each times what its micrograph lets through of frequency 0.
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

    @property
    def numbers(self) -> list[float]:
        """The sums that are numbers, in order."""
        return [getattr(self, name) for name in NUMBERS]

    def __add__(self, other: VolumeStatistics) -> VolumeStatistics:
        numbers = (a + b for a, b in zip(self.numbers, other.numbers, strict=True))
        return VolumeStatistics(self.right + other.right, self.normal + other.normal, *numbers)

    def residual_energy(self, volume: np.ndarray) -> float:
        """Expected squared residual of the measurement given a volume, summed over the valid pixels."""
        return self.energy + float(np.vdot(volume, self.normal(volume) - 2.0 * self.right))


#: Names of the sums that are numbers, in order.
NUMBERS = tuple(f.name for f in fields(VolumeStatistics))[2:]


@dataclass(frozen=True, eq=False)
class BasisSums:
    """Sums of some tiles: (T, r) posterior-weighted features, (T,) copies, or (T, R) with their squared transfers, and the numbers of the
    statistics.
    """

    wide: np.ndarray
    copies: np.ndarray
    numbers: np.ndarray

    def __add__(self, other: BasisSums) -> BasisSums:
        return BasisSums(self.wide + other.wide, self.copies + other.copies, self.numbers + other.numbers)
