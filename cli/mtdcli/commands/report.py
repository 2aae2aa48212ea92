"""``mtd report``: the page of a run, written again."""

from __future__ import annotations

from pathlib import Path

import click

from ..run.lock import locked
from ..terminal.console import emit, json_option
from ..terminal.options import PATH, option, run_argument


@click.command()
@run_argument
@option("--truth", "True image to show beside the estimate.", PATH)
@json_option
def command(run_dir: Path, truth: Path | None, as_json: bool) -> None:
    """Write RUN_DIR/report.html again, from the files of the run and its measurement."""
    from ..report.recovery import write_report
    from ..run.finished import FinishedRun

    run = FinishedRun.at(run_dir)  # before the lock, which would make a missing folder
    with locked(run_dir):
        write_report(run, truth)
    emit({"report": str(run.folder.page)}, as_json)
