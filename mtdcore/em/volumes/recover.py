"""The loop: E-step on a part, M-step that knows how little a part tells, numbers, frame."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ...data import Measurement, open_measurement
from ...data.derived import without_offset
from ...data.noise import default_expected_count, excess_energy
from ...errors import ParameterError
from ...estep.backends import Backend, get_backend
from ...estep.backends.placed import placed
from ...estep.expectation import check_box_fits
from ...estep.volumes.expectation import check_alike, volume_cut, volume_e_step, with_views
from ...estep.volumes.residual import left_over
from ...estep.volumes.statistics import VolumeStatistics
from ...estep.volumes.templates import Search
from ...model.filters.optics import Micrographs
from ...model.likelihood import WindowLikelihood
from ...model.priors import Prior
from ...model.volumes.grids import ball, moved, shifted
from ...model.volumes.projections import Projections
from ...mstep.volumes import VolumeUpdate
from ..online.batches import OnlineEM
from .gauge import find_axes, off_centre
from .noise import Heard, Picture, VolumeNoise, hear, suspected
from .plan import VolumePlan, default_separation, last_band
from .recovery import VolumeRecovery
from .starts import rough_blob
from .state import VolumeCandidate, VolumeRecord, VolumeState

#: Least energy of the copies, as a share of the noise's, that a start assumes.
_LEAST_EXCESS = 1e-3

#: Parts of the measurement that an iteration reads one of, where it has as many tiles.
_PARTS = 8

#: Shells of frequency at first, at least: one alone shows where a copy is, but nothing of how it lies.
_SHELLS = 2

#: Tiles in which the noise is listened to.
_HEARD = 16

#: Share of the iterations in which the offset is held at the median: while no copies are found it would take their mean for its own.
_HELD = 0.25

#: Every so many iterations the volume is centred.
_CENTRED = 3

#: Nats below which an iteration holds nothing, and the share of a run of such iterations, cooled, after which nothing is to come.
_BLANK, _PATIENCE = 5.0, 0.25

#: Least noise level, of that which neighbouring pixels tell: where windows overlap, what copies explain counts twice, and less than
#: nothing may be left.
_QUIETEST = 0.5


def recover_volume(
    measurement: Measurement | ArrayLike | str,
    *,
    box_size: int,
    symmetry: str = "C1",
    noise_std: float | Literal["auto"] = "auto",
    noise: VolumeNoise = "auto",
    diameter: float | None = None,
    min_separation: int | None = None,
    expected_count: float | None = None,
    micrographs: Micrographs | None = None,
    prior: Prior | None = None,
    initial: ArrayLike | None = None,
    starts: int = 1,
    iterations: int = 120,
    views: int = 1200,
    band: float | None = None,
    parts: int | None = None,
    seed: int = 0,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
    plan: VolumePlan | None = None,
    callback: Callable[[VolumeState], bool | None] | None = None,
    state: VolumeState | None = None,
) -> VolumeRecovery:
    """Recover a volume from a measurement of its projections, without picking them (docs/model.md 14).

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes; particles bright.
        box_size: L in pixels.
        symmetry: point group; it is imposed late, on the axes that the volume shows.
        noise_std: of a pixel; "auto": estimated, then updated by every M-step.
        noise: "white"; or "auto": where quiet parts of the measurement are not white, and neither is what the copies leave once the run
            has cooled, it starts again behind a radial filter (not with a prior, nor with a ``noise_std`` that is given); or what an
            earlier run heard.
        diameter: of the particle in pixels; None: the box.
        min_separation: smallest distance of two corners in pixels; None: diameter / sqrt 2, or three quarters of the box.
        expected_count: start for the number of copies; None: a tenth of the area.
        micrographs: their transfers (docs/model.md 14), which the volume then is without; None: they are alike.
        prior: learned prior over volumes of this box; None: a Gaussian that the data give.
        initial: (L, L, L) start at the scale of the measurement, or (S, L, L, L); None: rough blobs.
        starts: number of rough blobs; half way the one of most evidence goes on.
        iterations: number of iterations.
        views: number of views in the end.
        band: frequency limit in the end, cycles per pixel; None: what suits the box.
        parts: an iteration reads one of so many parts, the last ones everything; None: eight, or as many as there are tiles.
        seed: of starts, views and parts.
        backend: a backend or its name (:func:`mtdcore.get_backend`); "auto": the first CUDA device, or the CPU. Its array library makes the
            E-steps, on its device and in its precision, and the prior is asked there; templates and the rest of an M-step are the host's.
        executor: runs parts of an E-step elsewhere, with the same bits.
        plan: overrides everything that a :class:`VolumePlan` says.
        callback: called after every iteration; returning True stops the run.
        state: a state that a callback received: the run goes on from there with the same bits.

    Raises:
        ParameterError: a parameter is outside its domain.
        InputError: the measurement is smaller than the box, or holds nothing usable.
    """
    source = open_measurement(measurement)
    check_box_fits(source, Projections(box_size, 1))
    if plan is None:
        top = last_band(box_size) if band is None else band
        plan = VolumePlan(
            box_size,
            symmetry,
            iterations,
            first_band=max(VolumePlan.first_band, _SHELLS / box_size),
            last_band=top,
            first_views=min(VolumePlan.first_views, views),
            last_views=views,
            seed=seed,
        )
    if starts < 1:
        raise ParameterError(f"a run has at least one start; got {starts}.")
    learned, engine = noise_std == "auto", get_backend(backend)
    prior = None if prior is None else placed(prior, engine)
    if isinstance(noise, Heard) and noise.whitening is not None and prior is not None:
        raise ParameterError(
            'a prior of volumes knows none through a filter; give noise="white", or no prior.'
        )
    separation = default_separation(box_size, diameter) if min_separation is None else min_separation
    if micrographs is not None:
        check_alike(_likelihood(plan.box_size, 1.0, 1.0, separation, micrographs).bind(source.shape))
    tiles = source.tile_count(volume_cut(_likelihood(plan.box_size, 1.0, 1.0, separation)))
    online = OnlineEM(parts=min(_PARTS, tiles) if parts is None else parts, last=0, seed=plan.seed)
    online.check_tiles(tiles)

    def behind(heard: Heard) -> _Iteration:
        quietest = _QUIETEST * heard.noise_std if learned else 0.0
        return _Iteration(
            heard.through(source),
            plan,
            online,
            separation,
            micrographs,
            diameter,
            prior,
            learned,
            quietest,
            heard,
            engine,
            executor,
        )

    def begun(step: _Iteration) -> VolumeState:
        sigma = step.heard.noise_std if noise_std == "auto" else float(noise_std)
        count = expected_count or default_expected_count(source.shape, box_size)
        return _begin(step.source, plan, step.heard, sigma, count, initial, starts)

    heard = hear(source, noise)
    doubtful = noise == "auto" and learned and prior is None
    suspicion = suspected(source, heard, box_size, plan.last_band, diameter) if doubtful else None
    if suspicion is not None and state is not None and state.filtered:
        heard = suspicion.heard
    step = behind(heard)
    state = begun(step) if state is None else state
    stopped: Literal["iterations", "callback", "blank"] = "iterations"
    while state.iteration < plan.iterations:
        if suspicion is not None and not state.filtered and state.iteration == plan.cooled:
            band = plan.search(state.iteration).views.band
            if suspicion.confirmed(step.left_over(state.best, state.iteration), box_size, band):
                step = behind(suspicion.heard)
                state = replace(begun(step), filtered=True)
        if _is_blank(state, plan):
            stopped = "blank"
            break
        state = step(state)
        if callback is not None and callback(state):
            stopped = "callback"
            break
    best = state.best
    final = step.statistics(step.source, best, plan.search(plan.iterations), 1.0)
    return VolumeRecovery(
        replace(state, candidates=(best,)), final, plan, step.heard, separation, stopped, micrographs
    )


def _is_blank(state: VolumeState, plan: VolumePlan) -> bool:
    """Whether the latest iterations found nothing at temperature 1; noise alone ends so, and costs most, as no place stands out."""
    last = state.history[-max(1, round(_PATIENCE * plan.iterations)) :]
    enough = len(last) >= _PATIENCE * plan.iterations
    return enough and all(one.temperature == 1.0 and one.evidence < _BLANK for one in last)


def _begin(
    source: Measurement,
    plan: VolumePlan,
    heard: Heard,
    sigma: float,
    count: float,
    initial: ArrayLike | None,
    starts: int,
) -> VolumeState:
    """Starts in the data's units: the excess energy of the measurement over noise, shared among the expected copies."""
    noise = math.prod(source.shape) * sigma**2
    energy = max(excess_energy(source, sigma * math.sqrt(heard.share)), _LEAST_EXCESS * noise) / count
    if initial is None:
        volumes = [
            rough_blob(plan.box_size, plan.first_band, energy, np.random.default_rng([plan.seed, i]))
            for i in range(starts)
        ]
    else:
        given = np.asarray(initial, np.float64)
        volumes = [heard.seen(v, plan.last_band) for v in (given[None] if given.ndim == 3 else given)]
        if any(v.shape != (plan.box_size,) * 3 or not np.isfinite(v).all() for v in volumes):
            raise ParameterError(
                f"a start should be a finite cube of {plan.box_size} voxels a side; got an array of shape {given.shape}."
            )
    heat = max(1.0, energy / (plan.nats * sigma**2))
    return VolumeState(tuple(VolumeCandidate(v, sigma, count) for v in volumes), count, heat)


