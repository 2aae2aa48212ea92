"""Mini-batch EM: each iteration reads a part of the measurement and mixes what it finds into running statistics.

Source: Cappé and Moulines, *On-line expectation-maximization algorithm for latent data models*, J. R. Statist. Soc. B 71
(2009). The parts of a measurement are alike, so the statistics of one, over its share of the sites, estimate those of the
whole: ``S <- (1 - gamma_t) S + gamma_t s_t / share_t`` with the decaying weights ``gamma_t = (t + t0)^-alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..._base.typing import Array
from ...data import Measurement
from ...errors import ParameterError
from ...estep.statistics import Statistics


@dataclass(frozen=True)
class Running:
    """Statistics mixed from parts, at the scale of the whole measurement.

    Attributes:
        statistics: weighted mean of what each part says of the whole; host arrays in an EMState.
        mixed: number of parts mixed since the statistics began.
        worth: share of the measurement that the mixture is worth, ``1 / sum of weight^2 / share`` (the effective sample
            size of Kish), at most 1. The M-step gets the statistics scaled by it: what noise is left in them
            then matches the level at which the prior denoises.
        nats: log-likelihood of the part that was mixed last, at a target that had not seen it. It decides nothing.
    """

    statistics: Statistics
    mixed: int
    worth: float
    nats: float = math.nan

    @property
    def weighed(self) -> Statistics:
        """What the M-step gets."""
        return self.statistics.scaled(self.worth)

    def moved(self, convert: Callable[[Array], Array]) -> Running:
        """The same with converted arrays."""
        return replace(self, statistics=self.statistics.moved(convert))


@dataclass(frozen=True)
class OnlineEM:
    """How much of the measurement an iteration reads, and how long it remembers what earlier ones found.

    The last iterations are plain ones over all pixels, so that no accuracy is lost: what the others save are passes
    while the target is still poor and a part of the pixels tells as much as all of them. One part is plain EM.

    Attributes:
        parts: number of equal parts of the measurement, one per iteration; at most its number of smallest tiles.
        exponent: alpha, in (1/2, 1]: how fast old statistics are forgotten, 1 never.
        offset: t0 >= 0, in parts: a larger one holds on to the first parts for longer.
        last: final iterations over the whole measurement.
        seed: of the order of the parts, drawn anew for each time all of them have been read.
    """

    parts: int = 1
    exponent: float = 0.6
    offset: float = 1.0
    last: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise ParameterError(f"mini-batch EM needs at least one part; got {self.parts}.")
        if not 0.5 < self.exponent <= 1.0:
            raise ParameterError(
                f"the exponent of the weights must lie above 1/2 and be at most 1; got {self.exponent}."
            )
        if not (math.isfinite(self.offset) and self.offset >= 0.0 and self.last >= 0):
            raise ParameterError(
                f"offset and last must be at least 0; got offset {self.offset} and last {self.last}."
            )

    def check_tiles(self, tiles: int) -> None:
        """Raise ParameterError when some part would hold no tile."""
        if tiles < self.parts:
            raise ParameterError(
                f"mini-batch EM reads whole tiles; this measurement has {tiles}, too few for {self.parts} parts: ask for "
                f"at most {tiles}."
            )

    def batch(self, measurement: Measurement, iteration: int, iterations: int) -> Measurement:
        """What an iteration (counted from 0) reads."""
        if self.parts == 1 or iteration >= iterations - self.last:
            return measurement
        epoch, turn = divmod(iteration, self.parts)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.parts)
        return measurement.split(self.parts)[int(order[turn])]

    def remembers(self, share: float) -> bool:
        """Whether a part of this share of the measurement leaves the next iteration something to remember."""
        return share < 1.0

    def mix(self, before: Running | None, found: Statistics, share: float) -> Running:
        """Running statistics after those of a part.

        Args:
            before: what earlier parts left; None: nothing.
            found: statistics of the part, in the same array library.
            share: of the sites of the measurement that the part holds; 1: there is no more to know than ``found``.
        """
        whole = found.scaled(1.0 / share)
        if before is None or share == 1.0:
            return Running(whole, 1, share)
        mixed, spread = self._mixed(before, whole, share)
        return Running(mixed, before.mixed + 1, 1.0 / max(1.0, spread))

    def _mixed(self, before: Running, whole: Statistics, share: float) -> tuple[Statistics, float]:
        """The statistics of both, and the inverse of the share of the measurement that they are worth."""
        weight = (before.mixed + self.offset) ** -self.exponent
        # An older part was seen at another noise level; its sums are of the same kind.
        old = replace(before.statistics, noise_std=whole.noise_std).scaled(1.0 - weight)
        return old + whole.scaled(weight), (1.0 - weight) ** 2 / before.worth + weight**2 / share


@dataclass(frozen=True)
class Arriving(OnlineEM):
    """Mini-batch EM over micrographs that come one by one: each is read once, and nobody knows how many there will be.

    Statistics are those of a mean micrograph; what they are worth is counted in micrographs and grows without bound. The first target is
    a good one already, so little is forgotten: with an exponent of .6 statistics of n micrographs are worth ``2 n^.6`` of them, and the error
    after 60 simulated ones was 1.6 times that with .9 (``bench/speed/watch.py --exponents``).
    """

    exponent: float = 0.9

    def remembers(self, share: float) -> bool:
        """Always."""
        return True

    def mix(self, before: Running | None, found: Statistics, share: float) -> Running:
        """See :class:`OnlineEM`; masked pixels of a micrograph say nothing, and are not made up for."""
        if before is None:
            return Running(found, 1, 1.0, found.log_likelihood)
        mixed, spread = self._mixed(before, found, 1.0)
        return Running(mixed, before.mixed + 1, 1.0 / spread, found.log_likelihood)
