"""Several targets at once: every class is a problem of its own, except that they share the posterior of each copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from array_api_compat import array_namespace

from .._base.typing import Array
from ..estep.statistics import Statistics
from ..model.priors import Prior, ScaledPrior
from .updates import Update

#: Expected copies below which a class is empty: less than one image is no data to change a target by.
_EMPTY = 1.0


@dataclass(frozen=True)
class EachClass:
    """An M-step applied to each class; a single target passes through.

    A class that is left without copies keeps its target: it may win some back while the weights are held up
    (:func:`mtdcore.model.likelihood.base.shares`), and what it shows in the end is what it showed when it lost the last of them.

    Attributes:
        update: the M-step of one class.
    """

    update: Update

    def __call__(
        self,
        target: Array,
        statistics: Statistics,
        prior: Prior,
        iteration: int,
        iterations: int,
        scales: Sequence[float] | None = None,
    ) -> Array:
        """See :class:`Update`; the target of C classes has C in front.

        With ``scales``, one per class, the prior has units of its own.
        """
        priors = [prior] * statistics.classes if scales is None else [ScaledPrior(prior, s) for s in scales]
        if statistics.classes == 1:
            return self.update(target, statistics, priors[0], iteration, iterations)
        moved = []
        for c in range(statistics.classes):
            mine, image = statistics.of_class(c), target[c, ...]
            occupied = mine.expected_count >= _EMPTY
            moved.append(self.update(image, mine, priors[c], iteration, iterations) if occupied else image)
        return array_namespace(target).stack(moved)
