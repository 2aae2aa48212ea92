"""Evidence for and against a result: null runs, held-out data, other starts, half sets, posterior draws (docs/trust.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import mtdcore as mtd
from mtdcore._base.records import to_record
from mtdcore.data import Measurement
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.em.checkpoint import fingerprint
from mtdcore.em.checks.doubts import undoubted
from mtdcore.em.gauge.scale import in_units
from mtdcore.errors import InputError
from mtdcore.results.chains import posterior_chains
from mtdcore.results.halves import at_target, half_recoveries, half_set_correlation, pooled_evidence
from mtdcore.results.nulls import Null, null_like
from mtdcore.results.uncertainty import average_level, posterior_samples, unbiased_average
from mtdcore.results.verdict import Claim, ImageTrials, Verdict, asked

from ..terminal.console import log
from ..terminal.progress import Progress, duration
from ..terminal.stopping import patiently
from .arguments import arguments, computing, optics
from .finished import FinishedRun
from .memory import threads_within
from .record import ChainsRecord, NullRecord, TrustRecord

#: Number of draws from the posterior of the target, and of noise levels in each.
_DRAWS, _STEPS = 32, 32


def examine(
    run: FinishedRun, null_runs: int, halves: bool = True, complete: bool = False, chains: int = 0
) -> None:
    """Add what is missing to ``trust.json`` of a finished run, one recovery after the other.

    Args:
        run: in a folder locked by the caller; its parameters ``device`` and ``threads`` may differ from those of the recovery.
        null_runs: largest number of null runs of each kind.
        halves: whether to compare two halves of the data, and of the first null measurement, where the result is supported.
        complete: make every check, also those that can no longer change the verdict.
        chains: number of Markov chains for posterior draws of a supported result; 0: draws given the aligned average.

    Raises:
        Interrupted: a signal came; the results of completed recoveries are in the file.
        InputError: the measurement is missing or has changed.
    """
    folder, trust, result = run.folder, run.folder.read_trust(), run.record.result
    verdict = verdict_of(run, trust)
    began, before = time.perf_counter(), trust.seconds

    def keep() -> None:
        trust.seconds = before + time.perf_counter() - began
        trust.found = findings(run, trust)
        folder.write_trust(trust)

    with _repeating(run, 2 * null_runs + 11 + chains) as (measurement, options):
        claim = Claim(run.estimate, run.likelihood, result.evidence_nats, result.settled)
        trials = ImageTrials.of(measurement, claim, options)
        for more, question, found in asked(verdict, trials, null_runs, complete):
            verdict = more
            trust.learn(verdict)
            if question in ("white", "phases") and found is not None and len(verdict.nulls(question)) == 1:
                folder.write_image(folder.null_target(question), found.target)
            keep()
        if verdict.supported or complete:
            if halves:
                _compare_halves(run, measurement, options, trust, keep)
            if run.parameters.classes == 1 and (chains or not folder.posterior_std.exists()):
                _draw(run, measurement, options, trust, chains)
        elif chains:
            log(
                "no chains: the result is not supported, so that there is nothing to be sure of; --complete draws them all the same"
            )
    keep()
    unit = max(run.record.seconds, 1e-3)
    log(f"the verdict took {duration(trust.seconds)}, {trust.seconds / unit:.1f} times the recovery")


def verdict_of(run: FinishedRun, trust: TrustRecord) -> Verdict:
    """The verdict on a run as far as ``trust`` knows."""
    result = run.record.result
    return trust.verdict(result.evidence_nats, result.settled, run.parameters.prior is not None)


def findings(run: FinishedRun, trust: TrustRecord | None = None) -> dict[str, Any]:
    """The verdict and the numbers behind it, as far as they have been computed."""
    trust = run.folder.read_trust() if trust is None else trust
    found = run.record.result
    verdict = verdict_of(run, trust)
    result: dict[str, Any] = {"evidence_nats": found.evidence_nats}
    if not trust.seconds:
        return result
    result |= judgement(verdict)
    chance = {
        kind: curve.resolution() for kind in get_args(Null) if (curve := trust.null(kind).halves) is not None
    }
    if trust.halves is not None and chance:
        result["half_set_resolution_pixels"] = trust.halves.resolution()
        result["null_half_set_resolution_pixels"] = chance
    if found.data_share is not None:
        result["data_share"] = found.data_share
    if trust.chains is not None:
        result["chains"] = to_record(trust.chains)
    return result | {
        "verdict_seconds": trust.seconds,
        "verdict_in_recoveries": trust.seconds / max(run.record.seconds, 1e-3),
    }


def judgement(verdict: Verdict) -> dict[str, Any]:
    """A verdict as numbers and words, for the terminal and the records."""
    result: dict[str, Any] = {"verdict": verdict.sentence, "supported": bool(verdict.supported)}
    result["checks"] = {check.name: check.passed for check in verdict.checks}
    result["null_evidence"] = {
        kind: list(verdict.nulls(kind)) for kind in get_args(Null) if verdict.nulls(kind)
    }
    result["threshold"] = {kind: verdict.limit(kind) for kind in result["null_evidence"]}
    if verdict.white and verdict.phases:
        result["least_false_positive_rate"] = verdict.least_rate
    if verdict.held_out is not None:
        result["held_out_evidence_nats"] = pooled_evidence(verdict.held_out)
    if verdict.unaided is not None:
        result["held_out_evidence_without_prior_nats"] = pooled_evidence(verdict.unaided)
    if verdict.rival is not None:
        result["other_start_evidence_nats"] = verdict.rival
    if verdict.powerless:
        result["note"] = powerless(verdict)
    return result


def powerless(verdict: Verdict) -> str:
    """Explanation of a result whose evidence is above every null run and below the limit."""
    limits = [limit for kind in get_args(Null) if (limit := verdict.limit(kind)) is not None]
    return (
        f"the evidence is above that of every null run, but null runs differ so much that up to {max(limits):,.0f} nats may be noise: this may be "
        f"a lack of power, not of copies. More null runs, {'' if verdict.aided else 'a prior, '}the diameter or more data lower the limit."
    )


def _compare_halves(
    run: FinishedRun,
    measurement: Measurement,
    options: dict[str, Any],
    trust: TrustRecord,
    keep: Callable[[], None],
) -> None:
    """Half-set correlations, of null measurements first: the correlation of the data is judged by them."""
    folder = run.folder
    nulls = {kind: null_like(measurement, run.likelihood, kind, 0) for kind in get_args(Null)}
    places: list[tuple[NullRecord | TrustRecord, Measurement, Path]] = [
        (trust.null(kind), null, folder.null_target(kind)) for kind, null in nulls.items()
    ]
    places.append((trust, measurement, folder.estimate))
    for place, source, target in places:
        if place.halves is None:
            with undoubted():
                pair = half_recoveries(source, run.image(target), **options)
            place.halves = half_set_correlation(*pair, run.commonest)
            keep()


@contextmanager
def _repeating(run: FinishedRun, recoveries: int) -> Iterator[tuple[Measurement, dict[str, Any]]]:
    """The measurement of a run and the arguments of its recovery; with progress and signals."""
    parameters, measurement = run.parameters, run.open()
    if fingerprint(measurement) != run.record.measurement.fingerprint:
        raise InputError(f"{run.measurement} should be the measurement of this run; it has changed since.")
    begun = 0
    with (
        computing(parameters, threads_within(parameters, measurement.shape)) as (backend, executor),
        patiently() as stop,
        Progress("trust", recoveries * parameters.iterations, "iterations", most=True) as bar,
    ):

        def after(state: mtd.EMState) -> None:
            nonlocal begun
            begun += state.iteration == 1
            stop.iteration = state.iteration
            bar.update((begun - 1) * parameters.iterations + state.iteration)
            stop.check()

        unlike = optics(MicrographTable.load(run.folder.path), parameters.micrographs)
        yield (
            measurement,
            {**arguments(parameters, unlike), "backend": backend, "executor": executor, "callback": after},
        )


def _draw(
    run: FinishedRun, measurement: Measurement, options: dict[str, Any], trust: TrustRecord, chains: int
) -> None:
    """Posterior mean and standard deviation of the target, as images; skipped without a prior and chains, where they would repeat the average and its known noise."""
    prior, likelihood, folder = options["prior"], run.likelihood, run.folder
    if (prior is None and not chains) or not run.record.result.expected_count > 0:
        return
    log("drawing from the posterior of the target")
    found = at_target(measurement, run.estimate, likelihood, **options)
    if chains:
        drawn = posterior_chains(measurement, found, chains, **options)
        met = float(drawn.r_hat.mean()), float(drawn.effective_size.mean())
        trust.chains = ChainsRecord(chains, len(drawn.images), *met)
    else:
        if run.parameters.likelihood == "window" and likelihood.micrographs is None:
            average, level = unbiased_average(measurement, found, options["backend"])
        else:
            average, level = found.aligned_average, average_level(found)
        known = in_units(prior, run.record.result.prior_scales)
        drawn = posterior_samples(average, level, known, _DRAWS, steps=_STEPS)
        trust.chains = None
    folder.write_image(folder.posterior_mean, drawn.mean)
    folder.write_image(folder.posterior_std, drawn.std)
