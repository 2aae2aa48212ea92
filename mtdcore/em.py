"""Expectation-maximisation: the loop and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ._typing import Array
from .backends import Backend, get_backend
from .errors import ParameterError
from .estep import check_box_fits, e_step
from .likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from .measurement import Measurement, open_measurement
from .mstep import DenoisingUpdate, ExactUpdate, Update
from .noise import default_expected_count, estimate_noise_std
from .priors import FlatPrior, Prior
from .recovery import EMState, IterationRecord, Recovery
from .schedule import Temperature

#: While the target is still meaningless the count may not fall below this share of its start: otherwise EM
#: can settle on "there are no copies" (SPEC 7).
_COUNT_FLOOR = 0.5

#: Norm of a blob start in units of the noise: two nats per copy.
_BLOB_NORM = 2.0


def recover(
    measurement: Measurement | ArrayLike | str,
    *,
    box_size: int,
    rotations: int = 4,
    noise_std: float | Literal["auto"] = "auto",
    prior: Prior | None = None,
    likelihood: Literal["window", "patch"] | Likelihood = "window",
    min_separation: int | None = None,
    expected_count: float | None = None,
    update: Update | None = None,
    initial: ArrayLike | Literal["uniform", "blob"] = "uniform",
    iterations: int = 60,
    tolerance: float = 1e-5,
    temperature: float | Literal["auto"] | None = None,
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
        rotations: number K of equally spaced in-plane rotations.
        noise_std: standard deviation of the noise in the units of the measurement; "auto": estimated, then
            updated by every M-step.
        prior: prior over targets; None: flat.
        likelihood: "window" (SPEC 7), "patch" (SPEC 3, uniform pose prior as in the paper), or a likelihood object
            whose tied parameters are the start; it then decides box, rotations, noise and separation.
        min_separation: smallest distance of two corners in pixels (window model); None: box_size.
        expected_count: start for the number of copies (window model); None: a tenth of the area.
        update: the M-step; None: :class:`DenoisingUpdate` with a prior, :class:`ExactUpdate` without.
        initial: (L, L) start; "uniform": U[0, 1] per pixel from ``seed``; "blob": a faint bright
            Gaussian blob.
        iterations: largest number of iterations.
        tolerance: stop when ``||F_next - F||`` falls below this.
        temperature: run at noise variance ``T sigma^2``, T falling geometrically from this to 1 over the first
            60 % of the iterations; "auto": a start that leaves about 10 nats per copy (SPEC 8); None: 1.
        backend: a backend or its name.
        seed: of the random start.
        executor: runs the E-step in parts elsewhere, see :func:`e_step`.
        callback: called after every iteration; returning True stops the run.
        state: a state that a callback received: the run goes on from there with the same bits.

    Raises:
        ParameterError: a parameter is outside its domain.
        InputError: the measurement is smaller than the box or holds nothing usable.
    """
    source = open_measurement(measurement)
    engine = get_backend(backend)
    prior = prior or FlatPrior()
    update = update or (ExactUpdate() if isinstance(prior, FlatPrior) else DenoisingUpdate())
    if state is None:
        check_box_fits(source, box_size)
        model = _model(likelihood, source, box_size, rotations, noise_std, min_separation, expected_count)
        start = _start(initial, model, seed)
        schedule = Temperature.begin(temperature, iterations, model, source)
        state = EMState.begin(start, model, schedule)
    floor = _COUNT_FLOOR * state.first_count
    stopped: Literal["iterations", "tolerance", "callback"] = "iterations"
    while state.iteration < iterations:
        began = time.perf_counter()
        heat = state.schedule.at(state.iteration)
        tempered = state.likelihood.with_noise_std(state.likelihood.noise_std * heat**0.5)
        target = engine.asarray(state.target)
        statistics = e_step(source, target, tempered, engine, executor)
        moved = engine.to_host(update(target, statistics.cropped(), prior, state.iteration, iterations))
        model = _update_tied(state.likelihood, statistics, floor if 2 * state.iteration < iterations else 0.0)
        if noise_std == "auto":
            residual = statistics.residual_energy(engine.asarray(moved)) / statistics.pixels
            model = model.with_noise_std(max(residual, 0.0) ** 0.5)
        record = IterationRecord(
            iteration=state.iteration + 1,
            objective=statistics.log_likelihood,
            step_norm=float(np.linalg.norm(moved - state.target)),
            expected_count=statistics.expected_count,
            noise_std=model.noise_std,
            temperature=heat,
            seconds=time.perf_counter() - began,
        )
        state = state.advance(moved, model, record)
        if callback is not None and callback(state):
            stopped = "callback"
            break
        if record.step_norm < tolerance and heat == 1.0:
            stopped = "tolerance"
            break
    final = e_step(source, engine.asarray(state.target), state.likelihood, engine, executor)
    average = ExactUpdate().solve(engine.asarray(state.target), final.cropped())
    return Recovery(state, final, engine.to_host(average), stopped)


def _model(
    likelihood: Literal["window", "patch"] | Likelihood,
    source: Measurement,
    box_size: int,
    rotations: int,
    noise_std: float | Literal["auto"],
    min_separation: int | None,
    expected_count: float | None,
) -> Likelihood:
    if not isinstance(likelihood, str):
        return likelihood
    sigma = estimate_noise_std(source) if noise_std == "auto" else float(noise_std)
    if likelihood == "patch":
        return PatchLikelihood(box_size, rotations, sigma)
    if likelihood == "window":
        if expected_count is None:
            expected_count = default_expected_count(source.shape, box_size)
        return WindowLikelihood(box_size, rotations, sigma, expected_count, min_separation)
    raise ParameterError(f'likelihood must be "window", "patch" or a likelihood object; got {likelihood!r}.')


def _start(initial: ArrayLike | Literal["uniform", "blob"], model: Likelihood, seed: int) -> np.ndarray:
    side = (model.box_size, model.box_size)
    if isinstance(initial, str):
        if initial == "uniform":
            return np.random.default_rng(seed).uniform(size=side)
        if initial == "blob":
            return _blob(model)
        raise ParameterError(f'initial must be "uniform", "blob" or an image; got {initial!r}.')
    start = np.array(initial, dtype=np.float64)
    if start.shape != side or not np.isfinite(start).all():
        raise ParameterError(
            f"the initial image should be finite and of shape {side}; got shape {start.shape}."
        )
    return start


def _blob(model: Likelihood) -> np.ndarray:
    """A Gaussian blob a sixth of the box wide, so weak that it prefers bright regions without deciding."""
    offset = np.arange(model.box_size) - (model.box_size - 1) / 2
    line = np.exp(-0.5 * (6.0 * offset / model.box_size) ** 2)
    blob = np.outer(line, line)
    return np.asarray(blob * (_BLOB_NORM * model.noise_std / np.linalg.norm(blob)))


def _update_tied(model: Likelihood, statistics: Array, floor: float) -> Likelihood:
    """M-step of the pose prior: expected count, or empty probability where it is tied."""
    if isinstance(model, WindowLikelihood):
        return replace(model, expected_count=max(statistics.expected_count, floor, 1e-3))
    if model.empty_probability is None:
        return model
    share = statistics.empty_mass / max(1, statistics.sites)
    return replace(model, empty_probability=float(np.clip(share, 1e-6, 1.0 - 1e-6)))
