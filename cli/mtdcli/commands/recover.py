"""``mtd recover``: the main job, from a measurement to a run folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ..run.lock import locked
from ..run.output import refuse_as_run_folder
from ..run.parameters import RunParameters
from ..terminal.console import command_line, emit, force_option, json_option, log
from ..terminal.declared import options_of
from ..terminal.options import GroupedCommand, measurement_argument, option, run_output, watch_page_option
from ..terminal.stopping import Interrupted, continued, handling_signals
from ..terminal.volumes import WithVolume


class _Recover(WithVolume, GroupedCommand):
    """With ``--volume``, and options in groups."""


@click.command("recover", cls=_Recover)
@measurement_argument
@run_output
@options_of(RunParameters)
@option(
    "--trust",
    "Judge the result as `mtd trust` does, with up to so many null runs of each kind. Default: not judged.",
    click.IntRange(min=2),
    metavar="N",
)
@option(
    "--resume",
    "Continue an interrupted run; the result has the same bits as without the interruption.",
    is_flag=True,
)
@watch_page_option
@option(
    "--strict",
    "Exit with code 1 when fewer than one copy is found, or --trust does not support the result; the results are written.",
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
    trust: int | None,
    resume: bool,
    watch_page: bool,
    strict: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Recover the target image from MEASUREMENT without picking its copies.

    MEASUREMENT is .zarr, .npy, or micrographs: .star, .mrc(s), .tif. Micrographs are prepared as they are read, with the
    defaults of `mtd import`; importing them first saves time. A .npy file of one axis is a signal (docs/signals.md).

    RUN_DIR receives estimate.npy, aligned_average.npy (no prior applied), run.json, history.csv, detections.csv and .star
    (`mtd detect`) and report.html. An interrupted run (Ctrl-C, SIGTERM, SIGUSR1) saves a checkpoint; --resume goes on.
    """
    again, parameters = command_line(ctx), RunParameters(**options)
    parameters.refuse_contradictions()
    refuse_as_run_folder(output, measurement)
    with handling_signals(), locked(output):
        with ExitStack() as page, continued(ctx, again, force):
            from ..report.recovery import write_report
            from ..run.folder import RunFolder
            from ..run.job import recover

            folder = RunFolder(output)
            if watch_page:
                from ..live.server import shown

                parameters = page.enter_context(shown(folder, parameters))
            run, summary, found = recover(measurement, folder, parameters, again, resume=resume, force=force)
            write_report(run)
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
