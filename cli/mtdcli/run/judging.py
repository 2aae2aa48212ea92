"""Evidence for a result: null runs, half sets, posterior draws (docs/trust.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np

import mtdcore as mtd
from mtdcore.data import Measurement
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.data.tiles import TileGeometry
from mtdcore.em.checkpoint import fingerprint
from mtdcore.em.checks.doubts import undoubted
from mtdcore.em.gauge.scale import in_units
from mtdcore.errors import InputError
from mtdcore.results.halves import half_recoveries, half_set_correlation
from mtdcore.results.nulls import Verdict, coloured, evidence_threshold, null_measurement, phase_randomised
from mtdcore.results.uncertainty import average_level, posterior_samples, unbiased_average

from ..terminal.console import log
from ..terminal.progress import Progress
from ..terminal.stopping import patiently
from .arguments import arguments, computing, optics
from .finished import FinishedRun
from .memory import threads_within
from .record import Null

#: Draws from the posterior of the target, and noise levels of each.
_DRAWS, _STEPS = 32, 64


def examine(run: FinishedRun, null_runs: int, null: Null = "white", halves: bool = True) -> None:
    """Add what is missing to ``trust.json`` of a finished run, one recovery after the other.

    Args:
        run: in a folder locked by the caller; ``device`` and ``threads`` among its parameters may be others.
        null_runs: number of null runs wanted.
        null: their kind.
        halves: whether to compare two halves of the data, and of the first null measurement.

    Raises:
        Interrupted: a signal came; the recoveries that were complete are in the file.
        InputError: the measurement is gone, or another one.
    """
    folder, trust = run.folder, run.folder.read_trust()
    of_null = trust.null(null)
    seeds = range(len(of_null.evidence), null_runs)
    split = [place for place in (trust, of_null) if halves and place.halves is None]
    with _repeating(run, len(seeds) + 2 * len(split)) as (measurement, options):
        without = _without_copies(run, measurement, null)
        for seed in seeds:
            with undoubted():
                found = mtd.recover(without(seed), **options, seed=seed)
            of_null.evidence.append(found.evidence)
            if seed == 0:
                folder.write_image(folder.null_target(null), found.target)
            folder.write_trust(trust)
        for place in split:
            source, target = (
                (measurement, folder.estimate) if place is trust else (without(0), folder.null_target(null))
            )
            with undoubted():
                pair = half_recoveries(source, run.image(target), **options, seed=0)
            place.halves = half_set_correlation(*pair, run.commonest)
            folder.write_trust(trust)
        if not folder.posterior_std.exists() and run.parameters.classes == 1:
            _draw(run, measurement, options)


def findings(run: FinishedRun) -> dict[str, Any]:
    """The verdict and the numbers behind it, as far as they have been computed; no verdict without null runs."""
    trust, found = run.folder.read_trust(), run.record.result
    null: dict[Null, list[float]] = {kind: trust.null(kind).evidence for kind in get_args(Null)}
    limits = {kind: evidence_threshold(values) for kind, values in null.items() if len(values) > 1}
    result: dict[str, Any] = {"evidence_nats": found.evidence_nats}
    if limits:
        verdict = Verdict(found.evidence_nats, max(limits.values()))
        result |= {"verdict": verdict.sentence, "supported": verdict.supported, "threshold": limits}
        result["null_evidence"] = {kind: null[kind] for kind in limits}
    if trust.halves is not None:
        result["half_set_resolution_pixels"] = trust.halves.resolution()
    if found.data_share is not None:
        result["data_share"] = found.data_share
    return result


@contextmanager
def _repeating(run: FinishedRun, recoveries: int) -> Iterator[tuple[Measurement, dict[str, Any]]]:
    """The measurement of a run and the arguments of its recovery, without the seed; with progress and signals."""
    parameters, measurement = run.parameters, run.open()
    if fingerprint(measurement) != run.record.measurement.fingerprint:
        raise InputError(f"{run.measurement} should be the measurement of this run; it has changed since.")
    begun = 0
    with (
        computing(parameters, threads_within(parameters, measurement.shape)) as (backend, executor),
        patiently() as stop,
        Progress("trust", recoveries * parameters.iterations, "iterations") as bar,
    ):

        def after(state: mtd.EMState) -> None:
            nonlocal begun
            begun += state.iteration == 1
            stop.iteration = state.iteration
            bar.update((begun - 1) * parameters.iterations + state.iteration)
            stop.check()

        told = optics(MicrographTable.load(run.folder.path), parameters.micrographs)
        options = arguments(parameters, told)
        del options["seed"]
        yield measurement, {**options, "backend": backend, "executor": executor, "callback": after}


def _without_copies(
    run: FinishedRun, measurement: Measurement, null: Null
) -> Callable[[int], Measurement | np.ndarray]:
    """A function of the seed: measurements like this one without copies."""
    if null == "phases":
        pixels = _pixels(measurement)
        valid, filled = np.isfinite(pixels), np.nan_to_num(pixels, nan=run.likelihood.offset)
        return lambda seed: np.where(valid, phase_randomised(filled, seed), np.nan).astype(measurement.dtype)
    likelihood, micrographs = run.likelihood, run.likelihood.micrographs
    ratios = np.ones(measurement.shape[0]) if micrographs is None else micrographs.noise_ratio
    levels = (likelihood.noise_std * ratios).tolist()
    return lambda seed: coloured(
        null_measurement(measurement, levels, seed, likelihood.offset), likelihood.whitening
    )


def _pixels(measurement: Measurement) -> np.ndarray:
    """(micrographs, H, W), pixels that may not be used NaN."""
    whole = np.empty(measurement.shape, measurement.dtype)
    for tile in measurement.tiles(TileGeometry(side=512, unit=1, halo=0, reach=0)):
        seen = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
        whole[tile.micrograph][tile.region.read] = seen
    return whole


def _draw(run: FinishedRun, measurement: Measurement, options: dict[str, Any]) -> None:
    """Posterior mean and standard deviation of the target, as images; without a prior they say nothing new."""
    prior, likelihood, folder = options["prior"], run.likelihood, run.folder
    if prior is None or not run.record.result.expected_count > 0:
        return
    log("drawing from the posterior of the target")
    final = {"likelihood": likelihood, "initial": run.estimate, "starts": None}
    found = mtd.recover(measurement, **{**options, **final, "iterations": 0}, seed=0)
    if run.parameters.likelihood == "window" and likelihood.micrographs is None:
        average, level = unbiased_average(measurement, found, options["backend"])
    else:
        average, level = found.aligned_average, average_level(found)
    known = in_units(prior, run.record.result.prior_scales)
    drawn = posterior_samples(average, level, known, _DRAWS, steps=_STEPS)
    folder.write_image(folder.posterior_mean, drawn.mean)
    folder.write_image(folder.posterior_std, drawn.std)
