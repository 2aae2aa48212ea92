"""``mtd trust``: whether the measurement supports a result."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ..run.lock import locked
from ..run.stopping import Interrupted
from ..terminal.console import emit, json_option, log

#: Null runs when no number is given: with 2 the threshold is useless, 8 find weaker signals (docs/trust.md).
_NULL_RUNS = 4


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--null-runs",
    type=click.IntRange(min=2),
    default=_NULL_RUNS,
    show_default=True,
    metavar="N",
    help="Recoveries from noise alone; more of them find weaker signals.",
)
@click.option(
    "--null",
    type=click.Choice(["white", "phases"]),
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
