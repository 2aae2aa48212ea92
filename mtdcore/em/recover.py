"""Expectation-maximisation: the loop and nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..data import Measurement, open_measurement
from ..estep.backends import Backend, get_backend
from ..estep.backends.local import search_with
from ..estep.expectation import check_box_fits, e_step, tile_cut
from ..estep.statistics import Statistics
from ..model.likelihood import Likelihood, WindowLikelihood
from ..model.optics import Micrographs
from ..model.priors import FlatPrior, Prior
from ..model.rotations import RotationSet
from ..mstep.classes import EachClass
from ..mstep.numbers import begin_model, updated
from ..mstep.updates import DenoisingUpdate, ExactUpdate, Update
from ..mstep.wiener import WienerUpdate
from .batches import OnlineEM
from .gauge.centre import CentreGauge, centred
from .gauge.extent import spaced
from .gauge.prior import Gauge, PriorGauge
from .starts import Start, choose_starts, default_start
from .state import Candidate, EMState, IterationRecord, Recovery, doubt_noise
from .temperature import Temperature

#: Copies that are enough to find the centre of the target.
_COPIES = 50


def recover(
    measurement: Measurement | ArrayLike | str,
    *,
    box_size: int,
    rotations: int = 4,
    coarse_rotations: int | Literal["auto"] | None = "auto",
    noise_std: float | Literal["auto"] = "auto",
    prior: Prior | None = None,
    likelihood: Literal["window", "patch"] | Likelihood = "window",
    min_separation: int | Literal["auto"] | None = None,
    expected_count: float | None = None,
    classes: int = 1,
    micrographs: Micrographs | Literal["each"] | None = None,
    update: Update | None = None,
    initial: ArrayLike | Start | None = None,
    starts: int | None = None,
    gauge: Gauge | Literal["auto"] | None = "auto",
    iterations: int = 60,
    tolerance: float = 1e-5,
    temperature: float | Literal["auto"] | None = None,
    online: OnlineEM | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    executor: Executor | None = None,
    callback: Callable[[EMState], bool | None] | None = None,
    state: EMState | None = None,
) -> Recovery:
    """Recover the target image from a measurement, without picking its copies.

    Args:
        measurement: anything :func:`open_measurement` takes.
        box_size: side L of the target in pixels.
        rotations: number K of equally spaced in-plane rotations; for copies at any angle about pi L, neighbours then
            differ by one pixel at the edge of the box.
        coarse_rotations: window model: look for copies with so many of the angles, and score all K only where they may
            be (:class:`mtdcore.estep.backends.local.LocalSearch`); None: score all everywhere; "auto": about pi L / 4 where K is at least twice that.
        noise_std: standard deviation of the noise in the units of the measurement; "auto": estimated, then
            updated by every M-step.
        prior: prior over targets; None: flat.
        likelihood: "window" (docs/model.md 7), "patch" (docs/model.md 3, uniform pose prior as in the paper), or a
            likelihood object of this box and these rotations, whose tied parameters are the start; it then decides
            noise, count and separation.
        min_separation: smallest distance of two corners in pixels (window model); None: box_size; "auto": half the box at
            first, then as close as copies of the size that the target shows can come without overlap.
        expected_count: start for the number of copies (window model); None: a tenth of the area.
        classes: number C of targets that copies may show; the result then holds (C, L, L) images and their weights.
        micrographs: what tells the micrographs apart: their own noise levels and numbers of copies, estimated and
            updated as the common ones are, and their transfer. "each": no more is known; None: they are alike.
        update: the M-step; None: :class:`DenoisingUpdate` with a prior; without, :class:`WienerUpdate` where micrographs have
            a transfer, else :class:`ExactUpdate`.
        initial: start or starts: an (L, L) image, an (S, L, L) stack (with C classes (C, L, L) or (S, C, L, L)), "uniform" (U[0, 1] per pixel), "samples" (drawn
            from the prior), "blob" (a faint bright Gaussian blob, several of different widths), "faint" (as uniform, so weak that a
            copy is worth two nats); None: samples with a prior, faint for :class:`WienerUpdate`, else uniform.
        starts: number of random starts; during the first quarter of the iterations the evidence leaves fewer and fewer
            of them in the race. None: 16 samples, or one of anything else.
        gauge: how the frame of the target is chosen, at each quarter of the iterations and on convergence
            (docs/model.md 9); "auto": by the prior for denoising updates, in the middle of the box for
            :class:`WienerUpdate`, else None: left as it is.
        iterations: largest number of iterations.
        tolerance: stop when ``||F_next - F||`` falls below this and the gauge is settled.
        temperature: run at noise variance ``T sigma^2``, T falling geometrically from this to 1 over the first
            60 % of the iterations; "auto": a start that leaves about 10 nats per copy (docs/model.md 8); None: "auto"
            for uniform starts of the window model, which need it where the signal is strong, 1 otherwise.
        online: mini-batch EM: an iteration reads a part of the measurement. None: all of it.
        backend: a backend or its name.
        seed: of the random starts.
        executor: runs the E-step in parts elsewhere, see :func:`e_step`.
        callback: called after every iteration; returning True stops the run.
        state: a state that a callback received: the run goes on from there with the same bits.

    Raises:
        ParameterError: a parameter is outside its domain.
        InputError: the measurement is smaller than the box or holds nothing usable.
    """
    source = open_measurement(measurement)
    check_box_fits(source, box_size)
    prior = prior or FlatPrior()
    update = update or _default_update(prior, micrographs, likelihood)
    if gauge == "auto":
        by_prior = isinstance(update, DenoisingUpdate) and not isinstance(prior, FlatPrior)
        unfixed = CentreGauge() if isinstance(update, WienerUpdate) else None
        gauge = PriorGauge.of(prior, rotations, box_size) if by_prior else unfixed
    if state is None:
        model = begin_model(
            likelihood,
            source,
            box_size,
            rotations,
            noise_std,
            (box_size + 1) // 2 if min_separation == "auto" else min_separation,
            expected_count,
            classes,
            micrographs,
        )
        kind = default_start(prior, update) if initial is None else initial
        targets = choose_starts(kind, starts, prior, model, seed)
        if temperature is None:
            uniform = isinstance(kind, str) and kind == "uniform"
            temperature = "auto" if uniform and isinstance(model, WindowLikelihood) else 1.0
        state = EMState.begin(targets, model, Temperature.begin(temperature, iterations, model, source))
    engine = search_with(get_backend(backend), coarse_rotations, rotations, box_size)
    online = online or OnlineEM()
    online.check_tiles(source.tile_count(state.likelihood.geometry))
    step = _Iteration(
        source,
        engine,
        prior,
        EachClass(update),
        gauge,
        online,
        iterations,
        tolerance,
        noise_std == "auto",
        min_separation == "auto" and isinstance(likelihood, str),
        executor,
    )
    stopped: Literal["iterations", "tolerance", "callback"] = "iterations"
    while not state.converged(tolerance) and state.iteration < iterations:  # a resumed run may be done
        state = step(state)
        if callback is not None and callback(state):
            stopped = "callback"
            break
    else:
        stopped = "tolerance" if state.converged(tolerance) else "iterations"
    final = step.statistics(source, state.target, state.likelihood)
    recovery = Recovery(state, final, step.average(state.target, final), stopped)
    doubt_noise(recovery)
    return recovery


@dataclass(frozen=True)
class _Iteration:
    """One iteration of a run: E-step, M-step, tied parameters, and at times the gauge."""

    source: Measurement
    engine: Backend
    prior: Prior
    update: Update
    gauge: Gauge | None
    online: OnlineEM
    iterations: int
    tolerance: float
    learn_noise: bool
    learn_separation: bool
    executor: Executor | None

    def __call__(self, state: EMState) -> EMState:
        """The state after one more iteration of every candidate, or of the best one once the race is over."""
        began = time.perf_counter()
        carried = state.best(self._places(state))
        gauge = self.gauge if len(carried) == 1 else None
        moved, records = zip(*(self._advance(c, state, gauge, began) for c in carried), strict=True)
        best = max(range(len(moved)), key=lambda i: moved[i].objective)
        slowest = max(record.step_norm for record in records)
        passes = sum(record.passes for record in records)
        return state.advance(moved, replace(records[best], step_norm=slowest, passes=passes))

    def _places(self, state: EMState) -> int:
        """Candidates that go on: all at first, ``quarter / n`` after n iterations, one from the first quarter on.

        So every stage of the race costs about the same, and many starts little more than a few (successive halving:
        Jamieson and Talwalkar 2016).
        """
        quarter = self.iterations // 4
        if state.iteration == 0 < quarter:
            return len(state.candidates)
        if state.iteration >= quarter or state.at_rest(self.tolerance):
            return 1
        return math.ceil(quarter / state.iteration)

    def _advance(
        self, candidate: Candidate, state: EMState, gauge: Gauge | None, began: float
    ) -> tuple[Candidate, IterationRecord]:
        iteration, heat = state.iteration, state.schedule.at(state.iteration)
        model, target = candidate.likelihood, candidate.target
        tempered = model.with_noise_std(model.noise_std * math.sqrt(heat))
        batch = self.online.batch(self.source, iteration, self.iterations)
        found = self.statistics(batch, target, tempered)
        passes = share = found.sites / model.geometry.sites(self.source.shape)
        earlier = candidate.running and candidate.running.moved(self.engine.asarray)
        running = self.online.mix(earlier, found, share)
        statistics = running.statistics
        image = self.engine.to_host(
            self.update(self.engine.asarray(target), running.weighed, self.prior, iteration, self.iterations)
        )
        residual = partial(statistics.residual_energy, self.engine.asarray(image))
        corners = model.geometry.sites((1, *self.source.shape[1:]))
        early = 2 * iteration < self.iterations
        model = updated(
            model, statistics, residual if self.learn_noise else None, state.first_count, corners, early
        )
        carried = running.moved(self.engine.to_host) if share < 1.0 else None
        due, settled = self._is_due(iteration, heat, image - target), share == 1.0
        if self.learn_separation and due:
            before, model = model, spaced(model, image)
            settled &= model is before
        if gauge is not None and due:
            framed, extra = self._regauge(gauge, image, model, batch)
            passes += extra * share
            if not np.array_equal(framed, image):
                image, carried = framed, None  # statistics of another frame are of no use
        record = IterationRecord(
            iteration=iteration + 1,
            objective=statistics.log_likelihood,
            # a part of the pixels, or another model, says nothing of being at rest
            step_norm=max(float(np.linalg.norm(image - target)), 0.0 if settled else self.tolerance),
            expected_count=statistics.expected_count,
            noise_std=model.noise_std,
            temperature=heat,
            seconds=time.perf_counter() - began,
            passes=passes,
        )
        return Candidate(image, model, statistics.log_likelihood, carried), record

    def statistics(self, source: Measurement, target: np.ndarray, model: Likelihood) -> Statistics:
        """E-step at a host target, over the measurement or a part of it."""
        pixels = None if source is self.source else 0  # parts are to be small: the smallest tiles there are
        return e_step(source, self.engine.asarray(target), model, self.engine, self.executor, pixels)

    def average(self, target: np.ndarray, statistics: Statistics) -> np.ndarray:
        """Unregularised aligned average on the host, of the size of the statistics' frame."""
        solve = EachClass(ExactUpdate())
        return self.engine.to_host(solve(self.engine.asarray(target), statistics, self.prior, 0, 1))

    def _is_due(self, iteration: int, heat: float, step: np.ndarray) -> bool:
        """At each quarter of the iterations, and whenever the target has stopped moving."""
        quarter = max(1, self.iterations // 4)
        at_rest = heat == 1.0 and float(np.linalg.norm(step)) < self.tolerance
        return at_rest or (iteration > 0 and iteration % quarter == 0)

    def _regauge(
        self, gauge: Gauge, target: np.ndarray, model: Likelihood, batch: Measurement
    ) -> tuple[np.ndarray, float]:
        """The targets in the frame of the gauge, and the passes over the batch that this took."""
        passes = 1.0
        if target.ndim == 2 and not RotationSet(model.rotations, model.box_size).exact:
            target, passes = self._centred(target, model, batch)
        margin = max(1, model.box_size // 5)
        statistics = self.statistics(batch, target, replace(model, margin=margin))
        if target.ndim == 2:
            return self._framed(gauge, target, statistics), passes
        framed = [self._framed(gauge, t, statistics.of_class(c)) for c, t in enumerate(target)]
        return np.stack(framed), passes

    def _centred(self, target: np.ndarray, model: Likelihood, batch: Measurement) -> tuple[np.ndarray, float]:
        """The target where copies at any angle put it, judged by a part of the batch, and the passes that this took."""
        enough = int(model.expected_count // _COPIES) if isinstance(model, WindowLikelihood) else 1
        parts = max(1, min(enough, batch.tile_count(tile_cut(model.bind(self.source.shape), self.engine))))
        part, passes = batch.split(parts)[0], 1.0

        def gain(image: np.ndarray) -> float:
            nonlocal passes
            passes += 1.0 / parts
            residual = self.statistics(part, image, model).residual_energy(self.engine.asarray(image))
            return -residual / (2.0 * model.noise_std**2)

        return centred(target, gain), passes

    def _framed(self, gauge: Gauge, target: np.ndarray, statistics: Statistics) -> np.ndarray:
        copies, margin = statistics.largest_coverage, statistics.margin
        if copies <= 0.0:
            return target
        average = self.average(np.pad(target, margin), statistics)
        return gauge.choose(target, average, statistics.noise_std / math.sqrt(copies))


def _default_update(
    prior: Prior, micrographs: Micrographs | Literal["each"] | None, likelihood: str | Likelihood
) -> Update:
    if not isinstance(prior, FlatPrior):
        return DenoisingUpdate()
    facts = micrographs if isinstance(likelihood, str) else likelihood.micrographs
    filtered = isinstance(facts, Micrographs) and facts.transfer is not None
    return WienerUpdate() if filtered else ExactUpdate()
