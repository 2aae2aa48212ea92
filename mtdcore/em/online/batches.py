"""Mini-batch EM: each iteration reads a part of the measurement and mixes its statistics into running statistics.

Source: Cappé and Moulines, *On-line expectation-maximization algorithm for latent data models*, J. R. Statist. Soc. B 71
(2009). The parts of a measurement are alike, so the statistics of a part, divided by its share of the sites, estimate those of
the whole: ``S <- (1 - gamma_t) S + gamma_t s_t / share_t`` with the decaying weights ``gamma_t = (t + t0)^-alpha``.
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
        statistics: weighted mean of the estimates of the whole from each part; host arrays in an EMState.
        mixed: number of parts mixed since the statistics began.
        worth: effective share of the measurement in the mixture, ``1 / sum of weight^2 / share`` (the effective sample
            size of Kish), at most 1. The M-step gets the statistics scaled by it: their remaining noise
            then matches the level at which the prior denoises.
        nats: log-likelihood of the part that was mixed last, at a target from before that part. For reports only.
    """

    statistics: Statistics
    mixed: int
    worth: float
    nats: float = math.nan

    @property
    def weighed(self) -> Statistics:
        """The statistics for the M-step, scaled by their worth."""
        return self.statistics.scaled(self.worth)

    def moved(self, convert: Callable[[Array], Array]) -> Running:
        """The same with converted arrays."""
        return replace(self, statistics=self.statistics.moved(convert))


@dataclass(frozen=True)
class OnlineEM:
    """The part of the measurement that an iteration reads, and the weight of earlier statistics.

    The last iterations are plain EM over all pixels, so that no accuracy is lost. The earlier iterations save passes while
    the target is still poor and a part of the pixels serves as well as all of them. One part is plain EM.

    Attributes:
        parts: number of equal parts of the measurement, one per iteration; at most its number of smallest tiles.
        exponent: alpha, in (1/2, 1]: rate at which old statistics are forgotten; at 1 all parts weigh the same.
        offset: t0 >= 0, in parts: a larger offset keeps the first parts for longer.
        last: number of final iterations over the whole measurement.
        seed: of the order of the parts, drawn anew each time all of them have been read.
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
        """The part that an iteration (counted from 0) reads."""
        if self.parts == 1 or iteration >= iterations - self.last:
            return measurement
        epoch, turn = divmod(iteration, self.parts)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.parts)
        return measurement.split(self.parts)[int(order[turn])]

    def remembers(self, share: float) -> bool:
        """Whether the next iteration keeps the statistics of a part of this share of the measurement."""
        return share < 1.0

    def mix(self, before: Running | None, found: Statistics, share: float) -> Running:
        """Running statistics after those of a part.

        Args:
            before: running statistics of earlier parts; None: there are none.
            found: statistics of the part, in the same array library.
            share: of the sites of the measurement in the part; 1: ``found`` replaces the running statistics.
        """
        whole = found.scaled(1.0 / share)
        if before is None or share == 1.0:
            return Running(whole, 1, share)
        mixed, spread = self._mixed(before, whole, share)
        return Running(mixed, before.mixed + 1, 1.0 / max(1.0, spread))

    def _mixed(self, before: Running, whole: Statistics, share: float) -> tuple[Statistics, float]:
        """The mixed statistics, and the inverse of their effective share of the measurement."""
        weight = (before.mixed + self.offset) ** -self.exponent
        # Older parts were scored at another noise level; their sums can still be added.
        old = replace(before.statistics, noise_std=whole.noise_std).scaled(1.0 - weight)
        return old + whole.scaled(weight), (1.0 - weight) ** 2 / before.worth + weight**2 / share


@dataclass(frozen=True)
class Arriving(OnlineEM):
    """Mini-batch EM over micrographs that arrive one by one: each is read once, and their number is unknown.

    The statistics are those of a mean micrograph; their worth is counted in micrographs and grows without bound. The first target is
    good already, so little is forgotten: with an exponent of .6 the statistics of n micrographs are worth ``2 n^.6`` micrographs, and the error
    after 60 simulated micrographs was 1.6 times that with .9 (``bench/speed/watch.py --exponents``).
    """

    exponent: float = 0.9

    def remembers(self, share: float) -> bool:
        """True: the statistics are always kept."""
        return True

    def mix(self, before: Running | None, found: Statistics, share: float) -> Running:
        """See :class:`OnlineEM`; statistics are not scaled up for the masked pixels of a micrograph."""
        if before is None:
            return Running(found, 1, 1.0, found.log_likelihood)
        mixed, spread = self._mixed(before, found, 1.0)
        return Running(mixed, before.mixed + 1, 1.0 / spread, found.log_likelihood)
