"""``mtd recover``: the main job, from a measurement to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..run.lock import locked
from ..run.output import refuse_as_run_folder
from ..run.parameters import RunParameters, run_options
from ..terminal.console import command_line, emit, force_option, json_option, log
from ..terminal.options import GroupedCommand, option
from ..terminal.stopping import Interrupted, listening
from ..terminal.volumes import WithVolume, volume_option


class _Recover(WithVolume, GroupedCommand):
    volume_module = "recover_volume"


@click.command(cls=_Recover)
@volume_option("recover")
@click.argument("measurement", type=click.Path(path_type=Path))
@option(
    "-o --output", "Folder for the results.", click.Path(path_type=Path), required=True, metavar="RUN_DIR"
)
@run_options
@option(
    "--trust",
    "Judge the result as `mtd trust` does, with up to so many null runs of each kind. Default: not judged.",
    click.IntRange(min=2),
    metavar="N",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run; the result has the same bits as without the interruption.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with code 1 when fewer than one copy is found, or --trust does not support the result; the results are written.",
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    measurement: Path,
    output: Path,
    trust: int | None,
    resume: bool,
    strict: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Recover the target image from MEASUREMENT without picking its copies.

    MEASUREMENT is .zarr, .npy, or micrographs: .star, .mrc(s), .tif. Micrographs are prepared as they are read, with the
    defaults of `mtd import`; importing them first saves time.

    RUN_DIR receives estimate.npy, aligned_average.npy (no prior applied), run.json, history.csv, detections.csv and .star
    (`mtd detect`) and report.html. An interrupted run (Ctrl-C, SIGTERM, SIGUSR1) saves a checkpoint; --resume goes on.
    """
    again, parameters = command_line(ctx), RunParameters(**options)
    parameters.refuse_contradictions()
    if resume and force:
        raise click.UsageError("--resume continues what --force replaces: leave one of them out")
    refuse_as_run_folder(output, measurement)
    with listening(), locked(output):
        try:
            from ..report.recovery import write_report
            from ..run.folder import RunFolder
            from ..run.job import recover

            folder = RunFolder(output)
            run, summary, found = recover(measurement, folder, parameters, again, resume=resume, force=force)
            write_report(run)
        except Interrupted as interruption:
            begun = interruption.iteration or not force
            log(f"{interruption}; continue with: {again} {'--resume' if begun else '--force'}")
            ctx.exit(128 + interruption.signum)
        none = {} if found else {"nothing_found": "no copies; estimate.npy is no estimate of anything"}
        result = {**none, "run": str(folder.path), "report": str(folder.page), **summary}
        if trust is not None:
            from ..run.judging import examine, findings

            try:
                examine(run, trust)
            except Interrupted as interruption:
                log(f"the recovery is finished, its judgement is not; continue with: mtd trust {output}")
                ctx.exit(128 + interruption.signum)
            write_report(run)
            result |= findings(run)
    emit(result, as_json)
    if strict and (none or not result.get("supported", True)):
        ctx.exit(1)
