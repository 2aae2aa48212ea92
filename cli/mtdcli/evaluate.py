"""``mtd evaluate``: a run against the truth."""

from __future__ import annotations

from pathlib import Path

import click

from .console import emit, json_option


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="True image. Default: the one the measurement was simulated with.",
)
@json_option
def command(run_dir: Path, truth: Path | None, as_json: bool) -> None:
    """Compare the estimate in RUN_DIR with the truth: the relative error E (best rotation) and the gauge-free E_s
    (best rotation and small shift, since the data hardly fix where the image sits in its box). Where the copies are known
    too, also precision and recall of the detected ones. Of several classes the one nearest to the truth counts.
    """
    from mtdcore.errors import InputError

    from .detect import accuracy, find_copies
    from .run_folder import RunFolder
    from .truth import errors, simulation_at, true_target

    folder = RunFolder(run_dir)
    record = folder.read_record()
    parameters = record["parameters"]
    measurement = Path(record["measurement"]["path"])
    true = true_target(measurement, truth, parameters["box_size"])
    if true is None:
        raise InputError(f"the truth behind {measurement} is not known here; name an image with --truth.")
    rotations, box = parameters["rotations"], (-1, *true.shape)
    found = [errors(image, true, rotations) for image in folder.read_image(folder.estimate).reshape(box)]
    nearest = min(range(len(found)), key=lambda c: found[c]["E_s"])
    estimate, average = (
        folder.read_image(file).reshape(box)[nearest] for file in (folder.estimate, folder.average)
    )
    result = {
        "run": str(run_dir),
        **({"class": nearest} if len(found) > 1 else {}),
        "estimate": found[nearest],
        "aligned_average": errors(average, true, rotations),
    }
    simulation = simulation_at(measurement)
    if simulation is not None:
        result["detections"] = accuracy(find_copies(folder, record), estimate, simulation)
    emit(result, as_json)
