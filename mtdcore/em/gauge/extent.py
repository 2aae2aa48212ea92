"""Size of an object inside its box, and the smallest separation of two copies."""

from __future__ import annotations

import math

import numpy as np

from ...model.likelihood import Likelihood
from .frames import centre_of_mass

#: Energy assumed for the background of the box, as a share of the brightest pixel's: a third of its brightness.
_FLOOR = 0.1

#: The same share for a signal, whose spikes stand above waves of a third of their height.
_SIGNAL_FLOOR = 0.02

#: Share of the energy above that floor inside the object's disc.
_SHARE = 0.95


def bright(image: np.ndarray) -> np.ndarray:
    """(L, L) energy of an object: the square of the positive pixels, less a tenth of its largest value, at least 0.

    So noise and the dark fringe of a defocused particle are excluded.
    """
    energy = np.square(np.clip(image, 0.0, None))
    return np.asarray(np.clip(energy - _FLOOR * energy.max(), 0.0, None))


def diameter(image: np.ndarray) -> float:
    """Diameter of the disc, about the centre of mass, that holds an object.

    Args:
        image: (L, L) real image.

    Returns:
        Pixels, from 1 to L; L for an image without positive pixels.
    """
    side, energy = len(image), bright(image)
    total = energy.sum()
    if not total > 0.0:
        return float(side)
    pixels = np.arange(side)
    row, column = centre_of_mass(energy)
    distance = np.hypot(pixels[:, None] - row, pixels - column).ravel()
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(energy.ravel()[order])
    radius = distance[order][np.searchsorted(held, _SHARE * total)]
    return float(np.clip(2.0 * radius + 1.0, 1.0, side))


def length(image: np.ndarray) -> int:
    """Length in pixels of an object of either sign along the longer side of a box that is not square: 95 % of its energy.

    Args:
        image: (h, w) real image, a signal for instance.
    """
    along = np.square(image).sum(axis=int(np.argmin(image.shape)))
    held = np.cumsum(np.clip(along - _SIGNAL_FLOOR * along.max(), 0.0, None))
    if not held[-1] > 0.0:
        return len(along)
    first, last = np.searchsorted(held / held[-1], [(1.0 - _SHARE) / 2, (1.0 + _SHARE) / 2])
    return int(min(last, len(along) - 1) - first) + 1


def closest_separation(images: np.ndarray) -> int:
    """Smallest distance along rows or columns, whichever is larger, of two copies that touch but do not overlap.

    The window model sums the log-likelihood ratios of copies, which is right as long as copies do not overlap; so closer pairs are excluded.
    In a box that is not square the distance is the length of the object along the longer side.

    Args:
        images: (L, L) or (h, w), or a stack of them for several classes, whose smallest decides.
    """
    stack = np.reshape(images, (-1, *images.shape[-2:]))
    if stack.shape[-1] != stack.shape[-2]:
        return min(length(image) for image in stack)
    return touching(min(diameter(image) for image in stack))


def touching(diameter: float) -> int:
    """Pixels by which discs or balls that touch diagonally differ in row and in column, ``diameter / sqrt 2``; at least 1."""
    return max(1, math.floor(diameter / math.sqrt(2.0)))


def spaced(likelihood: Likelihood, target: np.ndarray) -> Likelihood:
    """The likelihood with the minimum separation from the extent of its target; the same object if nothing changes."""
    return likelihood.with_separation(closest_separation(target))