def _likelihood(
    box_size: int, sigma: float, count: float, separation: int, micrographs: Micrographs | None = None
) -> WindowLikelihood:
    """The window model of a box, before its views are known."""
    return WindowLikelihood(Projections(box_size, 1), sigma, count, separation, micrographs=micrographs)


@dataclass(frozen=True)
class _Iteration:
    """One iteration of a run."""

    source: Measurement
    plan: VolumePlan
    online: OnlineEM
    separation: int
    micrographs: Micrographs | None
    diameter: float | None
    prior: Prior | None
    learn_noise: bool
    quietest: float
    heard: Heard
    backend: Backend
    executor: Executor | None

    def __call__(self, state: VolumeState) -> VolumeState:
        """The state after one more iteration of every candidate; half way only the best goes on."""
        iteration, candidates = state.iteration, state.candidates
        if len(candidates) > 1 and iteration >= round(self.plan.race * self.plan.iterations):
            candidates = (max(candidates, key=lambda c: self._judged(c, iteration)),)
        moved_on, records = zip(*(self._advance(c, state) for c in candidates), strict=True)
        best = max(range(len(moved_on)), key=lambda i: moved_on[i].evidence)
        return state.advanced(moved_on, records[best])

    def statistics(
        self, source: Measurement, candidate: VolumeCandidate, search: Search, heat: float
    ) -> VolumeStatistics:
        """E-step at a candidate, over the measurement or a part of it."""
        sigma = candidate.noise_std * math.sqrt(heat)
        model = with_views(self._model(sigma, candidate), search.views)
        source = without_offset(source, candidate.offset)
        return volume_e_step(source, candidate.volume, model, search, self.backend, self.executor)

    def left_over(self, candidate: VolumeCandidate, iteration: int) -> Iterator[Picture]:
        """What the copies of a candidate leave of some of the measurement."""
        search, model = self.plan.search(iteration), self._model(candidate.noise_std, candidate)
        level = without_offset(self.source, candidate.offset)
        return left_over(level, candidate.volume, model, search, _HEARD, self.backend)

    def _model(self, sigma: float, candidate: VolumeCandidate) -> WindowLikelihood:
        count = candidate.expected_count
        return _likelihood(self.plan.box_size, sigma, count, self.separation, self.micrographs)

    def _judged(self, candidate: VolumeCandidate, iteration: int) -> float:
        """Evidence over the whole measurement, for the race."""
        return self.statistics(self.source, candidate, self.plan.search(iteration), 1.0).log_likelihood

    def _advance(
        self, candidate: VolumeCandidate, state: VolumeState
    ) -> tuple[VolumeCandidate, VolumeRecord]:
        began, iteration, plan = time.perf_counter(), state.iteration, self.plan
        if iteration > 0 and plan.symmetry_at(iteration) != plan.symmetry_at(iteration - 1):
            candidate = self._on_axes(candidate)
        search, heat = plan.search(iteration), plan.heat(iteration, state.first_heat)
        whole = plan.reads_all(iteration)
        part = self.source if whole else self.online.batch(self.source, iteration, plan.iterations)
        found = self.statistics(part, candidate, search, heat)
        sites = volume_cut(_likelihood(plan.box_size, 1.0, 1.0, self.separation)).sites(self.source.shape)
        share = found.sites / sites
        copies, evidence = found.expected_count / share, found.log_likelihood / share
        volume, spectrum = candidate.volume, candidate.spectrum
        if copies < 1.0:  # so few say nothing of the volume, but that it may be too strong for the data
            volume = 0.5 * volume if 2 * iteration < plan.iterations else volume
        else:
            # The statistics are those of the part: the prior weighs what so few copies tell, and no earlier part holds the volume back.
            sigma = candidate.noise_std * math.sqrt(heat)
            volume, spectrum = VolumeUpdate(seed=iteration)(
                volume,
                found.right,
                found.normal,
                sigma,
                search.views.band,
                spectrum,
                self.prior,
                self.diameter,
            )
        noise_std = candidate.noise_std
        if self.learn_noise and found.pixels > 0:
            left = max(found.residual_energy(volume) / (found.pixels * self.heard.share), 0.0)
            noise_std = max(math.sqrt(left), self.quietest)
        offset = candidate.offset
        if iteration >= _HELD * plan.iterations and found.pixels > 0:
            # every view has the sum of the volume
            offset += (found.total - found.bright * float(volume.sum())) / found.pixels
        least = 0.5 * state.first_count if 2 * iteration < plan.iterations else 1.0
        if iteration % _CENTRED == _CENTRED - 1:
            volume = self._centred(volume)
        advanced = VolumeCandidate(volume, noise_std, max(copies, least), evidence, spectrum, offset)
        record = VolumeRecord(
            iteration=iteration + 1,
            band=search.views.band,
            views=search.views.count,
            temperature=heat,
            evidence=advanced.evidence,
            expected_count=copies,
            noise_std=noise_std,
            share=share,
            local=found.local / max(found.sites, 1.0),
            seconds=time.perf_counter() - began,
        )
        return advanced, record

    def _centred(self, volume: np.ndarray) -> np.ndarray:
        """The volume with its centre of mass in the middle."""
        support = ball(self.plan.box_size, self.diameter)
        shift = off_centre(volume, support)
        return volume if shift is None else shifted(volume, shift) * support

    def _on_axes(self, candidate: VolumeCandidate) -> VolumeCandidate:
        """The candidate with its axes on those of the group, and its volume made symmetric."""
        symmetry = self.plan.symmetry
        rotation, _ = find_axes(candidate.volume, symmetry)
        turned = moved(candidate.volume, rotation)
        views = self.plan.search(self.plan.iterations).views
        return replace(candidate, volume=views.symmetrised(turned) * ball(len(turned)))
