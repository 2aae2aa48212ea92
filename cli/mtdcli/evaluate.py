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
    (best rotation and small shift, since the data hardly fix where the image sits in its box).
    """
    from mtdcore.errors import InputError

    from .run_folder import RunFolder
    from .truth import errors, true_target

    folder = RunFolder(run_dir)
    record = folder.read_record()
    parameters = record["parameters"]
    measurement = Path(record["measurement"]["path"])
    true = true_target(measurement, truth, parameters["box_size"])
    if true is None:
        raise InputError(f"the truth behind {measurement} is not known here; name an image with --truth.")
    emit(
        {
            "run": str(run_dir),
            "estimate": errors(folder.read_image(folder.estimate), true, parameters["rotations"]),
            "aligned_average": errors(folder.read_image(folder.average), true, parameters["rotations"]),
        },
        as_json,
    )
