"""A chain of volumes around a recovered one: EM with noise, its stationary density the posterior with the poses left open.

EM's next volume is ``M(V) = V + C g(V)``: g is the gradient of the log posterior, which the E-step gives exactly (Fisher's identity), and C the
covariance that the M-step leaves, as if the poses that it used were known. So

    V' = V + h (M(V) - V) + sqrt(h / 2) (e + e'),    e of covariance C, each used in two steps,

is Langevin dynamics preconditioned by C. With poses in doubt M pulls back by a share a of the way only, and the chain spreads by C / a: the covariance
that the data leave, poses and all. For a Gaussian that is exact with any h below 2, and the same noise in two steps makes it so: in scalars
``V' = r V + w`` with r = 1 - h a, w of variance h c and half of that between neighbours, has the variance ``h c (1 + r) / (1 - r^2) = c / a``.

Source: Leimkuhler and Matthews, *Rational construction of stochastic numerical methods for molecular sampling*, Appl. Math. Res. Express 2013, 34.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from scipy.spatial.transform import Rotation

from ...estep.volumes.statistics import VolumeStatistics
from ...model.priors import Prior, denoise
from ...model.volumes.grids import moved
from ...mstep.envelope import EnvelopePrior
from ...mstep.volumes import NormalEquations

#: h, beyond EM's step: directions that poses leave in doubt are slow.
_STRIDE = 1.5

#: Steps of an M-step and its relative residual: what is left would be a pull of its own.
_STEPS, _TOLERANCE = 50, 1e-3

#: Envelope below which a voxel is of the edge of the support.
_EDGE = 0.05

#: Turn in boxes, and shift in voxels, from which tangents are taken.
_TURN, _SHIFT = 1.0, 0.5


@dataclass(frozen=True, eq=False)
class Link:
    """Where a chain is: with the random numbers to come, all that its next step depends on.

    Attributes:
        state: coordinates of the volume.
        noise: of the last step, which the next one uses once more.
        free: numbers of the prior as they were drawn last; None: it has none.
    """

    state: np.ndarray
    noise: np.ndarray
    free: np.ndarray | None


class Density(Protocol):
    """What a chain draws from, given the statistics: data and a prior, in coordinates of their own."""

    @property
    def free(self) -> np.ndarray | None:
        """Numbers of the prior that are drawn as well; None: there are none."""
        ...

    def given(self, free: np.ndarray) -> Self:
        """With these."""
        ...

    def volume(self, state: np.ndarray) -> np.ndarray:
        """(L, L, L) of coordinates."""
        ...

    def state(self, volume: np.ndarray) -> np.ndarray:
        """Coordinates of a volume."""
        ...

    def step(
        self, found: VolumeStatistics, state: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The M-step of the coordinates, and noise of the covariance that it leaves."""
        ...

    def renewed(self, state: np.ndarray, rng: np.random.Generator) -> Self:
        """With what the prior has of free numbers drawn anew."""
        ...


