"""The gauge: rotations and small shifts of the target that the likelihood barely fixes (docs/model.md 9).

The prior fixes them. Orientation: the one that the prior finds most likely, by the diffusion bound on the log density
(Kingma et al., *Variational diffusion models*, 2021). Position: the prior's own
centre of mass, which networks trained with small shifts know no better than that.

At right angles the target is judged. At other angles it would always seem best where it is: the denoiser has seen to
that, and what makes the right angle recognisable, the sharp pixels of the images that the prior knows, is gone. So
the aligned average is judged there, noise and all. That fixes angles to a degree or two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..._base.typing import Lengths, plain
from ...model.priors import Prior, centre_of
from ...model.rotations import Rotations, disc, rotate
from ...model.sampling import sample_prior
from ...model.shifts import translate
from .fraction import likeliest_fraction

#: Noise levels over which the bound is averaged, relative to the root-mean-square pixel of the image: below,
#: a denoiser looks at strokes alone, above, at nothing.
_LEVELS = np.geomspace(0.25, 5.0, 6)

#: Another orientation must be this much likelier (nats) to be taken, one of four or one of any: the bound is an average
#: over noise draws.
_HYSTERESIS, _FREE_HYSTERESIS = 3.0, 6.0

#: Decimals of a cost, in nats, beyond which it is rounding: a prior without a preferred direction finds frames that mirror
#: each other equally likely.
_TIE = 6

#: Samples that give the centre of mass of the prior.
_SAMPLES = 16

#: Rotations from which on copies may lie at any angle.
ANY_ANGLE = 72

#: Free angles: a grid of 5 degrees with one draw at every other level, the best of it with all, then half the step twice.
_GRID, _SHORTLIST = ANY_ANGLE, 5

#: Free angles: pixels from the prior's centre of mass that are left to the likelihood, which fixes the axis of rotation.
_SLACK = 2


#: Fractions of a pixel below which the target is left alone.
_LEAST_FRACTION = 0.05


class Gauge(Protocol):
    """Chooses the frame of a target."""

    def choose(self, target: np.ndarray, average: np.ndarray, level: float) -> np.ndarray:
        """The (L, L) target in its preferred frame.

        Args:
            target: (L, L).
            average: (B, B) aligned average without prior: the target and a margin of (B - L) / 2 pixels around it.
            level: noise level of the average; what a frame leaves out counts as noise of this level.
        """
        ...


@dataclass(frozen=True)
class PriorGauge:
    """The orientation that the prior finds most likely, at the position where its own images sit.

    Attributes:
        prior: the prior.
        rotations: number K of rotations of the model. The target is turned by one of them; from 72 on, when copies may
            lie at any angle, by any angle, found to a degree or two.
        centre: (row, column) of the prior's own centre of mass; None: the target stays where it is.
        draws: noise draws per level, each used with both signs.
        seed: of the noise.
        mirror: whether copies may be mirrored: the prior then chooses between the target and its mirror image, too.
        between: whether copies lie between pixels: the prior then chooses the fraction of a pixel, too (:mod:`.fraction`).
    """

    prior: Prior
    rotations: int
    centre: tuple[float, float] | None
    draws: int = 4
    seed: int = 0
    mirror: bool = False
    between: bool = False

    @classmethod
    def of(
        cls, prior: Prior, rotations: int, box_size: Lengths, mirror: bool = False, between: bool = False
    ) -> PriorGauge:
        """The gauge of a prior: the centre that it names (:func:`mtdcore.model.priors.centre_of`), else that of samples."""
        centre = centre_of(prior, box_size)
        if centre is None:
            masses = [centre_of_mass(image) for image in sample_prior(prior, _SAMPLES, box_size)]
            centre = tuple(np.mean(masses, axis=0))
        place = float(centre[0]), float(centre[1])
        return cls(prior, rotations, place, mirror=mirror, between=between)

    def choose(self, target: np.ndarray, average: np.ndarray, level: float) -> np.ndarray:
        """See :class:`Gauge`."""
        here, cost = self._turned(target, average, level)
        if not self.mirror:
            return here
        there, other = self._turned(target[:, ::-1].copy(), average[:, ::-1].copy(), level)
        return there if other <= cost - _HYSTERESIS else here

    def _turned(self, target: np.ndarray, average: np.ndarray, level: float) -> tuple[np.ndarray, float]:
        """The target at its likeliest angle, and what that costs in nats."""
        turned = Rotations(self.rotations, plain(*target.shape))
        view = _View(self, target, average, level, turned.exact)
        if turned.exact:
            costs = dict(zip(turned.angles, view.costs(turned.angles, self.draws, _LEVELS), strict=True))
        else:
            grid = Rotations(min(self.rotations, _GRID), len(target)).angles
            rough = np.argsort(np.round(view.costs(grid, 1, _LEVELS[::2]), _TIE), kind="stable")[:_SHORTLIST]
            first = [0.0, *(grid[k] for k in rough if k)]
            costs = dict(zip(first, view.costs(first, self.draws, _LEVELS), strict=True))
            steps = (math.pi / _GRID, math.pi / _GRID / 2) if self.rotations >= ANY_ANGLE else ()
            for step in steps:  # between few angles the copies could not follow
                best = _cheapest(costs)
                near = [best - step, best + step]
                costs |= dict(zip(near, view.costs(near, self.draws, _LEVELS), strict=True))
        best = _cheapest(costs)
        least = _HYSTERESIS if turned.exact else _FREE_HYSTERESIS
        best = best if costs[best] <= costs[0.0] - least else 0.0
        return view.framed(best), float(costs[best])


def _cheapest(costs: dict[float, float]) -> float:
    """The angle of the lowest cost, the first of those that are as low but for rounding: every machine takes the same."""
    return min(costs, key=lambda angle: round(float(costs[angle]), _TIE))


@dataclass(frozen=True)
class _View:
    """One target and its average, looked at from any angle; arguments as in :meth:`Gauge.choose`."""

    gauge: PriorGauge
    target: np.ndarray
    average: np.ndarray
    level: float
    exact: bool

    def framed(self, angle: float) -> np.ndarray:
        """(L, L) target at this angle; what moves into the box is the aligned average there."""
        frame = np.array(self.average)
        crop(frame, self.target.shape)[...] = self.target
        turned = rotate(widened(self.target, frame.shape), [angle])[0]
        offset, frame = self._offset(turned), rotate(frame, [angle])[0]
        if self.gauge.between and self.gauge.centre is not None:
            frame = translate(frame, self._fraction(angle, offset))
        image = crop(frame, self.target.shape, offset)
        return image if self.exact else image * disc(len(image))

    def _fraction(self, angle: float, offset: tuple[int, int]) -> tuple[float, float]:
        """By how much the frame at this angle and offset moves between pixels; 0 where that is not worth an interpolation."""
        seen = crop(rotate(self.average, [angle])[0], self.target.shape, offset)
        shift = likeliest_fraction(seen, self.gauge.prior, self.level)
        return shift if max(map(abs, shift)) > _LEAST_FRACTION else (0.0, 0.0)

    def costs(self, angles: Sequence[float], draws: int, levels: np.ndarray) -> np.ndarray:
        """(A,) nats, up to a constant: what the frames at these angles cost."""
        shape = self.target.shape
        turned = rotate(widened(self.target, self.average.shape), angles)
        offsets = [self._offset(image) for image in turned]
        kept = np.array([np.square(crop(i, shape, o)).sum() for i, o in zip(turned, offsets, strict=True)])
        views = turned if self.exact else rotate(self.average * disc(len(self.average)), angles)
        images = [crop(i, shape, o) for i, o in zip(views, offsets, strict=True)]
        outside = np.square(turned).sum(axis=(1, 2)) - kept
        cost = self._surprise(np.stack(images), angles, draws, levels) + 0.5 * outside / self.level**2
        return np.asarray(cost)

    def _offset(self, turned: np.ndarray) -> tuple[int, int]:
        if self.gauge.centre is None:
            return 0, 0
        offset = recentring(turned, self.target.shape, self.gauge.centre)
        near = not self.exact and max(map(abs, offset)) <= _SLACK
        return (0, 0) if near else offset

    def _surprise(
        self, images: np.ndarray, angles: Sequence[float], draws: int, levels: np.ndarray
    ) -> np.ndarray:
        """(A,) nats, up to a constant: the diffusion bound on -log density of each image.

        The density is the prior's, with white noise of ``level`` for averages: with noise of level n on top, the posterior
        mean of the image is ``y + n^2 score(y, hypot(n, level))``. The noise turns with the image, so that only the prior
        tells two orientations apart; at free angles it comes from beyond the box, and the corners do not count.
        """
        height, width = images.shape[1:]
        margin, counted = (0, np.ones((height, width), bool)) if self.exact else (height // 4, disc(height))
        scale = float(np.sqrt(np.square(self.target).mean())) or 1.0
        shape = (draws, height + 2 * margin, width + 2 * margin)
        noise = np.random.default_rng(self.gauge.seed).standard_normal(shape)
        turned = np.stack([rotate(draw, angles) for draw in (*noise, *-noise)], axis=1)
        turned = turned[..., margin : margin + height, margin : margin + width]
        step = math.log(levels[1] / levels[0])
        cost = np.zeros(len(images))
        for added in levels * scale:
            noisy = (images[:, None] + added * turned).reshape(-1, height, width)
            level = added if self.exact else math.hypot(added, self.level)
            clean = noisy + added**2 * self.gauge.prior.score(noisy, float(level))
            error = np.square(clean.reshape(turned.shape) - images[:, None])[..., counted]
            cost += step * error.sum(axis=2).mean(axis=1) / added**2
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


def recentring(frame: np.ndarray, box: tuple[int, ...], centre: tuple[float, float]) -> tuple[int, int]:
    """Offset of the crop whose centre of mass falls on ``centre``, within the margin of the frame.

    The mass inside the box is followed, so that noise in the margin does not pull.
    """
    reaches = [(n - m) // 2 for n, m in zip(frame.shape, box, strict=True)]
    row = column = 0
    for _ in range(4):
        mass = centre_of_mass(crop(frame, box, (row, column)))
        step = [round(m - c) for m, c in zip(mass, centre, strict=True)]
        if step == [0, 0]:
            break
        row, column = (
            int(np.clip(now + move, -reach, reach))
            for now, move, reach in zip((row, column), step, reaches, strict=True)
        )
    return row, column


def crop(frame: np.ndarray, box: tuple[int, ...], offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """(L, L) view of a (B, B) frame, ``offset`` pixels down and right of the middle."""
    row, column = ((n - m) // 2 + o for n, m, o in zip(frame.shape, box, offset, strict=True))
    return frame[row : row + box[0], column : column + box[1]]


def widened(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An (L, L) image in the middle of a (B, B) frame of zeros."""
    frame = np.zeros(shape, image.dtype)
    crop(frame, image.shape)[...] = image
    return frame
