"""The log-likelihood of a target and its surroundings, from which a gauge chooses the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from ...model.priors import Prior, denoise

#: The (h, w) posterior mean of a frame, and the nats by which it explains the copies, given the (h, w) information in the frame and an
#: image to start from.
Restored: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]


@dataclass(frozen=True)
class Seen:
    """The log-likelihood of the target and a margin around it, a quadratic, in the forms that gauges use.

    Attributes:
        average: (B, B) its maximiser, the aligned average without prior.
        level: noise level of the average; pixels outside a frame count as noise of this level.
        information: (B, B) its gradient at a target of 0, ``right / sigma^2``. Behind a filter it weighs each frequency by its certainty; the average does not.
        restored: posterior mean of a frame; None: only the average is known.
        white: whether the noise of the average is white.
    """

    average: np.ndarray
    level: float
    information: np.ndarray
    restored: Restored | None = None
    white: bool = True

    @classmethod
    def of_average(cls, average: np.ndarray, level: float, prior: Prior | None = None) -> Seen:
        """From an average with white noise of a level, and the prior of its image, if there is one."""

        def restored(information: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, float]:
            assert prior is not None
            image = np.asarray(denoise(prior, level**2 * information[None], level)[0])
            return image, float((image * (information - 0.5 * image / level**2)).sum())

        return cls(average, level, average / level**2, None if prior is None else restored)

    def mirrored(self) -> Seen:
        """The same for the mirror image."""
        return replace(
            self, average=self.average[:, ::-1].copy(), information=self.information[:, ::-1].copy()
        )


class Gauge(Protocol):
    """Chooses the frame of a target."""

    def choose(self, target: np.ndarray, seen: Seen) -> np.ndarray:
        """The (L, L) target in its preferred frame.

        Args:
            target: (L, L).
            seen: by the copies.
        """
        ...
