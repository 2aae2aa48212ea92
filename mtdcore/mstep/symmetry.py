"""M-step of a target of symmetry C_n: each copy counts in n orientations, and the target is an invariant image."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._base.typing import Array
from ..estep.statistics import Quadratic, Statistics
from ..model.priors import Prior
from ..model.symmetry import invariant, invariant_adjoint, invariant_normal
from .projected import Projected


def symmetrised(statistics: Statistics, order: int) -> Statistics:
    """The statistics for invariant targets, with n times the copies: ``n P^T right`` and ``n P^T N P``.

    A copy looks the same in n orientations, so it measures each pixel of the target n times: the noise of an average
    over p copies is ``sigma / sqrt(n p)`` per pixel. Sums over the measurement (energy, copies, ...) stay unchanged.

    Args:
        statistics: of one E-step, one class or several.
        order: n of C_n; 1: the statistics stay unchanged.
    """
    if order == 1:
        return statistics

    def symmetric(part: Quadratic) -> Quadratic:
        mean = Quadratic(invariant_adjoint(part.right, order), invariant_normal(part.normal, order))
        return mean.scaled(float(order))

    whole, frame = symmetric(statistics.quadratic), statistics.frame and symmetric(statistics.frame)
    return replace(statistics, right=whole.right, normal=whole.normal, frame=frame)


@dataclass(frozen=True)
class Symmetric(Projected):
    """An M-step over the invariant images: a projected step.

    Attributes:
        order: n of C_n.
    """

    order: int

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        seen = symmetrised(statistics, self.order)
        return invariant(self.update(target, seen, prior, iteration, iterations), self.order)
