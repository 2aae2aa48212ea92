"""M-steps: from statistics and a prior to the next target (docs/model.md 4 and 8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from array_api_compat import array_namespace

from .._base.typing import Array
from ..errors import ParameterError
from ..estep.statistics import Statistics
from ..model.priors import Prior, denoise

#: Share of the largest coverage below which a pixel counts as unseen: the quotient would be rounding over rounding.
_UNSEEN = 1e-6

#: Share of the largest weight of a frequency that is added to all, where micrographs have a transfer.
_DAMPING = 1e-2

#: Share of the iterations that search: the temperature falls (:mod:`mtdcore.em.temperature`), denoising steps are longer than
#: those of EM. The others converge.
SEARCH_SHARE = 0.6

#: Prior weight gamma at (iteration, iterations), both counted from 0.
Schedule = Callable[[int, int], float]


def rising(iteration: int, iterations: int) -> float:
    """The paper's weight of the prior on MNIST, a :data:`Schedule`: tau / 100 in iteration tau of 100."""
    return (iteration + 1) / iterations


class Update(Protocol):
    """One M-step."""

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """The next target.

        Args:
            target: (L, L) float64, the target at which the statistics were computed.
            statistics: of the E-step, without margin; same array library as ``target``.
            prior: the prior over targets.
            iteration: index of this iteration, from 0.
            iterations: number of iterations planned.
        """
        ...


@dataclass(frozen=True)
class GradientAscent:
    """``F <- F + step (grad Q(F) + gamma s(F))``, the update of the paper (eq. 18).

    Attributes:
        step: step size mu.
        steps: gradient steps per E-step; the statistics hold at any F, so more steps cost no E-step.
        prior_weight: gamma, a number or a function of (iteration, iterations); the MNIST experiment of the
            paper uses :func:`rising`.
        prior_level: noise level at which the score is asked.
    """

    step: float
    steps: int = 1
    prior_weight: float | Schedule = 1.0
    prior_level: float = 0.0

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.steps >= 1):
            raise ParameterError(
                f"gradient ascent needs a positive step and at least one step; got step {self.step}, steps {self.steps}."
            )

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        weight = self.prior_weight
        gamma = weight(iteration, iterations) if callable(weight) else weight
        for _ in range(self.steps):
            slope = statistics.gradient(target)
            if gamma:
                slope = slope + gamma * prior.score(target[None, ...], self.prior_level)[0, ...]
            target = target + self.step * slope
        return target


@dataclass(frozen=True)
class ExactUpdate:
    """Maximiser of Q: ``sum_k R_k^T coverage_k R_k F = sum_k R_k^T backprojection_k``; the prior is not used.

    A division when the rotations are permutations, conjugate gradients from the current target otherwise.
    Pixels that no posterior mass saw keep their value.

    Attributes:
        tolerance: relative residual at which conjugate gradients stop.
        max_steps: largest number of conjugate-gradient steps.
    """

    tolerance: float = 1e-6
    max_steps: int = 50

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        return self.solve(target, statistics)

    def solve(self, target: Array, statistics: Statistics) -> Array:
        """The exact maximiser, started from (and where nothing was seen, left at) ``target``."""
        turned = statistics.rotation_set
        if not turned.exact or statistics.spectrum is not None:
            return self._conjugate_gradients(target, statistics)
        xp = array_namespace(target)
        coverage = turned.adjoint(statistics.coverage)
        seen = coverage > _UNSEEN * xp.max(coverage)
        average = turned.adjoint(statistics.backprojection) / xp.where(seen, coverage, xp.ones_like(coverage))
        return xp.where(seen, average, target)

    def _conjugate_gradients(self, target: Array, statistics: Statistics) -> Array:
        xp = array_namespace(target)
        turned = statistics.rotation_set

        def normal(image: Array) -> Array:
            return turned.adjoint(statistics.explained(turned.apply(image)))

        # Frequencies that hardly any transfer lets through move slowly: solved for, they would be noise over rounding.
        damping = 0.0 if statistics.spectrum is None else _DAMPING * statistics.largest_coverage
        right = turned.adjoint(statistics.backprojection)
        residual = right - normal(target)
        direction, square = residual, float(xp.sum(residual**2))
        stop = (self.tolerance**2) * float(xp.sum(right**2))
        for _ in range(self.max_steps):
            if square <= stop:
                break
            image = normal(direction) + damping * direction
            length = square / float(xp.sum(direction * image))
            target = target + length * direction
            residual = residual - length * image
            previous, square = square, float(xp.sum(residual**2))
            direction = residual + (square / previous) * direction
        return target


@dataclass(frozen=True)
class DenoisingUpdate:
    """One denoiser call at the noise level of the posterior-aligned average (docs/model.md 8).

    ``z = F + sigma^2 grad Q(F) / c`` and ``F <- D(z; sigma / sqrt(c))`` with c the largest coverage.
    Where coverage is uniform (window model) z is the aligned average itself and c the number of copies. Where
    it is not (patch model, interpolated rotations) this is a proximal-gradient step: its fixed point
    balances data and prior exactly for a Gaussian prior, without assuming white noise.

    Where poses are in doubt, z is mostly F: noise that looks like the target is averaged back to the target. EM then
    crawls, at a rate given by the share of the information that the poses withhold. Longer steps, ``F + w (z - F)``
    denoised at the level ``sqrt(w) sigma / sqrt(c)``, have the same fixed point for a Gaussian prior; w up to 2 is
    stable whatever that share is (Peters and Walker 1978; Salakhutdinov and Roweis, *Adaptive overrelaxed bound
    optimization methods*, 2003). The last iterations are plain EM steps.

    Attributes:
        steps: steps per E-step.
        relaxation: w of the first 60 % of the iterations, between 1 (plain EM) and 2; right angles only.
    """

    steps: int = 1
    relaxation: float = 2.0

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and 1.0 <= self.relaxation <= 2.0):
            raise ParameterError(
                "a denoising update needs at least one step and a relaxation between 1 and 2; "
                f"got steps {self.steps}, relaxation {self.relaxation}."
            )

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        copies = statistics.largest_coverage
        if copies <= 0.0:
            return target
        # interpolated rotations spread the eigenvalues of the normal operator to both sides of 1: w = 2 oscillates
        early = iteration < SEARCH_SHARE * iterations and statistics.rotation_set.exact
        longer = self.relaxation if early else 1.0
        variance = longer * statistics.noise_std**2 / copies
        for _ in range(self.steps):
            moved = target + variance * statistics.gradient(target)
            target = denoise(prior, moved[None, ...], math.sqrt(variance))[0, ...]
        return target
