"""M-steps: from statistics and a prior to the next target (docs/model.md 4 and 8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from .._base.typing import Array
from ..errors import ParameterError
from ..estep.statistics import Statistics
from ..model.priors import Prior, denoise

#: Share of the iterations that search: the temperature falls (:mod:`mtdcore.em.temperature`), and denoising steps are longer
#: than those of EM. The other iterations converge.
SEARCH_SHARE = 0.6

#: Least number of denoising steps per E-step if a filter has left some frequencies weak.
_FILTERED = 8

#: Prior weight gamma at (iteration, iterations), both counted from 0.
Schedule = Callable[[int, int], float]


def rising(iteration: int, iterations: int) -> float:
    """The paper's weight of the prior on MNIST, a :data:`Schedule`: tau / 100 in iteration tau of 100."""
    return (iteration + 1) / iterations


#: Default choice of the frame, and default random pixels at the start.
Frame: TypeAlias = Literal["prior", "centre", "energy"] | None
Random: TypeAlias = Literal["uniform", "random", "faint"]


class Update(Protocol):
    """One M-step."""

    @property
    def uses_prior(self) -> bool:
        """Whether the update uses the prior of the run; a prior beside an update that ignores it is refused."""
        ...

    @property
    def fits_scale(self) -> bool:
        """Whether the update denoises at the level of its average, from which the scale of a prior can be fitted."""
        ...

    @property
    def gauge(self) -> Frame:
        """How the frame of the target is chosen by default: by the prior, in the middle of the box, by the energy in the box, or not at all."""
        ...

    @property
    def start(self) -> Random:
        """The default start without a prior."""
        ...

    @property
    def learns_offset(self) -> bool:
        """Whether the offset of the measurement is learned by default; the published method assumes a mean of 0."""
        ...

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """The next target.

        Args:
            target: float64 of the shape that the views of one class take, the target at which the statistics were computed.
            statistics: of the E-step and one class; same array library as ``target``.
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
        prior_level: noise level at which the score is evaluated, a number or a function of (iteration, iterations).
    """

    step: float
    steps: int = 1
    prior_weight: float | Schedule = 1.0
    prior_level: float | Schedule = 0.0

    uses_prior: ClassVar[bool] = True
    fits_scale: ClassVar[bool] = False
    gauge: ClassVar[Frame] = None
    start: ClassVar[Random] = "uniform"
    learns_offset: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.steps >= 1):
            raise ParameterError(
                f"gradient ascent needs a positive step and at least one step; got step {self.step}, steps {self.steps}."
            )

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        gamma, level = (
            value(iteration, iterations) if callable(value) else value
            for value in (self.prior_weight, self.prior_level)
        )
        for _ in range(self.steps):
            slope = statistics.gradient(target)
            if gamma:
                slope = slope + gamma * prior.score(target[None, ...], level)[0, ...]
            target = target + self.step * slope
        return target


@dataclass(frozen=True)
class ExactUpdate:
    """Maximiser of Q: ``sum_t A_t^T c_t A_t F = sum_t A_t^T b_t``; the prior is not used.

    A division when the views are permutations, conjugate gradients from the current target otherwise
    (:mod:`mtdcore.model.normal`). Pixels without posterior mass keep their value.
    """

    uses_prior: ClassVar[bool] = False
    fits_scale: ClassVar[bool] = False
    gauge: ClassVar[Frame] = "energy"
    start: ClassVar[Random] = "random"
    learns_offset: ClassVar[bool] = True

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        return statistics.normal.solve(statistics.right, target)


@dataclass(frozen=True)
class DenoisingUpdate:
    """One denoiser call at the noise level of the posterior-aligned average (docs/model.md 8).

    ``z = F + sigma^2 grad Q(F) / c`` and ``F <- D(z; sigma / sqrt(c))`` with c the bound on the eigenvalues of N.
    If coverage is uniform (window model), z is the aligned average itself and c the number of copies. Otherwise (patch
    model, views that interpolate or have gain) this is a proximal-gradient step: its fixed point balances data and prior
    exactly for a Gaussian prior, without assuming white noise.

    If poses are uncertain, z is mostly F, as noise that resembles the target is averaged back to the target. EM then
    converges linearly at the rate of the missing information, which is slow. Longer steps, ``F + w (z - F)`` denoised at
    the level ``sqrt(w) sigma / sqrt(c)``, have the same fixed point for a Gaussian prior; w up to 2 is stable at any
    rate (Peters and Walker 1978; Salakhutdinov and Roweis, *Adaptive overrelaxed bound optimization methods*, 2003). The
    last iterations are plain EM steps.

    Attributes:
        steps: steps per E-step.
        relaxation: w of the first 60 % of the iterations, between 1 (plain EM) and 2; right angles only.
    """

    steps: int = 1
    relaxation: float = 2.0

    uses_prior: ClassVar[bool] = True
    fits_scale: ClassVar[bool] = True
    gauge: ClassVar[Frame] = "prior"
    start: ClassVar[Random] = "random"
    learns_offset: ClassVar[bool] = True

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
        bound = statistics.normal.bound
        if bound <= 0.0:
            return target
        # interpolating views spread the eigenvalues of the normal operator to both sides of 1, so that w = 2 oscillates
        early = iteration < SEARCH_SHARE * iterations and statistics.normal.exact
        longer = self.relaxation if early else 1.0
        variance = longer * statistics.noise_std**2 / bound
        steps = self.steps if statistics.normal.spread == 1.0 else max(self.steps, _FILTERED)
        for _ in range(steps):
            moved = target + variance * statistics.gradient(target)
            target = denoise(prior, moved[None, ...], math.sqrt(variance))[0, ...]
        return target
