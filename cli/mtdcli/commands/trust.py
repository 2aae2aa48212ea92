"""``mtd trust``: whether the measurement supports a result."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ..run.lock import locked
from ..terminal.console import emit, json_option, log
from ..terminal.options import option
from ..terminal.stopping import Interrupted

#: Null runs when no number is given: with 2 the threshold is useless, 8 find weaker signals (docs/trust.md).
_NULL_RUNS = 4


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@option(
    "--null-runs",
    "Recoveries from noise alone; more of them find weaker signals.",
    click.IntRange(min=2),
    _NULL_RUNS,
    metavar="N",
)
@option(
    "--null",
    "What holds no copies: white noise, or the measurement with its phases randomised (for coloured noise; in memory).",
    click.Choice(["white", "phases"]),
    "white",
)
@option("--halves/--no-halves", "Recover two halves separately.", default=True)
@option("--device", "auto, cpu or cuda[:i|:all].", default="auto")
@option("--threads", "CPU threads. Default: all cores.", click.IntRange(min=1), metavar="N")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run_dir: Path,
    null_runs: int,
    null: Literal["white", "phases"],
    halves: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say whether the measurement supports the image in RUN_DIR, and write the verdict into its report.

    The recovery is repeated on N measurements without copies, and on two halves of the data. That takes about N + 3
    times as long as the recovery. Finished repetitions are kept: after an interruption the same command goes on.
    """
    from dataclasses import replace

    from ..report.recovery import write_report
    from ..run.finished import FinishedRun
    from ..run.judging import examine, findings

    run = FinishedRun.at(run_dir)
    parameters = replace(run.parameters, device=device, threads=threads)
    with locked(run_dir):
        try:
            examine(replace(run, record=replace(run.record, parameters=parameters)), null_runs, null, halves)
        except Interrupted as interruption:
            log("interrupted; what is done is kept, the same command goes on from there")
            ctx.exit(128 + interruption.signum)
        write_report(run)
    emit({**findings(run), "report": str(run.folder.page)}, as_json)
