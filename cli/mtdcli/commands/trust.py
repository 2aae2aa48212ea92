"""``mtd trust``: whether the measurement supports a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..run.lock import locked
from ..terminal.console import emit, json_option, log
from ..terminal.options import CountOr, Device, option
from ..terminal.stopping import Interrupted

if TYPE_CHECKING:
    from ..run.folder import RunFolder

#: Default number of null runs of each kind: 4 may suffice, 8 detect weaker signals (docs/trust.md).
_NULL_RUNS = 8


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@option(
    "--null-runs",
    "Largest number of recoveries from white noise, and from the data with random phases; four that are clear are enough.",
    click.IntRange(min=2),
    _NULL_RUNS,
    metavar="N",
)
@option("--halves/--no-halves", "Compare two halves of a supported result.", default=True)
@option(
    "--omit",
    "Of a volume: leave each of N equal parts out of that of one half of the data, and ask the other half for it; none: not. Default: 10.",
    CountOr("none", minimum=2),
    metavar="N|none",
)
@option(
    "--draws",
    "Of a volume: draw N volumes from its posterior, poses left open, for the standard deviation of every voxel. Default: none.",
    click.IntRange(min=2),
    metavar="N",
)
@option(
    "--chains",
    "Of an image: posterior mean and deviation by N chains of 134 iterations instead of from the average, so that doubtful poses widen them.",
    click.IntRange(min=1),
    metavar="N",
)
@click.option("--complete", is_flag=True, help="Do everything, also what can no longer change the verdict.")
@option("--device", "Where to compute.", Device("cuda:all"), "auto", metavar="auto|cpu|cuda[:i|:all]")
@option("--threads", "CPU threads. Default: all cores.", click.IntRange(min=1), metavar="N")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run_dir: Path,
    null_runs: int,
    halves: bool,
    omit: int | str | None,
    draws: int | None,
    chains: int | None,
    complete: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say whether the measurement supports the image or the volume in RUN_DIR, and write the verdict into its report.

    The recovery is repeated on white noise, on the data with random phases, on two halves that then judge each other (with a prior, also
    without it), and from another start. It stops as soon as nothing can change the verdict: at most 2 N + 11 recoveries, 17 to 19 for clear
    signals, 0 to 4 for most noise. Finished repetitions are kept: after an interruption the same command goes on.
    """
    from dataclasses import replace

    from ..report.recovery import write_report
    from ..run.finished import FinishedRun
    from ..run.folder import RunFolder
    from ..run.judging import examine, findings
    from ..volumes.parameters import PARTS

    folder = RunFolder(run_dir)
    if folder.holds_volume:
        if chains is not None:
            raise click.UsageError("--chains is of images; draws of a volume are --draws N.")
        parts = omit or (PARTS if halves else "none")
        _judge_volume(ctx, folder, null_runs, halves, parts, draws, complete, device, threads, as_json)
        return
    if omit is not None:
        raise click.UsageError("--omit is of volumes: the run of an image has no omit test.")
    if draws is not None:
        raise click.UsageError("--draws is of volumes; draws of an image are there already, or --chains N.")
    run = FinishedRun.at(folder)
    if chains is not None and run.parameters.classes > 1:
        raise click.UsageError("--chains is of one target: this run has several classes.")
    parameters = replace(run.parameters, device=device, threads=threads)
    with locked(run_dir):
        try:
            again = replace(run, record=replace(run.record, parameters=parameters))
            examine(again, null_runs, halves, complete, chains or 0)
        except Interrupted as interruption:
            log("interrupted; what is done is kept, the same command goes on from there")
            ctx.exit(128 + interruption.signum)
        write_report(run)
    emit({**findings(run), "report": str(run.folder.page)}, as_json)


def _judge_volume(
    ctx: click.Context,
    folder: RunFolder,
    null_runs: int,
    halves: bool,
    omit: int | str,
    draws: int | None,
    complete: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    from .recover_volume import judge_again

    for name, given in (("--complete", complete), ("--threads", threads is not None)):
        if given:
            raise click.UsageError(f"{name} is of images: the verdict of a volume has no such choice.")
    asked = {"trust": null_runs, "halves": halves, "omit": omit, "draws": draws}
    if ctx.get_parameter_source("device") is ParameterSource.COMMANDLINE:
        asked["device"] = device
    emit(judge_again(ctx, folder, **asked), as_json)
