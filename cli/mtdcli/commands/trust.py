"""``mtd trust``: does the measurement support what was recovered from it? Null runs, half sets, posterior draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import click

from ..run.lock import locked
from ..run.stopping import Interrupted, patiently
from ..terminal.console import emit, json_option, log
from ..terminal.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from mtdcore import EMState, Recovery
    from mtdcore.data import Measurement

    from ..run.folder import RunFolder

#: What holds no copies: white noise, or the measurement with its phases randomised.
Null: TypeAlias = Literal["white", "phases"]

#: Null runs when no number is given: with 2 the threshold is useless, 8 find weaker signals (docs/trust.md).
NULL_RUNS = 4

#: Draws from the posterior of the target, and noise levels of each.
_DRAWS, _STEPS = 32, 64


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--null-runs",
    type=click.IntRange(min=2),
    default=NULL_RUNS,
    show_default=True,
    metavar="N",
    help="Recoveries from noise alone; more of them find weaker signals.",
)
@click.option(
    "--null",
    type=click.Choice(get_args(Null)),
    default="white",
    show_default=True,
    help="What holds no copies: white noise, or the measurement with its phases randomised (for coloured noise; in memory).",
)
@click.option("--halves/--no-halves", default=True, show_default=True, help="Recover two halves separately.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:i|:all].")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: all cores.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run_dir: Path,
    null_runs: int,
    null: Null,
    halves: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say whether the measurement supports what RUN_DIR recovered from it, and write that into its report.

    The same recovery is repeated on measurements without copies, and on two halves of the data. That takes about
    N + 3 times as long as the recovery did. What is done is kept: after an interruption the same command goes on.
    """
    from ..run.folder import RunFolder
    from .report import write_report

    folder = RunFolder(run_dir)
    record = folder.read_record()
    record["parameters"] = _complete(record["parameters"]) | {"device": device, "threads": threads}
    with locked(folder.path):
        try:
            examine(folder, record, null_runs, null, halves)
        except Interrupted as interruption:
            log("interrupted; what is done is kept, the same command goes on from there")
            ctx.exit(128 + interruption.signum)
        write_report(folder)
    emit({**findings(folder, record), "report": str(folder.page)}, as_json)


def examine(
    folder: RunFolder,
    record: dict[str, Any],
    null_runs: int = NULL_RUNS,
    null: Null = "white",
    halves: bool = True,
) -> None:
    """Add what is missing to ``trust.json`` of a finished run, one recovery after the other.

    Args:
        folder: of the run, locked by the caller.
        record: its ``run.json``; ``device`` and ``threads`` among the parameters may be others.
        null_runs: number of null runs wanted.
        null: their kind.
        halves: whether to compare two halves of the data, and of the first null measurement.

    Raises:
        Interrupted: a signal came; the recoveries that were complete are in the file.
        InputError: the measurement is gone, or another one.
    """
    import mtdcore as mtd
    from mtdcore.results.halves import half_recoveries, half_set_correlation

    trust = folder.read_trust()
    of_null = trust.setdefault(null, {"evidence": []})
    runs = range(len(of_null["evidence"]), null_runs)
    split = [place for place in (trust, of_null) if halves and "halves" not in place]
    with _repeating(folder, record, len(runs) + 2 * len(split)) as (measurement, options):
        without = _without_copies(measurement, record, null)
        for run in runs:
            found = mtd.recover(without(run), **options, seed=run)
            of_null["evidence"].append(found.evidence)
            if run == 0:
                folder.write_image(folder.null_target(null), found.target)
            folder.write_trust(trust)
        for place in split:
            source, target = (
                (measurement, folder.estimate) if place is trust else (without(0), folder.null_target(null))
            )
            pair = half_recoveries(
                source, folder.read_image(target, record["parameters"]["box_size"]), **options, seed=0
            )
            curve = half_set_correlation(*pair, _commonest(record))
            place["halves"] = {"frequency": curve.frequency, "correlation": curve.correlation}
            folder.write_trust(trust)
        if not folder.posterior_std.exists() and record["parameters"]["classes"] == 1:
            _draw(folder, record, measurement, options)


def data_share(recovery: Recovery, parameters: Mapping[str, Any]) -> float | None:
    """Share of the answer that comes from the data, 1 without a prior; None: several classes, or no copies.

    Args:
        recovery: the result.
        parameters: the options of ``mtd recover``.
    """
    from mtdcore.results import uncertainty

    from ..run.job import prior

    if parameters["classes"] > 1 or not recovery.expected_count > 0:
        return None
    known = prior(parameters["prior"])
    if known is None:
        return 1.0
    level = uncertainty.average_level(recovery)
    return uncertainty.data_share(recovery.aligned_average, level, recovery.in_units(known))


