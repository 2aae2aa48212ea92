"""Sampling of targets from the posterior with unknown poses: Langevin steps instead of M-steps (docs/model.md 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .._base.numerics.conversion import like, on_host
from .._base.typing import Array
from ..errors import ParameterError
from ..estep.statistics import Statistics
from ..model.priors import Prior, denoise
from ..model.sampling import sample_from
from .updates import Frame, Random


@dataclass(eq=False)
class LangevinUpdate:
    """The denoising step of EM plus deviations of posterior draws from their mean: ``F <- D(z; s) + (e + e_before) / sqrt 2``.

    z and s are those of :class:`mtdcore.mstep.updates.DenoisingUpdate` without relaxation, e a draw from the posterior of the target given z less
    its mean D(z; s). Near the fixed point of EM the step is ``x -> r x`` with ``r = 1 - C^-1 I``, where C^-1 is the covariance of e (of the
    target given z) and I the information of data and prior with unknown poses. If every deviation is used in two steps, the iterates have the
    covariance ``C^-1 / (1 - r) = I^-1``, for any missing information; with each in one step it would be ``C^-1 / (1 - r^2)``, too narrow.

    Source: Leimkuhler and Matthews, *Rational construction of stochastic numerical methods for molecular sampling* (2013), whose averaged noise
    makes Langevin steps of any length exact for a Gaussian; here the length is 1 in the metric C. One object is one chain: it keeps the last deviation.

    Attributes:
        seed: of the deviations.
        levels: of the reverse diffusion that draws them, by Heun's method: with 32 they are up to 2 % too small.
    """

    seed: int | Sequence[int] = 0
    levels: int = 32

    uses_prior: ClassVar[bool] = True
    fits_scale: ClassVar[bool] = True
    gauge: ClassVar[Frame] = None
    start: ClassVar[Random] = "random"
    learns_offset: ClassVar[bool] = True

    _noise: np.random.Generator = field(init=False, repr=False)
    _before: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ParameterError(f"a draw needs at least 2 levels; got {self.levels}.")
        self._noise = np.random.default_rng(self.seed)

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`mtdcore.mstep.updates.Update`."""
        if statistics.normal.bound <= 0.0:
            return target
        seen, level = statistics.aligned(target)
        average = on_host(seen, np.float64)[None, ...]
        mean = denoise(prior, average, level)
        count = 1 if self._before is not None else 2
        draws = sample_from(
            prior, average.repeat(count, 0), level, steps=self.levels, noise=self._noise, corrected=True
        )
        deviations = draws - mean
        before = deviations[-1] if self._before is None else self._before
        self._before = deviations[0]
        return like(mean[0] + (deviations[0] + before) / math.sqrt(2.0), target, target.dtype)
