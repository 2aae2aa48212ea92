"""Agreement of two recoveries: their correlation in the best common frame, as no frame is preferred."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..._base.typing import plain
from ...model.poses import may_be_mirrored
from ...model.rotations import Rotations, in_plane
from ...model.views import Views

#: Starts that end above this share of the evidence are rivals; they show the same image above this correlation.
ABOUT, ALIKE = 0.9, 0.8


def unrivalled(
    target: np.ndarray, evidence: float, others: Iterable[tuple[np.ndarray, float]], views: Views
) -> bool:
    """Whether the other (target, evidence) pairs with about as much evidence, or more, show the same image.

    Args:
        target: (L, L), or (C, L, L) for C classes.
        evidence: nats.
        others: of other starts.
        views: of the run.
    """
    like = [agreement(target, rival, views) for rival in rivals(evidence, others)]
    return all(one is None or one > ALIKE for one in like)


def rivals(evidence: float, others: Iterable[tuple[np.ndarray, float]]) -> list[np.ndarray]:
    """The targets of the (target, evidence) pairs with about as much evidence, or more."""
    return [other for other, nats in others if nats > ABOUT * evidence]


def agreement(first: np.ndarray, second: np.ndarray, views: Views) -> float | None:
    """Largest correlation of two targets over the rotations and hands of the views and all shifts; pixels shifted out of the box are lost.

    Args:
        first: (L, L), or (C, L, L) for C classes, each of which is compared with the most similar class of the other.
        second: the same.
        views: of the run.

    Returns:
        From -1 to 1, the least over the classes; None for targets that are not images.
    """
    shape = first.shape[-2:]
    images, others = (np.reshape(t, (-1, *t.shape[-2:])) for t in (first, second))
    if shape != views.box_shape or len(images) != views.classes:
        return None
    rotations = in_plane(views) or Rotations(1, plain(*shape))
    if may_be_mirrored(views):
        others = np.concatenate([others, others[:, :, ::-1]])
    turned = np.concatenate([rotations.apply(other) for other in others])
    return min(float(_correlation(image, turned).max()) for image in images)


def _correlation(image: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(T, 2L, 2L) correlation of an image with (T, L, L) others at every shift."""
    shape = tuple(2 * n for n in image.shape)
    spectra = (np.fft.rfft2(_unit(one), s=shape) for one in (image, others))
    mine, theirs = spectra
    return np.asarray(np.fft.irfft2(mine * np.conj(theirs), s=shape))


def _unit(images: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.square(images).sum(axis=(-2, -1), keepdims=True))
    return np.asarray(images / np.where(norm > 0.0, norm, 1.0))