def findings(folder: RunFolder, record: dict[str, Any]) -> dict[str, Any]:
    """The verdict and the numbers behind it, as far as they have been computed; no verdict without null runs."""
    import numpy as np

    from mtdcore.results.metrics import RingCorrelation
    from mtdcore.results.nulls import Verdict, evidence_threshold

    trust, evidence = folder.read_trust(), record["result"]["evidence_nats"]
    null = {kind: trust.get(kind, {}).get("evidence", []) for kind in get_args(Null)}
    limits = {kind: evidence_threshold(values) for kind, values in null.items() if len(values) > 1}
    result: dict[str, Any] = {"evidence_nats": evidence}
    if limits:
        verdict = Verdict(evidence, max(limits.values()))
        result |= {"verdict": verdict.sentence, "supported": verdict.supported, "threshold": limits}
        result["null_evidence"] = {kind: null[kind] for kind in limits}
    if "halves" in trust:
        curve = RingCorrelation(**{name: np.asarray(values) for name, values in trust["halves"].items()})
        result["half_set_resolution_pixels"] = curve.resolution()
    if record["result"].get("data_share") is not None:
        result["data_share"] = record["result"]["data_share"]
    return result


def _complete(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run, with the defaults of those that `mtd recover` did not have when it was made."""
    from .recover import command as recover

    defaults = recover.make_context("recover", ["-", "-o", "-", "--box-size", "1"]).params
    return defaults | dict(parameters)


@contextmanager
def _repeating(
    folder: RunFolder, record: dict[str, Any], recoveries: int
) -> Iterator[tuple[Measurement, dict[str, Any]]]:
    """The measurement of a run and the arguments of its recovery, without the seed; with progress and signals."""
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.em.checkpoint import fingerprint
    from mtdcore.errors import InputError

    from ..inputs.usable import open_for
    from ..run import job
    from ..run.cluster import computing
    from ..run.memory import threads_within

    parameters, path = record["parameters"], Path(record["measurement"]["path"])
    measurement = open_for(path, parameters)
    if fingerprint(measurement) != record["measurement"]["fingerprint"]:
        raise InputError(f"{path} should be the measurement of this run; it has changed since.")
    begun = 0
    with (
        computing(parameters, threads_within(parameters, measurement.shape)) as (backend, executor),
        patiently() as stop,
        Progress("trust", recoveries * parameters["iterations"], "iterations") as bar,
    ):

        def after(state: EMState) -> None:
            nonlocal begun
            begun += state.iteration == 1
            stop.iteration = state.iteration
            bar.update((begun - 1) * parameters["iterations"] + state.iteration)
            stop.check()

        facts = job.facts(MicrographTable.load(folder.path), parameters["micrographs"])
        arguments = job.arguments(parameters, facts)
        del arguments["seed"]
        yield (
            measurement,
            {
                **arguments,
                "backend": backend,
                "executor": executor,
                "callback": after,
            },
        )


def _without_copies(
    measurement: Measurement, record: dict[str, Any], null: Null
) -> Callable[[int], Measurement | np.ndarray]:
    """Makes measurements like this one that hold no copies, by seed."""
    import numpy as np

    from mtdcore.model.likelihood.records import likelihood_from_record
    from mtdcore.results.nulls import null_measurement, phase_randomised

    if null == "phases":
        pixels = _pixels(measurement)
        valid, filled = np.isfinite(pixels), np.nan_to_num(pixels)
        return lambda seed: np.where(valid, phase_randomised(filled, seed), np.nan).astype(measurement.dtype)
    model = likelihood_from_record(record["result"]["likelihood"])
    ratios = np.ones(measurement.shape[0]) if model.micrographs is None else model.micrographs.noise_ratio
    return lambda seed: null_measurement(measurement, (model.noise_std * ratios).tolist(), seed)


def _pixels(measurement: Measurement) -> np.ndarray:
    """(micrographs, H, W), pixels that may not be used NaN."""
    import numpy as np

    from mtdcore.data.tiles import TileGeometry

    whole = np.empty(measurement.shape, measurement.dtype)
    for tile in measurement.tiles(TileGeometry(side=512, unit=1, halo=0, reach=0)):
        seen = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
        whole[tile.micrograph][tile.region.read] = seen
    return whole


def _commonest(record: dict[str, Any]) -> int:
    """Index of the class with the most copies."""
    weights = record["result"]["likelihood"].get("class_weights") or [1.0]
    return max(range(len(weights)), key=lambda c: weights[c])


def _draw(
    folder: RunFolder, record: dict[str, Any], measurement: Measurement, options: dict[str, Any]
) -> None:
    """Posterior mean and standard deviation of the target, as images; without a prior they say nothing new."""
    import mtdcore as mtd
    from mtdcore.em.scale import in_units
    from mtdcore.model.likelihood.records import likelihood_from_record
    from mtdcore.results.uncertainty import average_level, posterior_samples, unbiased_average

    prior, model = options["prior"], likelihood_from_record(record["result"]["likelihood"])
    if prior is None or not record["result"]["expected_count"] > 0:
        return
    log("drawing from the posterior of the target")
    final = {
        "likelihood": model,
        "initial": folder.read_image(folder.estimate, model.box_size),
        "starts": None,
    }
    found = mtd.recover(measurement, **{**options, **final, "iterations": 0}, seed=0)
    if model.localises and model.micrographs is None:
        average, level = unbiased_average(measurement, found, options["backend"])
    else:
        average, level = found.aligned_average, average_level(found)
    known = in_units(prior, record["result"].get("prior_scales"))
    drawn = posterior_samples(average, level, known, _DRAWS, steps=_STEPS)
    folder.write_image(folder.posterior_mean, drawn.mean)
    folder.write_image(folder.posterior_std, drawn.std)
