"""The scale of a prior with units of its own: one scale per class, started from the noise and fitted in every iteration.

The result does not depend on the units of the measurement: a copy of the start is worth a few nats at any noise level,
and the statistics determine the scale from there (:mod:`mtdcore.mstep.scale`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from array_api_compat import array_namespace

from ..._base.typing import Array, Lengths
from ...estep.statistics import Statistics
from ...model.priors import Prior, ScaledPrior
from ...model.sampling import sample_prior
from ...mstep.scale import observed_scale

#: One scale per class; None: the prior has the units of the measurement.
Scales: TypeAlias = tuple[float, ...] | None

#: ``||F||^2 / sigma^2`` of the starts, twice the nats that a copy is worth: enough to find copies of that strength,
#: little enough for stronger copies to raise it.
_FIRST_ENERGY = 25.0

#: Least scale in the first half of the run, as a share of the first scale, and least norm of the target, as a share of the start's: a blank target stays blank.
_LEAST_SHARE = 1 / 3

#: Factor by which the norm of a target, in the prior's units, may leave the range of the prior's images, either way. The output of a network is
#: arbitrary for images unlike its training set: a ring under the prior of proteins led the scale down, and the target up, to no copies.
_BEYOND = 1.5

#: Number of samples that estimate the norms of the prior's images.
_SAMPLES = 16


@dataclass(frozen=True)
class OwnUnits:
    """The units of a prior.

    Attributes:
        norm: root mean square norm of its images, in its own units.
        lightest, heaviest: the smallest and the largest norm of some of its images.
    """

    norm: float
    lightest: float
    heaviest: float

    @classmethod
    def of(cls, prior: Prior, box_size: Lengths) -> OwnUnits:
        """The units of a prior, from a few samples."""
        samples = sample_prior(prior, _SAMPLES, box_size)
        norms = np.linalg.norm(np.reshape(samples, (len(samples), -1)), axis=1)
        return cls(float(np.sqrt(np.mean(norms**2))), float(norms.min()), float(norms.max()))

    def first(self, noise_std: float) -> float:
        """The scale at which an image of the prior makes a faint copy."""
        return math.sqrt(_FIRST_ENERGY) * noise_std / self.norm

    def shown(self, targets: np.ndarray, noise_std: float) -> tuple[float, ...]:
        """The scales of given targets, (L, L) or (C, L, L)."""
        stack = np.reshape(targets, (-1, *targets.shape[-2:]))
        least = _LEAST_SHARE * self.first(noise_std)
        return tuple(max(least, float(np.linalg.norm(target)) / self.norm) for target in stack)

    def visible(self, target: np.ndarray, noise_std: float) -> np.ndarray:
        """A target, (L, L) or (C, L, L), amplified to the norm of the least scale if it is fainter: such a target would stay lost in the noise."""
        norms = np.linalg.norm(np.reshape(target, (-1, *target.shape[-2:])), axis=(1, 2))
        least = _LEAST_SHARE * math.sqrt(_FIRST_ENERGY) * noise_std
        gains = np.divide(least, norms, out=np.ones_like(norms), where=(norms > 0.0) & (norms < least))
        return np.asarray(target * (gains[:, None, None] if target.ndim == 3 else gains[0]))

    def fitted(
        self, target: Array, statistics: Statistics, prior: Prior, scales: Sequence[float], early: bool
    ) -> tuple[float, ...]:
        """The scales after an E-step.

        Args:
            target: at which the statistics were computed, with C in front for several classes; same library.
            statistics: of the E-step.
            prior: in units of its own.
            scales: before.
            early: whether the target may still be meaningless.
        """
        first = self.first(statistics.noise_std)
        single = statistics.classes == 1
        found = []
        for c, scale in enumerate(scales):
            image, mine = (target, statistics) if single else (target[c, ...], statistics.of_class(c))
            fitted = observed_scale(prior, image, mine, scale)
            shown = math.sqrt(float(array_namespace(image).sum(image**2)))
            if shown > 0.0:
                lowest, highest = shown / (_BEYOND * self.heaviest), _BEYOND * shown / self.lightest
                fitted = min(max(fitted, lowest), highest)
            found.append(max(fitted, _LEAST_SHARE * first) if early else fitted)
        return tuple(found)


def in_units(prior: Prior, scales: Scales, index: int = 0) -> Prior:
    """The prior of one class in the units of the measurement."""
    return prior if scales is None else ScaledPrior(prior, scales[index])
