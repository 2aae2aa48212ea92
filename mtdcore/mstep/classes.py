"""M-step for several targets: classes share the posterior of each copy and are otherwise independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from array_api_compat import array_namespace

from .._base.typing import Array
from ..estep.statistics import Statistics
from ..model.priors import Prior, ScaledPrior
from .updates import Update

#: Expected count below which a class is empty: less than one copy is not enough to update a target.
_EMPTY = 1.0


@dataclass(frozen=True)
class EachClass:
    """An M-step applied to each class; a single target passes through.

    An empty class keeps its target from when it lost its last copy. It may regain copies while its weight is kept above a floor
    (:func:`mtdcore.model.likelihood.base.shares`).

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
