"""The gauge: rotations by the K angles and small shifts that the likelihood barely fixes (SPEC 9).

The prior fixes them. Orientation: the one in which the prior denoises best, averaged over noise levels, which is
the diffusion bound on the log density (Kingma et al., *Variational diffusion models*, 2021). Position: the
prior's own centre of mass, which networks trained with small shifts know no better than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .priors import Prior, denoise
from .rotation import rotate
from .sampling import sample_prior

#: Noise levels over which the bound is averaged, relative to the root-mean-square pixel of the image: below,
#: a denoiser looks at strokes alone, above, at nothing.
_LEVELS = np.geomspace(0.25, 5.0, 6)

#: Another orientation must be this much likelier (nats) to be taken: the bound is an average over noise draws.
_HYSTERESIS = 3.0

#: Samples that give the centre of mass of the prior.
_SAMPLES = 16


class Gauge(Protocol):
    """Chooses the frame of a target."""

    def choose(self, frame: np.ndarray, box_size: int, level: float) -> np.ndarray:
        """The (L, L) target in its preferred frame.

        Args:
            frame: (B, B) target with a margin of (B - L) / 2 known pixels around it.
            box_size: side L.
            level: noise level of the aligned average; what a frame leaves out counts as noise of this level.
        """
        ...


@dataclass(frozen=True)
class PriorGauge:
    """The orientation that the prior finds most likely, at the position where its own images sit.

    Attributes:
        prior: the prior.
        rotations: number K of equivalent orientations.
        centre: (row, column) of the prior's own centre of mass.
        draws: noise draws per level, each used with both signs.
        seed: of the noise.
    """

    prior: Prior
    rotations: int
    centre: tuple[float, float]
    draws: int = 4
    seed: int = 0

    @classmethod
    def of(cls, prior: Prior, rotations: int, box_size: int) -> PriorGauge:
        """The gauge of a prior: its ``centre`` attribute where it has one, the centre of samples otherwise."""
        centre = getattr(prior, "centre", None)
        if centre is None:
            masses = [centre_of_mass(image) for image in sample_prior(prior, _SAMPLES, box_size)]
            centre = np.mean(masses, axis=0)
        return cls(prior, rotations, (float(centre[0]), float(centre[1])))

    def choose(self, frame: np.ndarray, box_size: int, level: float) -> np.ndarray:
        """See :class:`Gauge`."""
        margin = (frame.shape[0] - box_size) // 2
        known = np.pad(frame[margin : margin + box_size, margin : margin + box_size], margin)
        angles = [2.0 * math.pi * k / self.rotations for k in range(self.rotations)]
        turned = rotate(known, angles)
        offsets = [recentring(image, box_size, self.centre) for image in turned]
        images = np.stack([crop(i, box_size, o) for i, o in zip(turned, offsets, strict=True)])
        outside = np.square(turned).sum(axis=(1, 2)) - np.square(images).sum(axis=(1, 2))
        cost = self._surprise(images, angles) + 0.5 * outside / level**2
        best = int(np.argmin(cost))
        if cost[best] > cost[0] - _HYSTERESIS:
            best = 0
        return crop(rotate(frame, angles[best : best + 1])[0], box_size, offsets[best])

    def _surprise(self, images: np.ndarray, angles: list[float]) -> np.ndarray:
        """(K,) nats, up to a constant: the diffusion bound on -log density of each turned image.

        The noise turns with the image, so that only the prior tells two orientations apart.
        """
        side = images.shape[1]
        scale = float(np.sqrt(np.square(images).mean())) or 1.0
        draws = np.random.default_rng(self.seed).standard_normal((self.draws, side, side))
        noise = np.stack([rotate(draw, angles) for draw in (*draws, *-draws)], axis=1)
        step = math.log(_LEVELS[1] / _LEVELS[0])
        cost = np.zeros(len(images))
        for level in _LEVELS * scale:
            noisy = images[:, None] + level * noise
            clean = denoise(self.prior, noisy.reshape(-1, side, side), float(level))
            error = np.square(clean.reshape(noisy.shape) - images[:, None])
            cost += step * error.sum(axis=(2, 3)).mean(axis=1) / level**2
        return cost


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    """(row, column) centre of mass of the positive part; the middle of the image if there is none."""
    positive = np.clip(image, 0.0, None)
    total = positive.sum()
    if total <= 0.0:
        return (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    rows, columns = (np.arange(n) for n in image.shape)
    return (
        float(positive.sum(axis=1) @ rows / total),
        float(positive.sum(axis=0) @ columns / total),
    )


def recentring(frame: np.ndarray, box_size: int, centre: tuple[float, float]) -> tuple[int, int]:
    """Offset of the crop whose centre of mass falls on ``centre``, within the margin of the frame.

    The mass inside the box is followed, so that noise in the margin does not pull.
    """
    reach = (frame.shape[0] - box_size) // 2
    row = column = 0
    for _ in range(4):
        mass = centre_of_mass(crop(frame, box_size, (row, column)))
        step = [round(m - c) for m, c in zip(mass, centre, strict=True)]
        if step == [0, 0]:
            break
        row, column = (
            int(np.clip(now + move, -reach, reach)) for now, move in zip((row, column), step, strict=True)
        )
    return row, column


def crop(frame: np.ndarray, box_size: int, offset: tuple[int, int]) -> np.ndarray:
    """(L, L) crop of a (B, B) frame, ``offset`` pixels down and right of the middle."""
    margin = (frame.shape[0] - box_size) // 2
    row, column = margin + offset[0], margin + offset[1]
    return frame[row : row + box_size, column : column + box_size]
