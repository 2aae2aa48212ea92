"""Several targets at once: every class is a problem of its own, except that they share the posterior of each copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from .._base.typing import Array
from ..estep.statistics import Statistics
from ..model.priors import Prior
from .updates import Update

#: Expected copies below which a class is empty: less than one image is no data to change a target by.
_EMPTY = 1.0


@dataclass(frozen=True)
class EachClass:
    """An M-step applied to each class; a single target passes through.

    A class that is left without copies keeps its target: it may win some back while the weights are held up
    (:func:`shares`), and what it shows in the end is what it showed when it lost the last of them.

    Attributes:
        update: the M-step of one class.
    """

    update: Update

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`; ``target`` is (L, L), or (C, L, L) for the statistics of C classes."""
        if target.ndim == 2:
            return self.update(target, statistics, prior, iteration, iterations)
        moved = []
        for c in range(statistics.classes):
            mine, image = statistics.of_class(c), target[c, ...]
            occupied = mine.expected_count >= _EMPTY
            moved.append(self.update(image, mine, prior, iteration, iterations) if occupied else image)
        return array_namespace(target).stack(moved)


def shares(statistics: Statistics, least: float) -> tuple[float, ...]:
    """Weights of the classes: their shares of the copies, none below ``least`` / C.

    Args:
        statistics: of C classes.
        least: 0 .. 1. A class is never given up altogether, however small this is: one copy in a hundred thousand.
    """
    counts = np.array([statistics.of_class(c).expected_count for c in range(statistics.classes)])
    total = counts.sum()
    weights = counts / total if total > 0.0 else np.full(len(counts), 1.0 / len(counts))
    floor = max(least / len(counts), 1e-5)
    low = np.zeros(len(counts), bool)
    while (weights < floor).any():  # what the others give up may bring one of them down, too
        low |= weights < floor
        rest = np.where(low, 0.0, counts)
        weights = np.where(low, floor, rest * (1.0 - floor * low.sum()) / max(rest.sum(), 1e-300))
    return tuple(float(w) for w in weights)
