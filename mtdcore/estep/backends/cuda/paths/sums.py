"""What every way adds up, and the images that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from array_api_compat import array_namespace

from ....._base.typing import Array
from .....model.likelihood import Likelihood
from ..models import Items


@dataclass(frozen=True)
class Sums:
    """What a batch adds, on the device.

    Attributes:
        frames: (2, K, B, B) float64, back-projection and coverage.
        scores: (2,) float64: evidence in nats, and mass of the empty poses or expected count; then the mass of each class where there
            are several, and the sums of amplitudes and of their squares where these differ.
    """

    frames: Array
    scores: Array

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.frames + other.frames, self.scores + other.scores)


class Path(Protocol):
    """Statistics of a batch of items."""

    bytes_per_item: int

    @property
    def torus(self) -> tuple[int, int] | None:
        """On which tiles of windows are to lie; None: that of the model, or it does not matter."""
        ...

    def sums(self, items: Items) -> Sums:
        """Sums over the items; raises MemoryError, leaving nothing behind, when they are too many."""
        ...


def scaled(templates: Array, noise_std: float) -> tuple[Array, Array]:
    """R_k F / sigma^2 and (R_k F)^2 / (2 sigma^2), (K, L, L) float64."""
    return templates / noise_std**2, templates**2 / (2.0 * noise_std**2)


def with_classes(scores: Array, mass: Array, likelihood: Likelihood) -> Array:
    """Scores (2,), and behind them the posterior mass of each class where there are several, from that of templates."""
    if likelihood.classes == 1:
        return scores
    return array_namespace(scores).concat((scores, mass.reshape(likelihood.classes, -1).sum(axis=1)))
