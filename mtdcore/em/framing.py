"""The frame of the targets: the statistics that show it, and the choice of the gauge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from .._base.typing import pair, plain
from ..data import Measurement
from ..estep.statistics import Statistics
from ..model.likelihood import Likelihood
from ..model.rotations import in_plane
from ..model.symmetry import invariant
from ..mstep.symmetry import symmetrised
from .gauge.centre import centred
from .gauge.energy import EnergyGauge
from .gauge.scale import Scales
from .gauge.seen import Gauge, Restored, Seen
from .plan.defaults import Plan

#: E-step over a measurement or a part of it, at a target on the host.
EStep: TypeAlias = Callable[[Measurement, np.ndarray, Likelihood], Statistics]

#: Number of M-steps, starting at the target, that approximate the posterior mean at fixed poses.
_RESTORING = 2


def average(plan: Plan, target: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Unregularised aligned average on the host; pixels that no copy shows keep the value of the target.

    Args:
        plan: of the run.
        target: of the E-step, on the host.
        statistics: of the E-step, in the library of the backend.
    """
    start, order = plan.backend.asarray(target), plan.symmetry
    seen = symmetrised(statistics, order)
    return plan.backend.to_host(invariant(seen.normal.solve(seen.right, start), order))


@dataclass(frozen=True)
class Framing:
    """Puts targets into the frame of a gauge.

    Attributes:
        plan: of the run.
        source: the whole measurement.
        statistics: E-step of the run.
    """

    plan: Plan
    source: Measurement
    statistics: EStep

    def __call__(
        self, gauge: Gauge, target: np.ndarray, likelihood: Likelihood, batch: Measurement, scales: Scales
    ) -> tuple[np.ndarray, float]:
        """The targets in the frame of the gauge, and the passes over the batch that this took.

        Args:
            gauge: chooses the frame.
            target: on the host, with C in front for C classes.
            likelihood: scores the copies.
            batch: the measurement, or a part of it.
            scales: units of the prior, one per class; None: those of the measurement.
        """
        passes, views = 1.0, likelihood.views
        turns = in_plane(views) or views
        free = views.classes == 1 and not turns.exact and self.plan.symmetry == 1
        if free and not isinstance(gauge, EnergyGauge):  # EnergyGauge compares all whole-pixel frames itself
            target, passes = self._centred(target, likelihood, batch)
        # no margin along an axis of one pixel, or one that the box fills: the target cannot move there
        sides = zip(views.box_shape, self.source.shape[1:], strict=True)
        margin = plain(*(min(max(1, n // 5), side - n) if n > 1 else 0 for n, side in sides))
        statistics = self.statistics(batch, target, replace(likelihood, margin=margin))
        if views.classes == 1:
            return self._framed(gauge, target, statistics, scales[0] if scales else 1.0, likelihood), passes
        units = scales or (1.0,) * views.classes
        framed = [
            self._framed(gauge, t, statistics.of_class(c), units[c], likelihood) for c, t in enumerate(target)
        ]
        return np.stack(framed), passes

    def _centred(
        self, target: np.ndarray, likelihood: Likelihood, batch: Measurement
    ) -> tuple[np.ndarray, float]:
        """The target centred by the likelihood of copies at any angle in a part of the batch, and the passes that this took."""
        part, share, passes = self.enough(target, likelihood, batch)
        passes += 1.0  # the E-step with a margin that the gauge needs

        def gain(image: np.ndarray) -> float:
            nonlocal passes
            passes += share
            found = self.statistics(part, image, likelihood)
            return -found.residual_energy(self.plan.backend.asarray(image)) / (2.0 * likelihood.noise_std**2)

        return centred(target, gain), passes

    def enough(
        self, target: np.ndarray, likelihood: Likelihood, batch: Measurement
    ) -> tuple[Measurement, float, float]:
        """A part of the batch with enough copies to centre the target, its share, and the passes to find it.

        Parts are tried in turn, as some are empty or masked.
        """
        tiles = batch.tile_count(likelihood.bind(self.source.shape).geometry)
        count = max(1, min(int(likelihood.copies // self.plan.copies), tiles))
        if count == 1:
            return batch, 1.0, 0.0
        for tried, part in enumerate(batch.split(count), 1):
            found = self.statistics(part, target, likelihood)
            seen = min(1.0, found.pixels / found.sites)  # the expected count includes masked pixels
            if 2.0 * seen * found.expected_count >= self.plan.copies:
                return part, 1.0 / count, tried / count
        return batch, 1.0, 1.0

    def _framed(
        self,
        gauge: Gauge,
        target: np.ndarray,
        statistics: Statistics,
        unit: float,
        likelihood: Likelihood,
    ) -> np.ndarray:
        """The target of one class in the frame of the gauge, which works in the units of the prior."""
        copies, margin = statistics.normal.bound * self.plan.symmetry, statistics.margin
        if copies <= 0.0:
            return target
        around = [(m, m) for m in pair(margin)]
        mean = average(self.plan, np.pad(target, around), statistics.framed())
        level = statistics.noise_std / math.sqrt(copies)
        information, restored = self._informed(statistics, unit, likelihood)
        white = statistics.normal.spread == 1.0
        seen = Seen(mean / unit, level / unit, information, restored, white)
        asked = target / unit
        chosen = gauge.choose(asked, seen)
        return target if np.array_equal(chosen, asked) else unit * chosen

    def _informed(
        self, statistics: Statistics, unit: float, likelihood: Likelihood
    ) -> tuple[np.ndarray, Restored | None]:
        """The information about the target with its margin, and the posterior mean of one class given the information of a frame.

        Both are in the units of the prior. The posterior mean is None for the patch model, whose information depends on where the box lies,
        and for an M-step that is not a posterior mean.
        """
        fits = likelihood.localises and self.plan.update.update.fits_scale
        backend, variance = self.plan.backend, statistics.noise_std**2
        whole = backend.to_host(statistics.framed().right) * unit / variance

        def restored(information: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, float]:
            one = replace(statistics, right=backend.asarray(information * variance / unit), frame=None)
            target = backend.asarray(image * unit)
            last = self.plan.iterations  # steps of plain EM
            for _ in range(_RESTORING):
                target = self.plan.update(target, one, self.plan.prior, last, last, (unit,))
            nats = (one.energy - one.residual_energy(target)) / (2.0 * variance)
            return backend.to_host(target) / unit, nats

        return whole, restored if fits else None
