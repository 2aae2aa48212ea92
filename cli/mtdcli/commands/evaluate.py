"""``mtd evaluate``: the errors of a run against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..terminal.console import emit, json_option
from ..terminal.options import PATH, option, run_argument
from ..terminal.volumes import WithVolume


@click.command("evaluate", cls=WithVolume)
@run_argument
@option(
    "--truth",
    "True image, or picks (a RELION .star of coordinates). Default: what the measurement was simulated with.",
    PATH,
)
@option(
    "--max-distance",
    "Largest distance between a copy and its pick, pixels of the measurement. Default: a sixth of the box.",
    click.FloatRange(min=0),
    metavar="PX",
)
@option(
    "--skip-bad",
    "Leave out picks that are no numbers, outside, or in micrographs that are not there, say which, and go on.",
    is_flag=True,
)
@json_option
def command(
    run_dir: Path, truth: Path | None, max_distance: float | None, skip_bad: bool, as_json: bool
) -> None:
    """Compare the estimate in RUN_DIR with the truth.

    An image as truth gives two errors: the relative error E at the best rotation, and E_s at the best rotation and small
    shift, because the data hardly fix the place of the image in its box. Of several classes the nearest one counts. A
    simulation also gives precision and recall of the detected copies. Where copies lie between pixels, E_f also forgives
    fractions of a pixel, and the places of the detected copies have a root mean square error. An image in a file may be
    smaller than the box, and in other units: correlation and scale say how far it is the same.

    Picks as truth (.star) give precision and recall of the copies in the micrographs that hold picks.
    """
    if truth is not None and truth.suffix.lower() == ".star":
        emit(
            {"run": str(run_dir), "detections": _against_picks(run_dir, truth, max_distance, skip_bad)},
            as_json,
        )
        return
    if skip_bad or max_distance is not None:
        raise click.UsageError(
            "--skip-bad and --max-distance are about picks: name them with --truth FILE.star"
        )
    from mtdcore.errors import InputError

    from ..inputs.truth import agreement, errors, simulation_at, true_target
    from ..run.copies import accuracy, find_copies
    from ..run.finished import FinishedRun

    run = FinishedRun.at(run_dir)
    true = true_target(run.measurement, truth, run.parameters.box_size)
    if true is None:
        raise InputError(f"the truth behind {run.measurement} is not known here; name an image with --truth.")
    one, box = run.parameters, (-1, *true.shape)
    same = one.turns, one.mirror, bool(one.subpixel)
    found = [errors(image, true, *same) for image in run.estimate.reshape(box)]
    nearest = min(range(len(found)), key=lambda c: found[c]["E_s"])
    estimate, average = (
        run.image(file).reshape(box)[nearest] for file in (run.folder.estimate, run.folder.average)
    )
    result = {
        "run": str(run_dir),
        **({"class": nearest} if len(found) > 1 else {}),
        "estimate": found[nearest],
        "aligned_average": errors(average, true, *same),
        **({} if truth is None else agreement(estimate, true, one.turns, one.mirror)),
    }
    simulation = simulation_at(run.measurement)
    if simulation is not None:
        result["detections"] = accuracy(find_copies(run), estimate, simulation)
    emit(result, as_json)


def _against_picks(run_dir: Path, file: Path, max_distance: float | None, skip_bad: bool) -> dict[str, Any]:
    from ..inputs import picks
    from ..run.copies import find_copies
    from ..run.finished import FinishedRun

    run = FinishedRun.at(run_dir)
    shape = run.record.measurement.shape[1:]
    picked = picks.read(file, run.table(), shape, skip_bad)
    return picks.agreement(find_copies(run), picked, shape, max_distance)
