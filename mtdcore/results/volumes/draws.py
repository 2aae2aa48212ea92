"""Uncertainty of each voxel of a volume: draws from its posterior with unknown poses (docs/model.md 14)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...data import MeasurementLike, open_measurement
from ...em.checkpoint import read_checkpoint, write_kept
from ...em.volumes.recovery import VolumeRecovery
from ...errors import InputError, ParameterError
from ...estep.backends import Backend, get_backend
from ...estep.backends.placed import placed
from ...estep.volumes.expectation import volume_e_step, with_views
from ...estep.volumes.statistics import VolumeStatistics
from ...model.priors import Prior
from ...model.volumes.grids import ball, low_passed
from ...mstep.volumes import NormalEquations, VolumeUpdate, in_units_of, noise_level
from ..uncertainty import PosteriorSamples
from .langevin import Density, Enveloped, Link, Smoothed, walk

#: Format of a checkpoint of a chain.
_FORMAT = "draws 1"

#: Steps before the first draw, and from one draw to the next.
_BEFORE, _EVERY = 20, 2

#: Least share of the information that is assumed to remain with unknown poses.
_LEAST_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class DrawsState:
    """State of a chain of volumes: everything that the next step depends on.

    Attributes:
        iteration: number of steps done.
        link: present position of the chain.
        generator: state of the random number generator, as NumPy gives it.
        images: (n, L, L, L) float64, the draws so far.
    """

    iteration: int
    link: Link
    generator: Mapping[str, Any]
    images: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class VolumeDraws(PosteriorSamples):
    """Draws from the posterior of a volume, in the frame of the recovered one.

    Attributes:
        images: (N, L, L, L) float64, in the order of the chain.
        support: (L, L, L) where density may be.
        state: of the chain after the last draw; None: the draws are not from a chain.
    """

    support: np.ndarray
    state: DrawsState | None = None

    @property
    def effective(self) -> float:
        """Effective number of independent draws: N / (1 + 2 sum of the autocorrelations), averaged over the voxels by their variance.

        The sum ends where the autocorrelation first reaches 0 (Geyer, *Practical Markov chain Monte Carlo*, 1992).
        """
        away = (self.images - self.mean).reshape(len(self.images), -1)
        number, total = len(away), 0.0
        whole = float(np.vdot(away, away)) / number
        for lag in range(1, number if whole > 0.0 else 1):
            alike = float(np.vdot(away[lag:], away[:-lag])) / (number - lag) / whole
            if alike <= 0.0:
                break
            total += alike
        return number / (1.0 + 2.0 * total)

    @property
    def clear(self) -> float:
        """Share of the voxels of the support whose density is more than two standard deviations from zero."""
        return float(np.mean((np.abs(self.mean) > 2.0 * self.std)[self.support > 0.5]))


def posterior_volumes(
    measurement: MeasurementLike,
    recovery: VolumeRecovery,
    count: int = 40,
    *,
    prior: Prior | None = None,
    diameter: float | None = None,
    poses: Literal["open", "held"] = "open",
    seed: int = 0,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
    callback: Callable[[DrawsState], None] | None = None,
    state: DrawsState | None = None,
) -> VolumeDraws:
    """Draw volumes from the posterior by a chain that starts at the recovered volume; each step is an E-step over the whole measurement.

    Noise level, number of copies, amplitudes and offset are those of the recovery. The spread does not include rotations, shifts and the hand, nor
    the possibility that the volume is wrong altogether.

    Args:
        measurement: of the run.
        recovery: the run.
        count: number of draws, at least 2; two steps of the chain each, after the first twenty.
        prior: learned prior of the run, smoothed here by the noise that the data leave in a voxel with unknown poses; None: the
            Gaussian prior estimated from the data, whose powers are drawn as well.
        diameter: of the particle in pixels, as in :func:`mtdcore.recover_volume`.
        poses: "open": unknown; "held": fixed at the posterior of the recovered volume, which is too certain if poses are uncertain.
        seed: of the noise.
        backend: of the E-steps, see :func:`mtdcore.recover_volume`.
        executor: runs parts of an E-step elsewhere.
        callback: called after every step with the state of the chain.
        state: a state that a callback received, with the same arguments: the chain continues from it with the same bits.

    Returns:
        (count, L, L, L), up to the band of the run.

    Raises:
        ParameterError: fewer than two draws.
        InputError: the run found no copies.
    """
    if count < 2:
        raise ParameterError(f"a spread needs at least 2 draws; got {count}.")
    if not recovery.found_copies:
        raise InputError(
            f"draws need copies; the run expects {recovery.expected_count:.3g} with {recovery.evidence:.3g} nats of evidence: there is nothing to be sure of."
        )
    plan, engine, rng = recovery.plan, get_backend(backend), np.random.default_rng(seed)
    source, model = recovery.read(open_measurement(measurement)), recovery.likelihood
    views = plan.search(plan.iterations).views
    done = 0 if state is None else state.iteration
    steps = itertools.count(plan.iterations + 1 + done)

    def e_step(volume: np.ndarray, fresh: bool = True) -> VolumeStatistics:
        # new views for every step, as a fixed set would bias the chain
        search = plan.search(next(steps) if fresh else plan.iterations)
        return volume_e_step(
            source, volume, with_views(model, search.views), search, engine, executor
        ).normalised()

    def held(volume: np.ndarray) -> VolumeStatistics:
        return recovery.statistics

    found, sigma, band = recovery.statistics, recovery.noise_std, plan.last_band
    begun = VolumeUpdate()(
        recovery.seen, found.right, found.normal, sigma, band, recovery.state.best.spectrum, None, diameter
    )
    density: Density = Enveloped(begun[1], sigma, len(views.partners))
    if prior is not None:
        level = noise_level(found.normal, sigma, band)
        if poses == "open":
            step = sigma * NormalEquations.tied(found.normal, (sigma / level) ** 2).draw(rng)
            step = views.symmetrised(step)
            near = e_step(recovery.seen + step, fresh=False)
            level /= math.sqrt(_share(found, near, recovery.seen, step))
        density = Smoothed(in_units_of(placed(prior, engine), begun[0]), sigma, level)
    link, drawn = (None, []) if state is None else (state.link, [*state.images])
    if state is not None:  # the state was saved after the draws above
        rng.bit_generator.state = dict(state.generator)
    chain = walk(e_step if poses == "open" else held, density, recovery.seen, rng, views.symmetrised, link)
    support = ball(plan.box_size, diameter)
    while state is None or state.iteration < _BEFORE + _EVERY * count:
        volume, link = next(chain)
        done += 1
        if done > _BEFORE and (done - _BEFORE) % _EVERY == 0:
            seen = low_passed(volume, band) * support
            drawn.append(recovery.noise_model.unfiltered(seen, band))
        state = DrawsState(done, link, rng.bit_generator.state, np.reshape(drawn, (-1, *volume.shape)))
        if callback is not None:
            callback(state)
    return VolumeDraws(state.images[:count], support=support, state=state)


def save_draws(path: str | Path, state: DrawsState, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint of a chain; the one at ``path`` becomes the previous one.

    Args:
        path: the ``.safetensors`` file to make or replace.
        state: what a callback received.
        identity: JSON-able parameters that the chain depends on.

    Raises:
        StorageError: the operating system refused; the checkpoint at ``path`` is still there.
    """
    arrays = {"state": state.link.state, "noise": state.link.noise, "images": state.images}
    if state.link.free is not None:
        arrays["free"] = state.link.free
    header = {"format": _FORMAT, "identity": identity, "iteration": state.iteration}
    write_kept(Path(path), header | {"generator": state.generator}, arrays)


def load_draws(path: str | Path, identity: Mapping[str, Any]) -> DrawsState:
    """Read the checkpoint of the chain with this identity.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another chain; the message lists the differences.
    """
    header, arrays = read_checkpoint(Path(path), _FORMAT, identity)
    link = Link(arrays["state"], arrays["noise"], arrays.get("free"))
    return DrawsState(header["iteration"], link, header["generator"], arrays["images"])


def _share(here: VolumeStatistics, there: VolumeStatistics, volume: np.ndarray, step: np.ndarray) -> float:
    """Share of the information that remains with unknown poses: the response of the gradient ``b - N V`` to a step, over that with known poses (Louis 1982)."""
    turn = here.right - here.normal(volume) - there.right + there.normal(volume + step)
    share = float(np.vdot(step, turn)) / float(np.vdot(step, here.normal(step)))
    return min(max(share, _LEAST_SHARE), 1.0)
