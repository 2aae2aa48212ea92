"""What a run of volumes found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...estep.volumes import VolumeStatistics
from ...model.likelihood import WindowLikelihood
from .plan import VolumePlan
from .state import VolumeRecord, VolumeState


@dataclass(frozen=True, eq=False)
class VolumeRecovery:
    """A recovered volume; its hand is a coin toss, since projections do not fix it.

    Attributes:
        state: last state of the run.
        statistics: of an E-step over the whole measurement at the volume.
        plan: what the run did.
        separation: smallest distance of two copies, pixels.
        stopped: why the run ended; "blank": nothing was found.
    """

    state: VolumeState
    statistics: VolumeStatistics
    plan: VolumePlan
    separation: int
    stopped: Literal["iterations", "callback", "blank"]

    @property
    def volume(self) -> np.ndarray:
        """(L, L, L) float64, axes (z, y, x), at the scale of the measurement."""
        return self.state.best.volume

    @property
    def evidence(self) -> float:
        """Nats against "no copies" at the volume."""
        return self.statistics.log_likelihood

    @property
    def expected_count(self) -> float:
        """Copies in the measurement."""
        return self.statistics.expected_count

    @property
    def noise_std(self) -> float:
        """Of a pixel."""
        return self.state.best.noise_std

    @property
    def likelihood(self) -> WindowLikelihood:
        """The window model with the views and the numbers of the end."""
        views = self.plan.search(self.plan.iterations).views
        return WindowLikelihood(views, self.noise_std, max(self.expected_count, 1.0), self.separation)

    @property
    def history(self) -> tuple[VolumeRecord, ...]:
        """One record per iteration."""
        return self.state.history
