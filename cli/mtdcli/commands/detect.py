"""``mtd detect``: tables of the copies in the measurement."""

from __future__ import annotations

from pathlib import Path

import click

from ..run.lock import locked
from ..run.output import refuse_output
from ..terminal.console import emit, force_option, json_option
from ..terminal.options import PATH, Device, option, run_argument


@click.command()
@run_argument
@option(
    "--threshold",
    "Smallest probability of a copy.",
    click.FloatRange(0, 1, min_open=True, max_open=True),
    0.5,
)
@option("--device", "Where to compute.", Device(), "auto", metavar="auto|cpu|cuda[:i]")
@option(
    "--relion",
    "Write autopick.star, a table for each micrograph and class_averages.mrcs there (extra: em).",
    PATH,
    metavar="DIR",
)
@option(
    "--posterior-map",
    "Write the expected number of copies centred on each pixel as an OME-Zarr image.",
    PATH,
    metavar="ZARR",
)
@force_option
@json_option
def command(
    run_dir: Path,
    threshold: float,
    device: str,
    relion: Path | None,
    posterior_map: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Find the copies of the image that RUN_DIR recovered.

    Writes RUN_DIR/detections.csv and .json (top-left corners of the boxes) and RUN_DIR/detections.star (RELION: centres, in pixels
    of the micrographs), the most probable first.
    """
    from ..run.copies import write_copies, write_for_relion, write_map
    from ..run.finished import FinishedRun

    run = FinishedRun.at(run_dir)
    if posterior_map is not None:
        refuse_output(posterior_map, force, [run_dir, run.measurement])
    with locked(run_dir):
        found = write_copies(run, threshold, device)
        if relion is not None:
            write_for_relion(run, found, relion)
        if posterior_map is not None:
            write_map(run, posterior_map, device, force)
    emit(
        {
            "copies": len(found),
            "expected_count": run.record.result.expected_count,
            "csv": str(run.folder.picks),
            "star": str(run.folder.picks_star),
            **({} if relion is None else {"relion": str(relion)}),
            **({} if posterior_map is None else {"posterior_map": str(posterior_map)}),
        },
        as_json,
    )
