"""Gold-standard halves: two volumes from disjoint parts of the data that share no more than a low-passed start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...data import Measurement
from ...em.volumes.recovery import VolumeRecovery
from ...model.volumes.grids import ball, low_passed
from ..halves import HalfMeasurement
from ..metrics import RingCorrelation
from .comparison import align_volumes, fourier_shell_correlation
from .trials import Repeat, repeated

#: Iterations of a half, as a share of those of the run: band and views grow anew, the temperature is 1.
_SHARE = 0.4


@dataclass(frozen=True, eq=False)
class VolumeHalves:
    """Volumes of two halves in one frame, and how they agree.

    They are compared behind the noise filter: if the noise is not white, the power of the unfiltered volumes may fall by orders of magnitude
    from shell to shell, and the edge of the ball leaks the strong shared shells into all others.

    Attributes:
        first: (L, L, L) float64, without the filter.
        second: (L, L, L) float64, aligned to the first.
        whole: their shell correlation, which counts down to :data:`~mtdcore.results.metrics.HALF_SETS_LIMIT`.
        aspherical: shell correlation without the spherical means, which any two particles share.
        runs: the recovery of each half, in its own frame.
    """

    first: np.ndarray
    second: np.ndarray
    whole: RingCorrelation
    aspherical: RingCorrelation
    runs: tuple[VolumeRecovery, VolumeRecovery]


def volume_halves(
    measurement: Measurement, recovery: VolumeRecovery, repeat: Repeat = repeated, **options: Any
) -> VolumeHalves:
    """Search each half anew, from the recovered volume low-passed to the first band of the run.

    Args:
        measurement: of the run.
        recovery: the run.
        repeat: makes the recoveries "half_1" and "half_2".
        options: further arguments of :func:`mtdcore.em.volumes.recover.recover_volume`: diameter, min_separation, prior, backend, executor.
    """
    plan = recovery.plan
    short = replace(
        plan, iterations=max(1, round(_SHARE * plan.iterations)), cooling=0.0, imposed=0.0, whole=0.3
    )
    start = low_passed(recovery.volume, plan.first_band)
    one, other = (
        repeat(
            f"half_{number}",
            half,
            box_size=plan.box_size,
            noise_std=recovery.noise_std,
            noise=recovery.noise_model,
            micrographs=recovery.micrographs,
            expected_count=recovery.expected_count,
            amplitude_std=recovery.amplitude_std,
            initial=start,
            plan=short,
            **options,
        )
        for number, half in enumerate(halves_of(measurement), 1)
    )
    both = one.seen, align_volumes(other.seen, one.seen, hands="same").volume
    first, second = (recovery.noise_model.unfiltered(half, plan.last_band) for half in both)
    a, b = (half * ball(plan.box_size) for half in both)
    curves = fourier_shell_correlation(a, b), fourier_shell_correlation(a, b, "aspherical")
    return VolumeHalves(first, second, *curves, (one, other))


def halves_of(measurement: Measurement) -> tuple[Measurement, Measurement]:
    """Two halves that share no pixel: whole micrographs if their number is even, otherwise the upper and the lower half of each."""
    if measurement.shape[0] % 2 == 0:
        first, second = measurement.split(2)
        return first, second
    return HalfMeasurement(measurement, False), HalfMeasurement(measurement, True)
