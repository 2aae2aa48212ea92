"""The sums of every way, and the images from which it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from array_api_compat import array_namespace

from ....._base.typing import Array
from .....model.likelihood import Likelihood
from ..models import Items


@dataclass(frozen=True)
class Sums:
    """The sums of a batch, on the device.

    Attributes:
        frames: (2, K, B, B) float64, back-projection and coverage.
        scores: (2,) float64: evidence in nats, and mass of the empty poses or expected count; then the mass of each class if there
            are several, and the sums of amplitudes and of their squares if amplitudes differ.
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
        """Torus for tiles of windows; None: that of the model, or none is needed."""
        ...

    def sums(self, items: Items) -> Sums:
        """Sums over the items; raises MemoryError, and frees its memory, if they are too many."""
        ...


def scaled(templates: Array, noise_std: float) -> tuple[Array, Array]:
    """R_k F / sigma^2 and (R_k F)^2 / (2 sigma^2), (K, L, L) float64."""
    return templates / noise_std**2, templates**2 / (2.0 * noise_std**2)


def with_classes(scores: Array, mass: Array, likelihood: Likelihood) -> Array:
    """Scores (2,), followed by the posterior mass of each class if there are several; ``mass`` is that of templates."""
    if likelihood.classes == 1:
        return scores
    return array_namespace(scores).concat((scores, mass.reshape(likelihood.classes, -1).sum(axis=1)))
