"""``mtd watch``: micrographs as they arrive."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..inputs.preparing import more_preparation_options
from ..run.lock import locked
from ..run.output import refuse_as_run_folder
from ..run.parameters import RunParameters
from ..terminal.console import command_line, force_option, log, to_json
from ..terminal.declared import options_of
from ..terminal.options import COUNT, PATH, GroupedCommand, option, run_output
from ..terminal.stopping import Interrupted, handling_signals


@click.command("watch", cls=GroupedCommand)
@click.argument("source", type=PATH)
@run_output
@options_of(RunParameters)
@option(
    "--pixel-size",
    "Angstrom per pixel, where a list does not say.",
    click.FloatRange(min=0, min_open=True),
    metavar="A",
)
@more_preparation_options
@option(
    "--first",
    "Micrographs that are recovered together before each further one is mixed in.",
    COUNT,
    10,
    metavar="N",
)
@option("--every", "Micrographs between two reports.", COUNT, 10, metavar="N")
@option(
    "--settle",
    "Seconds without a change after which a file is complete.",
    click.FloatRange(min=0),
    5.0,
    metavar="S",
)
@option("--once", "Count what is there, report, and end; files that still grow are waited for.", is_flag=True)
@option(
    "--order",
    "Count what this list names, one micrograph a line, in its order, and nothing else: order.txt of a watched run repeats it.",
    PATH,
    metavar="FILE",
)
@force_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: Path,
    output: Path,
    pixel_size: float | None,
    first: int,
    every: int,
    settle: float,
    once: bool,
    order: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Recover the target image from micrographs as they arrive in SOURCE, a folder of MRC and TIFF files or a STAR list that grows.

    A file that has not changed for --settle seconds is prepared as `mtd import` does and kept in RUN_DIR/micrographs.zarr. The first few are
    recovered together; each later one is scored once and mixed in. A line of JSON on stdout tells of each micrograph and each report; RUN_DIR then
    holds what `mtd recover` writes, for `mtd trust`, `mtd detect` and `mtd report`.

    Ctrl-C, SIGTERM and SIGUSR1 end it after the current micrograph; the same command goes on, also after a crash: nothing is lost or counted twice.

    Of a folder, its own files count, and links to files; subfolders and hidden files do not. A file that was counted and has changed is not counted
    again, nor is an image with the pixels of another; unreadable files are tried again when they change. Each is said once.

    Example: mtd watch Micrographs -o run --box-size 64 --rotations 36 --diameter 40
    """
    of_run = {one.name for one in fields(RunParameters)}
    steps = {
        name: options.pop(name) for name in [*options] if name not in of_run
    }  # options of the preparation
    steps["defects"], options["defects"] = (
        options["defects"],
        "keep",
    )  # masked once, in the preparation before storing
    again, parameters = command_line(ctx), RunParameters(**options)
    parameters.refuse_contradictions()
    if parameters.likelihood != "window" or parameters.update == "gradient" or parameters.batches > 1:
        raise click.UsageError(
            "--likelihood patch, --update gradient and --batches are of `mtd recover`: leave them out"
        )
    refuse_as_run_folder(output, source)
    with handling_signals(), locked(output):
        try:
            _watch(
                source, output, parameters, steps, pixel_size, first, every, settle, once, order, force, again
            )
        except Interrupted as interruption:
            log(f"interrupted; continue with the same command: {again}")
            ctx.exit(128 + interruption.signum)


def _watch(
    source: Path,
    output: Path,
    parameters: RunParameters,
    steps: dict[str, Any],
    pixel_size: float | None,
    first: int,
    every: int,
    settle: float,
    once: bool,
    order: Path | None,
    force: bool,
    again: str,
) -> None:
    from mtdcore.errors import InputError, StorageError

    from ..inputs.preparing import preparation
    from ..run.folder import RunFolder
    from ..run.output import refuse_foreign_results
    from ..watching.arrivals import Arrivals, read_order
    from ..watching.watcher import Watch

    folder = RunFolder(output)
    if folder.occupied and not folder.watch.exists() and not force:
        raise StorageError(
            f"{output} holds a run of another command; --force replaces it, -o chooses another place."
        )
    refuse_foreign_results(folder, (source, parameters.initial, parameters.prior))
    if force:
        folder.clear()
        folder.clear_watch()
    keys = None if order is None else read_order(order, source)
    arrivals = Arrivals(source, settle, pixel_size, keys)
    watch = Watch(
        folder,
        arrivals,
        lambda path: preparation([source if arrivals.from_list else path], steps),
        parameters,
        {**steps, "pixel_size": pixel_size},
        again,
        first,
        every,
        lambda event: click.echo(to_json(event, None)),
    )
    watch.run(once)
    if watch.count < first:
        log(f"{watch.count} of the first {first} micrographs have come (--first); there is no estimate yet")
    missing = arrivals.missing(watch.counted)
    if missing:
        raise InputError(f"{order} should name micrographs that are there; {missing} of them did not come.")