@dataclass(frozen=True, eq=False)
class Enveloped:
    """The data under the Gaussian prior of the M-step, in u of ``V = e u``.

    Its powers are drawn as well. Those of the M-step count what it found as if the poses were known, and are too small where they are not.

    Attributes:
        prior: the envelope, and the powers to begin with.
        noise_std: of a pixel.
        order: of the point group: a symmetric volume has as many times fewer free numbers.
    """

    prior: EnvelopePrior
    noise_std: float
    order: int = 1

    def volume(self, state: np.ndarray) -> np.ndarray:
        """``e u``."""
        return np.asarray(self.prior.envelope * state)

    def state(self, volume: np.ndarray) -> np.ndarray:
        """``V / e``, 0 at the edge of the support."""
        envelope = self.prior.envelope
        return np.asarray(np.divide(volume, envelope, out=np.zeros_like(volume), where=envelope > _EDGE))

    def step(
        self, found: VolumeStatistics, state: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Density`."""
        equations = NormalEquations.of(found.normal, self.noise_std, self.prior)
        goal = equations.solve(self.prior.envelope * found.right, state, _STEPS, _TOLERANCE)
        return goal, self.noise_std * equations.draw(rng)

    @property
    def free(self) -> np.ndarray:
        """The powers of the shells."""
        return self.prior.power

    def given(self, free: np.ndarray) -> Enveloped:
        """With these powers."""
        return replace(self, prior=replace(self.prior, power=free))

    def renewed(self, state: np.ndarray, rng: np.random.Generator) -> Enveloped:
        """With powers drawn given u."""
        return replace(self, prior=self.prior.drawn(state, rng, self.order))


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The data under a learned prior, smoothed by white noise: what the half-quadratic M-step climbs.

    Attributes:
        prior: in the units of the volume.
        noise_std: of a pixel.
        level: s of the smoothing.
    """

    prior: Prior
    noise_std: float
    level: float

    def volume(self, state: np.ndarray) -> np.ndarray:
        """The state."""
        return state

    def state(self, volume: np.ndarray) -> np.ndarray:
        """The volume."""
        return volume

    def step(
        self, found: VolumeStatistics, state: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """``(N + sigma^2 / s^2) V' = b + sigma^2 / s^2 D(V; s)``: the gradient of the smoothed prior is ``(D(V; s) - V) / s^2`` (Tweedie)."""
        tie = (self.noise_std / self.level) ** 2
        clean = np.asarray(denoise(self.prior, state[None], self.level), np.float64)[0]
        equations = NormalEquations.tied(found.normal, tie)
        goal = equations.solve(found.right + tie * clean, state, _STEPS, _TOLERANCE)
        return goal, self.noise_std * equations.draw(rng)

    @property
    def free(self) -> None:
        """Nothing."""
        return None

    def given(self, free: np.ndarray) -> Smoothed:
        """The same."""
        return self

    def renewed(self, state: np.ndarray, rng: np.random.Generator) -> Smoothed:
        """The same: nothing in it is free."""
        return self


def walk(
    e_step: Callable[[np.ndarray], VolumeStatistics],
    density: Density,
    start: np.ndarray,
    rng: np.random.Generator,
    symmetrised: Callable[[np.ndarray], np.ndarray] = lambda volume: volume,
    last: Link | None = None,
) -> Iterator[tuple[np.ndarray, Link]]:
    """Volumes of a chain and where it is, without end, one E-step each.

    Projections do not fix the frame, so that the chain would turn and drift without bound: what of a step turns or shifts the start is taken
    out again. EM does the same from every turned volume, so the rest of the chain is what it would have been.

    Args:
        e_step: statistics at a volume.
        density: data and prior.
        start: (L, L, L), near the top.
        rng: of the noise.
        symmetrised: projects on the volumes of the symmetry.
        last: where the chain goes on from; None: it begins.
    """
    fixed = frame_of(start, symmetrised)
    state, before = (density.state(start), None) if last is None else (last.state, last.noise)
    if last is not None and last.free is not None:
        density = density.given(last.free)
    while True:
        goal, noise = density.step(e_step(density.volume(state)), state, rng)
        noise = symmetrised(noise)
        pull, push = goal - state, noise + (noise if before is None else before)
        state, before = state + _STRIDE * pull + math.sqrt(_STRIDE / 2.0) * push, noise
        away = fixed @ (density.volume(state) - start).ravel()
        state = state - density.state((away @ fixed).reshape(start.shape))
        density = density.renewed(state, rng)
        yield density.volume(state), Link(state, noise, density.free)


def frame_of(volume: np.ndarray, symmetrised: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(n, L^3) orthonormal changes of a volume that turns and shifts make; with a symmetry those that keep it, fewer than six.

    Args:
        volume: (L, L, L).
        symmetrised: projects on the volumes of the symmetry.
    """
    still, turn = np.eye(3), _TURN / len(volume)
    ways = [
        moved(volume, Rotation.from_rotvec(turn * axis).as_matrix())
        - moved(volume, Rotation.from_rotvec(-turn * axis).as_matrix())
        for axis in still
    ]
    ways += [moved(volume, still, _SHIFT * axis) - moved(volume, still, -_SHIFT * axis) for axis in still]
    _, size, every = np.linalg.svd(np.reshape(ways, (6, -1)), full_matrices=False)
    every = every[size > 1e-6 * size.max()]
    kept = [symmetrised(one.reshape(volume.shape)).ravel() for one in every]
    # the singular values are the cosines between ways and symmetric ones
    _, cosines, basis = np.linalg.svd(kept, full_matrices=False)
    return np.asarray(basis[cosines > 0.5])
