"""Stochastic EM with a denoiser: posterior draws in the first iterations, posterior means later (docs/model.md 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._base.numerics.conversion import like, on_host
from .._base.typing import Array
from ..errors import ParameterError
from ..estep.statistics import Statistics
from ..model.priors import Prior
from ..model.sampling import sample_from
from .updates import DenoisingUpdate

#: Levels of the reverse diffusion of one draw. With 24 the draws vary too little by a seventh, with 12 by a quarter.
_LEVELS = 24


@dataclass(frozen=True)
class AnnealedUpdate(DenoisingUpdate):
    """A draw from the posterior of the target given its aligned average in the first iterations, then :class:`DenoisingUpdate`.

    The average ``z = F + sigma^2 grad Q(F) / c`` has white noise of standard deviation ``s = sigma / sqrt(c)``, where sigma includes the temperature
    of the iteration and c is the number of copies. The reverse diffusion of a draw starts at the noise level of z, so that its start follows from the
    temperature and the copies found so far. A draw has details that an average over uncertain poses has lost.

    Source: Celeux and Diebolt, *The SEM algorithm* (1985), with a diffusion for the draw.

    Attributes:
        drawn: share of the iterations that draw, between 0 and 1.
        seed: of the draws.
    """

    drawn: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.drawn <= 1.0:
            raise ParameterError(f"the share of iterations that draw lies between 0 and 1; got {self.drawn}.")

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`mtdcore.mstep.updates.Update`."""
        if iteration >= self.drawn * iterations or statistics.normal.bound <= 0.0:
            return super().__call__(target, statistics, prior, iteration, iterations)
        average, level = statistics.aligned(target)
        noise = np.random.default_rng((self.seed, iteration))
        seen = on_host(average, np.float64)[None, ...]
        (draw,) = sample_from(prior, seen, level, steps=_LEVELS, noise=noise)
        return like(draw, target, target.dtype)
