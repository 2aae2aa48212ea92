"""``mtd serve``: the page of a run in progress."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from ..terminal.console import log
from ..terminal.options import option, run_argument


@click.command()
@run_argument
@option("--port", "Port on this machine. Default: a free one.", click.IntRange(0, 65535), 0, metavar="N")
def command(run_dir: Path, port: int) -> None:
    """Show RUN_DIR in a browser while its run goes on: estimate, curves, time left; then its report.

    The page keeps itself up to date. It shows the latest checkpoint: let the run write one every few seconds (`mtd recover --checkpoint-every 2`).
    Only this machine can open it; from elsewhere, forward the port: ssh -L PORT:localhost:PORT HOST. Ctrl-C ends it.
    """
    from mtdcore.errors import InputError

    from ..live.server import serving
    from ..run.folder import RunFolder

    if run_dir.is_file() or (run_dir / "zarr.json").exists():
        raise InputError(
            f"{run_dir} should be the folder of a run; it is {'a file' if run_dir.is_file() else 'a measurement'}: give what `mtd recover -o` was given."
        )
    if not run_dir.is_dir():
        log(f"{run_dir} is not there yet; the page waits for it")
    with serving(RunFolder(run_dir), port) as address:
        log(f"{run_dir} is shown at {address}; Ctrl-C ends it")
        threading.Event().wait()
