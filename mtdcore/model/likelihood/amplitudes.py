"""Amplitudes of copies: each copy is ``a`` times the target, ``a ~ N(1, v)``, integrated out in closed form (docs/model.md 7).

With ``g = <M, A_t F> / sigma^2`` and ``e = ||A_t F||^2 / sigma^2`` of a pose, both over the valid pixels:

    Lambda = (g - e / 2 + v g^2 / 2) / (1 + v e) - log(1 + v e) / 2        log-likelihood ratio; g - e / 2 where v = 0
    m      = (1 + v g) / (1 + v e)                                         posterior mean of a, given a copy there
    q      = m^2 + v / (1 + v e)                                           posterior mean of a^2

A copy of weight w adds ``w m`` times its pixels to the right side of the M-step, and ``w q`` to its normal operator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from array_api_compat import array_namespace

from ..._base.typing import Array

#: Standard deviation at which learning starts, and its upper bound: beyond it, the model hardly tells a copy from none.
FIRST, MOST = 0.3, 1.0

#: Change of the standard deviation below which it has converged.
SETTLED = 0.01

#: Expected number of copies below which the standard deviation is not learned.
LEAST_COPIES = 3.0


class Moments(Protocol):
    """Sums over the copies of an E-step; :class:`mtdcore.Statistics`."""

    @property
    def expected_count(self) -> float:
        """Posterior expected number of copies."""
        ...

    @property
    def amplitude_sum(self) -> float:
        """Sum of the posterior mean amplitudes."""
        ...

    @property
    def amplitude_squares(self) -> float:
        """Sum of the posterior mean squares of the amplitudes."""
        ...


@dataclass(frozen=True)
class Amplitudes:
    """The distribution of the amplitudes of copies.

    Attributes:
        variance: v > 0.
    """

    variance: float

    def log_ratio(self, gain: Array, energy: Array) -> Array:
        """Lambda of poses; gain g and energy e are floating-point arrays of one library that broadcast."""
        grown = 1.0 + self.variance * energy
        score = gain - 0.5 * energy + 0.5 * self.variance * gain**2
        return score / grown - 0.5 * array_namespace(grown).log(grown)

    def moment(self, order: int, gain: Array, energy: Array) -> Array:
        """Posterior mean of ``a^order`` for order 1 or 2, given a copy; arguments as in :meth:`log_ratio`."""
        grown = 1.0 + self.variance * energy
        mean = (1.0 + self.variance * gain) / grown
        return mean if order == 1 else mean**2 + self.variance / grown


def learned_std(amplitude_std: float, found: Moments, energy: float) -> float:
    """M-step of the standard deviation (docs/model.md 7).

    EM's ``v' = sum w ((m - 1)^2 + 1 / A) / sum w`` covers the share ``k^2`` of the distance to its fixed point, ``k = v e / (1 + v e)``: very
    little if v is small. A step ``1 / k^2`` times as long has the same fixed points, and reaches them at once if all e are equal (Louis 1982).
    Below ``k = 1 / 4`` the variance hardly affects the posterior; it is kept at this bound, from which it can grow again.

    Args:
        amplitude_std: value at which ``found`` was computed; 0, a fixed point of EM, is replaced by :data:`FIRST`.
        found: sums of an E-step, of amplitudes whose mean is 1.
        energy: e, ``||A_t F||^2 / sigma^2`` in the mean over the copies.
    """
    count = found.expected_count
    if count < LEAST_COPIES or not energy > 0.0:
        return 0.0
    if amplitude_std == 0.0:
        return FIRST
    before, least = amplitude_std**2, 1.0 / (3.0 * energy)
    resolved = before * energy / (1.0 + before * energy)
    variance = (found.amplitude_squares - 2.0 * found.amplitude_sum + count) / count
    moved = before + (variance - before) / max(resolved, 0.25) ** 2
    return min(math.sqrt(max(moved, least)), MOST)
