"""``mtd detect``: where the copies are, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import emit, json_option

if TYPE_CHECKING:
    import numpy as np

    from mtdcore.detections import Detections
    from mtdcore.simulate import Truth

    from .run_folder import RunFolder

#: Largest distance between a detection and the copy it stands for, pixels: one step along rows, columns or both.
TOLERANCE = 1.5


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Smallest probability of a copy.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:i].")
@json_option
def command(run_dir: Path, threshold: float, device: str, as_json: bool) -> None:
    """Find the copies of the image that RUN_DIR recovered.

    Writes RUN_DIR/detections.csv (top-left corners of the boxes) and RUN_DIR/detections.star (RELION: centres), the most probable first.
    """
    from .run_folder import RunFolder

    folder = RunFolder(run_dir)
    record = folder.read_record()
    with folder.lock():
        found = write_copies(folder, record, threshold, device)
    emit(
        {
            "copies": len(found),
            "expected_count": record["result"]["expected_count"],
            "csv": str(folder.picks),
            "star": str(folder.picks_star),
        },
        as_json,
    )


def write_copies(
    folder: RunFolder, record: dict[str, Any], threshold: float = 0.5, device: str = "auto"
) -> Detections:
    """Find the copies (:func:`find_copies`) and write both tables of a run folder, locked by the caller."""
    found = find_copies(folder, record, threshold, device)
    found.to_csv(folder.picks)
    found.to_star(folder.picks_star, _names(record))
    return found


def find_copies(
    folder: RunFolder, record: dict[str, Any], threshold: float = 0.5, device: str = "auto"
) -> Detections:
    """Detect the estimate of a run in its measurement, with the run's noise level, count and separation.

    A run of the patch likelihood is read with the window likelihood, in which a copy has one pose.
    """
    from dataclasses import replace

    from mtdcore import WindowLikelihood
    from mtdcore.detections import detect
    from mtdcore.likelihood.records import likelihood_from_record

    from .usable import open_for

    result, parameters = record["result"], record["parameters"]
    model, count = likelihood_from_record(result["likelihood"]), max(result["expected_count"], 1e-3)
    likelihood = (
        replace(model, expected_count=count)
        if isinstance(model, WindowLikelihood)
        else WindowLikelihood(
            model.box_size,
            model.rotations,
            model.noise_std,
            count,
            class_weights=model.class_weights,
            micrographs=model.micrographs,
        )
    )
    path = Path(record["measurement"]["path"])
    measurement = open_for(path, parameters)
    return detect(measurement, folder.read_image(folder.estimate), likelihood, device, threshold)


def accuracy(found: Detections, estimate: np.ndarray, simulation: Truth) -> dict[str, float | int]:
    """Precision and recall against the copies of a simulation.

    The estimate may sit turned and shifted in its box; its copies are compared in the frame of the truth.

    Args:
        found: copies of the estimate.
        estimate: (L, L).
        simulation: the truth.
    """
    from mtdcore.matching import match
    from mtdcore.metrics import align

    from .truth import largest_shift

    frame = align(estimate, simulation.target, found.rotations, largest_shift(found.box_size))
    matched = match(found.in_frame_of(frame), simulation.positions, TOLERANCE)
    return {
        "count": matched.detections,
        "copies": matched.copies,
        "precision": matched.precision,
        "recall": matched.recall,
        "tolerance": TOLERANCE,
    }


def _names(record: dict[str, Any]) -> list[str] | None:
    """Names of the micrographs, where they are known and STAR can hold them."""
    from mtdcore.microscopy.table import MicrographTable

    table = MicrographTable.load(Path(record["measurement"]["path"]))
    names = [] if table is None else table.names
    one_each = len(names) == record["measurement"]["shape"][0]
    return names if one_each and all(len(name.split()) == 1 for name in names) else None
