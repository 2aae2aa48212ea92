"""``mtd recover --volume``: from micrographs to the volume whose projections they hold."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtdcore.errors import InputError

from ..run.lock import locked
from ..run.output import refuse_as_run_folder
from ..terminal.console import command_line, emit, force_option, json_option, log
from ..terminal.declared import options_of
from ..terminal.options import GroupedCommand, measurement_argument, option, run_output, watch_page_option
from ..terminal.stopping import Interrupted, continued, handling_signals
from ..volumes.parameters import VolumeParameters

if TYPE_CHECKING:
    from ..run.folder import RunFolder


@click.command(cls=GroupedCommand)
@measurement_argument
@run_output
@options_of(VolumeParameters)
@option("--resume", "Continue an interrupted run, with the same bits.", is_flag=True)
@watch_page_option
@option(
    "--strict",
    "Exit with code 1 when nothing is found, or --trust does not support the result; the results are written.",
    is_flag=True,
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    measurement: Path,
    output: Path,
    resume: bool,
    watch_page: bool,
    strict: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Recover the volume whose projections MEASUREMENT holds, without picking them.

    RUN_DIR receives volume.mrc, half1.mrc and half2.mrc, particles.star (places and Euler angles for RELION), run.json, history.csv and
    report.html; where the noise is not white, also volume_whitened.mrc: the volume as the run saw it, sharper where micrographs had been
    smoothed or denoised; with --draws, volume_mean.mrc and volume_std.mrc: the mean of draws from the posterior, and how sure each voxel is.
    Projections do not fix the hand: the mirror image explains the micrographs as well. An interrupted run saves a checkpoint; --resume goes on from it.
    """
    again, parameters = command_line(ctx), VolumeParameters(**options)
    refuse_as_run_folder(output, measurement)
    with handling_signals(), locked(output), ExitStack() as page, continued(ctx, again, force):
        if watch_page:
            from ..live.server import shown
            from ..run.folder import RunFolder

            parameters = page.enter_context(shown(RunFolder(output), parameters))
        result = recover(measurement, output, resume, force, parameters, again)
    emit(result, as_json)
    if strict and ("nothing_found" in result or not result.get("supported", True)):
        ctx.exit(1)


def judge_again(ctx: click.Context, folder: RunFolder, **asked: Any) -> dict[str, Any]:
    """Judge a finished run, or continue its judgement; the results are written again, together with the verdict.

    Args:
        ctx: of the command.
        folder: of the run.
        asked: options that replace those of the run.

    Raises:
        InputError: the record is damaged, or the checkpoint is missing.
    """
    record = folder.read_record()
    try:
        again, path = str(record["command"]), Path(record["measurement"]["path"])
        parameters = replace(VolumeParameters.from_record(record["parameters"]), **asked)
    except (ValueError, TypeError, LookupError) as problem:
        raise InputError(
            f"{folder.record} should be as `mtd recover` wrote it: {problem}; restore it, or run again with --force."
        ) from problem
    with handling_signals(), locked(folder.path):
        try:
            return recover(path, folder.path, True, False, parameters, again)
        except Interrupted as interruption:
            log("interrupted; what is done is kept, the same command goes on from there")
            ctx.exit(128 + interruption.signum)


def recover(
    path: Path, output: Path, resume: bool, force: bool, parameters: VolumeParameters, again: str
) -> dict[str, Any]:
    """Run, save and report; returns what the command prints.

    Args:
        path: of the measurement.
        output: run folder, locked.
        resume: continue from the checkpoint in the folder.
        force: replace the run in the folder.
        parameters: options of the run.
        again: the command line that repeats the run.
    """
    import mtdcore as mtd
    from mtdcore.em.volumes.state import load_volume_checkpoint
    from mtdcore.results.volumes import LEAST_ORIENTATION, orientation_information

    from ..report.volume import write_volume_report
    from ..run.arguments import transfers
    from ..run.folder import RunFolder
    from ..run.job import Made, identity, measurement_record, opened
    from ..run.loop import spent, state_to_resume
    from ..terminal.installation import machine, versions
    from ..volumes import run as job
    from ..volumes.judging import Judged, examine

    if isinstance(parameters.omit, int) and not parameters.halves:
        raise click.UsageError(
            "--omit asks one half of the data for the parts of the other's volume: leave out --no-halves."
        )
    folder = RunFolder(output)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    measurement, table, parameters = opened(path, folder, parameters, resume, force)
    pixel_size = None if table is None else table.pixel_size
    backend = mtd.get_backend(parameters.device)
    micrographs = None if parameters.micrographs == "alike" else transfers(table)
    count, height, width = measurement.shape
    log(f"{path}: {count} micrograph(s) of {height} x {width} pixels, backend {backend.name}")
    if micrographs is not None:
        log("the transfer of each micrograph (CTF, whitening) is part of the model; the volume is without it")
    owner = identity(measurement, backend, parameters, micrographs)
    state = state_to_resume(folder, resume, lambda: load_volume_checkpoint(folder.checkpoint, owner))
    found = job.run(measurement, folder, parameters, backend, micrographs, owner, state)
    log(found.noise)
    read = measurement_record(path, measurement, owner, found.statistics.pixels)
    copies = job.copies(measurement, found, parameters, backend)
    job.write_results(folder, found, copies, table)
    nothing = {"nothing_found": "no copies; volume.mrc is no estimate of anything"}
    none = {} if found.found_copies else nothing
    each = 1.0 if found.micrographs is None else float(found.micrographs.weights.mean())
    told = each * orientation_information(found.seen, found.noise_std)
    if found.found_copies and told < LEAST_ORIENTATION:
        log(
            f"warning: a copy tells {told:.2g} nats of how it lies, and below {LEAST_ORIENTATION:g} only the spherical mean of a volume can be "
            "trusted, not its shape: less noise (frame averages, --bin), a larger particle, or --prior proteins-3d"
        )
    result: dict[str, Any] = {
        "evidence": found.evidence,
        "copies": found.expected_count,
        "detections": len(copies),
        "noise_std": found.noise_std,
        "amplitude_std": found.amplitude_std,
        "noise": found.noise,
        "offset": found.likelihood.offset,
        "orientation_information": told,
    }

    def tell(judged: Judged) -> None:
        record = {
            "format": 1,
            "kind": "volume",
            **asdict(Made(again, started, spent(state) + time.perf_counter() - clock, backend.name)),
            "measurement": read,
            "parameters": parameters,
            "pixel_size": pixel_size,
            "result": {**none, **result, **judged.numbers},
            "versions": versions(),
            "machine": machine(),
        }
        folder.write_record(record)
        write_volume_report(folder.page, found, record, judged)

    if (
        parameters.judged and not folder.record.exists()
    ):  # the volume is reported first, since its judgement may take longer than the recovery
        tell(Judged())
    judged = examine(folder, measurement, found, parameters, backend, micrographs, owner, pixel_size)
    tell(judged)
    return {**none, "run": str(folder.path), "report": str(folder.page), **result, **judged.numbers}
