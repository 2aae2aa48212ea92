"""A chain of volumes around a recovered one: EM with noise, whose stationary density is the posterior with unknown poses.

EM's next volume is ``M(V) = V + C g(V)``: g is the gradient of the log posterior, which the E-step gives exactly (Fisher's identity), and C the
posterior covariance in the M-step, given the poses. So

    V' = V + h (M(V) - V) + sqrt(h / 2) (e + e'),    e of covariance C, each used in two steps,

is Langevin dynamics preconditioned by C. With uncertain poses M moves back by a share a of a deviation only, and the chain has the covariance C / a,
the posterior covariance with unknown poses. For a Gaussian this is exact with any h below 2, because each noise is used in two steps: in scalars
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

#: h, longer than EM's step of 1: directions with uncertain poses are slow.
_STRIDE = 1.5

#: Largest number of steps of an M-step, and its relative residual: an unconverged M-step would bias the chain.
_STEPS, _TOLERANCE = 50, 1e-3

#: Envelope below which a voxel belongs to the edge of the support.
_EDGE = 0.05

#: Rotation (arc in voxels at one box from the axis) and shift in voxels of the differences that approximate the tangents.
_TURN, _SHIFT = 1.0, 0.5


@dataclass(frozen=True, eq=False)
class Link:
    """Position of a chain: with the generator of random numbers, all that its next step depends on.

    Attributes:
        state: coordinates of the volume.
        noise: of the last step, which the next step uses once more.
        free: numbers of the prior from the last draw; None: the prior has none.
    """

    state: np.ndarray
    noise: np.ndarray
    free: np.ndarray | None


class Density(Protocol):
    """The posterior that a chain samples, given the statistics: data and a prior, in coordinates of its own."""

    @property
    def free(self) -> np.ndarray | None:
        """Numbers of the prior that are drawn as well; None: there are none."""
        ...

    def given(self, free: np.ndarray) -> Self:
        """The density with these numbers."""
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
        """The density with the free numbers of the prior drawn anew."""
        ...


@dataclass(frozen=True, eq=False)
class Enveloped:
    """The data under the Gaussian prior of the M-step, in u of ``V = e u``.

    The powers are drawn as well. Those of the M-step are estimated as if the poses were known, and are too small if they are not.

    Attributes:
        prior: the envelope, and the powers at the start.
        noise_std: of a pixel.
        order: of the point group, by which the free numbers of a symmetric volume are divided.
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
    """The data under a learned prior smoothed by white noise: the objective of the half-quadratic M-step.

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
    """Volumes and positions of a chain, without end, one E-step each.

    Projections do not fix the frame, so that the chain would rotate and drift without bound. So the component of a step that rotates or shifts the
    start is removed. EM is the same from every rotated volume, so this does not affect the rest of the chain.

    Args:
        e_step: statistics at a volume.
        density: data and prior.
        start: (L, L, L), near the mode.
        rng: of the noise.
        symmetrised: projects on the volumes of the symmetry.
        last: position from which the chain continues; None: the chain begins at the start.
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
    """(n, L^3) orthonormal basis of the changes of a volume by rotations and shifts; with a symmetry only those that keep it, fewer than six.

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
    # the singular values are the cosines between these changes and symmetric ones
    _, cosines, basis = np.linalg.svd(kept, full_matrices=False)
    return np.asarray(basis[cosines > 0.5])
