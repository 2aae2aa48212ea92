"""Support of a target of known diameter: a soft disc, or a ball."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array
from ..estep.statistics import Statistics
from ..model.priors import Prior
from .projected import Projected

#: Width of the soft edge, as a share of the diameter, and in pixels at least.
_EDGE, _LEAST_EDGE = 0.1, 2.0


def soft_disc(shape: tuple[int, ...], diameter: float) -> np.ndarray:
    """1 inside a disc (a ball) in the middle of an array of this shape, 0 outside, a cosine edge between them.

    Args:
        shape: of the target.
        diameter: pixels at which the cosine starts.
    """
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    beyond = np.sqrt(sum(axis**2 for axis in axes)) - diameter / 2
    width = max(_LEAST_EDGE, _EDGE * diameter)
    return np.asarray(0.5 * (1.0 + np.cos(np.pi * np.clip(beyond / width, 0.0, 1.0))))


@dataclass(frozen=True)
class Supported(Projected):
    """An M-step whose target is restricted to a soft disc and the dark fringe around it: a projected step.

    In a crowded field a box holds neighbours as well, and without the restriction a constellation of two or three copies per box explains
    the field better than single copies do. Neighbours are bright. A dark ring all the way around a body belongs to the body: it is the fringe
    of a defocused image, or of a background filter. Both redistribute brightness without removing any. So the sum of the target is kept at least
    0; in a crowded field a negative sum could act as an offset.

    Attributes:
        diameter: of the disc, pixels.
    """

    diameter: float

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`Update`."""
        moved = self.update(target, statistics, prior, iteration, iterations)
        xp, shape = array_namespace(moved), tuple(moved.shape)
        disc, rings = (
            xp.asarray(array, dtype=moved.dtype, device=device(moved))
            for array in (soft_disc(shape, self.diameter), _rings(shape))
        )
        mean = rings @ xp.reshape(moved, (-1,)) / xp.sum(rings, axis=1)
        fringe = xp.reshape(xp.where(mean < 0.0, mean, 0.0) @ rings, shape)
        image = disc * moved + (1.0 - disc) * fringe
        total = xp.sum(image)
        return xp.where(total < 0.0, image - disc * (total / xp.sum(disc)), image)


def _rings(shape: tuple[int, ...]) -> np.ndarray:
    """(R, pixels) 1 where a pixel is in a ring about the middle of an image of this shape; rings are one pixel wide."""
    distance = np.hypot(*np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    index = distance.astype(int).ravel()
    return np.asarray(np.arange(index.max() + 1)[:, None] == index, np.float64)
