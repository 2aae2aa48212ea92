"""The gauge: rotations and small shifts of the target that the likelihood barely fixes (docs/model.md 9).

The prior fixes them. If the prior states the centre of its images and the noise is white, the target takes the orientation of highest prior density,
by the diffusion bound on the log density (Kingma et al., *Variational diffusion models*, 2021), and the stated centre of mass: networks trained with
small shifts know the position no better than that.

Otherwise, at right angles, each frame is judged by its posterior mean: how well it explains the copies, and how much it surprises the prior
(:mod:`.position`). Behind a filter the copies do not determine the centre of mass: the restored target lies where the prior has its images, in any
frame. And a centre that is the mean of a few samples differs by half a pixel from that of a single image.

At other angles the restored target would always seem best as it is: the denoiser has shaped it for its present angle, and interpolation blurs the
sharp pixels by which the prior recognises the true angle. So the aligned average is judged there, with its noise. That fixes angles to a degree or two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._base.typing import Lengths, plain
from ...model.priors import Prior, centre_of
from ...model.rotations import Rotations, disc, rotate
from ...model.sampling import sample_prior
from ...model.shifts import translate
from .frames import Offset, centre_of_mass, crop, recentring, widened
from .position import Placed, likeliest_fraction, likeliest_offset
from .seen import Seen

#: Noise levels over which the bound is averaged, relative to the root-mean-square pixel of the image: below them
#: a denoiser depends on single strokes alone, above them on nothing of the image.
_LEVELS = np.geomspace(0.25, 5.0, 6)

#: Nats that another orientation must gain, among right angles and among free angles: the bound is an average
#: over noise draws.
_HYSTERESIS, _FREE_HYSTERESIS = 3.0, 6.0

#: Nats that another whole pixel must gain if the prior states the centre of its images: under networks trained with shifts, equally good frames
#: differ by up to ten nats (training digits).
_STATED = 12.0

#: Decimals of a cost, in nats, beyond which it is rounding: a prior without a preferred direction finds frames that mirror
#: each other equally likely.
_TIE = 6

#: Number of samples that estimate the centre of mass of the prior.
_SAMPLES = 16

#: Rotations from which on copies may lie at any angle.
ANY_ANGLE = 72

#: Right angles within so many nats of the likeliest are compared at their likeliest pixels, beside the present one.
_CLOSE = 12.0

#: Free angles: a grid of 5 degrees with one draw at every other level, the best of it with all, then half the step twice.
_GRID, _SHORTLIST = ANY_ANGLE, 5

#: Free angles: pixels from the prior's centre of mass that are left to the likelihood, which fixes the axis of rotation.
_SLACK = 2


@dataclass(frozen=True)
class PriorGauge:
    """The orientation that the prior finds most likely, at the position of the prior's own images.

    Attributes:
        prior: the prior.
        rotations: number K of rotations of the views. The target is turned by one of them; from 72 on, when copies may
            lie at any angle, by any angle, found to a degree or two.
        centre: (row, column) of the prior's own centre of mass; None: the target stays where it is.
        draws: noise draws per level, each used with both signs.
        seed: of the noise.
        mirror: whether copies may be mirrored: the prior then also chooses between the target and its mirror image.
        between: whether copies lie between pixels: the prior then also chooses the fraction of a pixel.
        stated: whether the prior states the centre of its images.
    """

    prior: Prior
    rotations: int
    centre: tuple[float, float] | None
    draws: int = 4
    seed: int = 0
    mirror: bool = False
    between: bool = False
    stated: bool = False

    @classmethod
    def of(
        cls, prior: Prior, rotations: int, box_size: Lengths, mirror: bool = False, between: bool = False
    ) -> PriorGauge:
        """The gauge of a prior: at the centre that the prior states (:func:`mtdcore.model.priors.centre_of`), else at that of its samples."""
        centre = centre_of(prior, box_size)
        stated = centre is not None
        if centre is None:
            masses = [centre_of_mass(image) for image in sample_prior(prior, _SAMPLES, box_size)]
            centre = tuple(np.mean(masses, axis=0))
        place = float(centre[0]), float(centre[1])
        return cls(prior, rotations, place, mirror=mirror, between=between, stated=stated)

    def choose(self, target: np.ndarray, seen: Seen) -> np.ndarray:
        """See :class:`mtdcore.em.gauge.seen.Gauge`."""
        here, cost = self._turned(target, seen)
        if not self.mirror:
            return here
        there, other = self._turned(target[:, ::-1].copy(), seen.mirrored())
        return there if other <= cost - _HYSTERESIS else here

    def _turned(self, target: np.ndarray, seen: Seen) -> tuple[np.ndarray, float]:
        """The target at its likeliest angle, and the cost in nats."""
        turned = Rotations(self.rotations, plain(*target.shape))
        view = _View(self, target, seen, turned.exact)
        if view.judged and float((crop(seen.information, target.shape) * target).sum()) < _HYSTERESIS:
            return target, 0.0  # no frame shows anything yet
        if turned.exact:
            costs = dict(zip(turned.angles, view.costs(turned.angles, self.draws, _LEVELS), strict=True))
        else:
            grid = Rotations(min(self.rotations, _GRID), len(target)).angles
            rough = np.argsort(np.round(view.costs(grid, 1, _LEVELS[::2]), _TIE), kind="stable")[:_SHORTLIST]
            first = [0.0, *(grid[k] for k in rough if k)]
            costs = dict(zip(first, view.costs(first, self.draws, _LEVELS), strict=True))
            steps = (math.pi / _GRID, math.pi / _GRID / 2) if self.rotations >= ANY_ANGLE else ()
            for step in steps:  # with few rotations the copies could not follow an angle between them
                best = _cheapest(costs)
                near = [best - step, best + step]
                costs |= dict(zip(near, view.costs(near, self.draws, _LEVELS), strict=True))
        placed: dict[float, Placed] = {}
        if view.judged:
            lowest = min(costs.values())
            likely = [0.0, *(angle for angle, cost in costs.items() if angle and cost < lowest + _CLOSE)]
            placed = {angle: view.place(angle) for angle in likely}
            costs = {angle: cost for angle, (_, _, cost) in placed.items()}
        best = _cheapest(costs)
        least = _HYSTERESIS if turned.exact else _FREE_HYSTERESIS
        best = best if costs[best] <= costs[0.0] - least else 0.0
        return view.framed(best, placed.get(best)), float(costs[best])


def _cheapest(costs: dict[float, float]) -> float:
    """The angle of the lowest cost; the first among ties up to rounding, so that every machine chooses the same."""
    return min(costs, key=lambda angle: round(float(costs[angle]), _TIE))


@dataclass(frozen=True)
class _View:
    """One target and its statistics, at any angle; arguments as in :meth:`mtdcore.em.gauge.seen.Gauge.choose`."""

    gauge: PriorGauge
    target: np.ndarray
    seen: Seen
    exact: bool

    @property
    def judged(self) -> bool:
        """Whether posterior means judge the angle and the pixel, see the module docstring."""
        known = self.gauge.stated and self.seen.white
        return self.exact and self.gauge.centre is not None and self.seen.restored is not None and not known

    def framed(self, angle: float, placed: Placed | None) -> np.ndarray:
        """(L, L) target at this angle, and at this place if posterior means judged it; pixels that enter the box are those of the aligned average."""
        frame, shape = np.array(self.seen.average), self.target.shape
        crop(frame, shape)[...] = self.target
        frame = rotate(frame, [angle])[0]
        if placed is None:
            offset = self._offset(rotate(widened(self.target, frame.shape), [angle])[0])
        else:
            offset, image, _ = placed
            if angle or offset != (0, 0):
                crop(frame, shape, offset)[...] = image
        if self.gauge.between and self.gauge.centre is not None and self.seen.restored is not None:
            held = crop(rotate(self.seen.information, [angle])[0], shape, offset)
            shift = likeliest_fraction(held, self.seen.restored, crop(frame, shape, offset))
            frame = translate(frame, shift)
        image = crop(frame, shape, offset)
        return image if self.exact else image * disc(len(image))

    def place(self, angle: float) -> Placed:
        """The likeliest whole pixel at this angle, the image there, and its cost in nats."""
        assert self.seen.restored is not None
        information, turned = (
            rotate(image, [angle])[0]
            for image in (self.seen.information, widened(self.target, self.seen.average.shape))
        )

        def surprise(images: np.ndarray, exactly: bool) -> np.ndarray:
            how = (self.gauge.draws, _LEVELS) if exactly else (1, _LEVELS[::2])
            return self._surprise(images, [angle] * len(images), *how)

        image, first = crop(turned, self.target.shape), self._offset(turned)
        least = _STATED if self.gauge.stated else _HYSTERESIS
        return likeliest_offset(information, self.seen.restored, image, first, surprise, least)

    def costs(self, angles: Sequence[float], draws: int, levels: np.ndarray) -> np.ndarray:
        """(A,) cost in nats, up to a constant, of the frames at these angles."""
        shape = self.target.shape
        turned = rotate(widened(self.target, self.seen.average.shape), angles)
        offsets = [self._offset(image) for image in turned]
        if self.judged:
            return self._restored(turned, offsets, angles, draws, levels)
        kept = np.array([np.square(crop(i, shape, o)).sum() for i, o in zip(turned, offsets, strict=True)])
        views = turned if self.exact else rotate(self.seen.average * disc(len(self.seen.average)), angles)
        images = [crop(i, shape, o) for i, o in zip(views, offsets, strict=True)]
        outside = np.square(turned).sum(axis=(1, 2)) - kept
        cost = self._surprise(np.stack(images), angles, draws, levels) + 0.5 * outside / self.seen.level**2
        return np.asarray(cost)

    def _restored(
        self,
        turned: np.ndarray,
        offsets: Sequence[Offset],
        angles: Sequence[float],
        draws: int,
        levels: np.ndarray,
    ) -> np.ndarray:
        """(A,) cost in nats of the posterior mean of each frame; the part of the target outside a frame explains nothing."""
        assert self.seen.restored is not None
        shape, found = self.target.shape, []
        shown = rotate(self.seen.information, angles)
        for information, image, offset in zip(shown, turned, offsets, strict=True):
            found.append(self.seen.restored(crop(information, shape, offset), crop(image, shape, offset)))
        images, nats = np.stack([image for image, _ in found]), np.array([nat for _, nat in found])
        return np.asarray(self._surprise(images, angles, draws, levels) - nats)

    def _offset(self, turned: np.ndarray) -> Offset:
        if self.gauge.centre is None:
            return 0, 0
        offset = recentring(turned, self.target.shape, self.gauge.centre)
        near = not self.exact and max(map(abs, offset)) <= _SLACK
        return (0, 0) if near else offset

    def _surprise(
        self, images: np.ndarray, angles: Sequence[float], draws: int, levels: np.ndarray
    ) -> np.ndarray:
        """(A,) nats, up to a constant: the diffusion bound on -log density of each image.

        The density is the prior's, with white noise of ``level`` for averages: with further noise of level n, the posterior
        mean of the image is ``y + n^2 score(y, hypot(n, level))``. The noise turns with the image, so that only the prior
        tells two orientations apart; at free angles the noise is drawn on a wider frame, and the corners do not count.
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
            level = added if self.exact else math.hypot(added, self.seen.level)
            clean = noisy + added**2 * self.gauge.prior.score(noisy, float(level))
            error = np.square(clean.reshape(turned.shape) - images[:, None])[..., counted]
            cost += step * error.sum(axis=2).mean(axis=1) / added**2
        return cost
