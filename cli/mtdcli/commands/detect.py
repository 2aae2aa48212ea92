"""``mtd detect``: where the copies are, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..run.lock import locked
from ..run.output import refuse_output
from ..terminal.console import emit, force_option, json_option, log

if TYPE_CHECKING:
    import numpy as np

    from mtdcore import WindowLikelihood
    from mtdcore.data import Measurement
    from mtdcore.data.micrographs.table import Entry, MicrographTable
    from mtdcore.results.detections import Detections
    from mtdcore.synthetic.simulate import Truth

    from ..run.folder import RunFolder

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
@click.option(
    "--relion",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write autopick.star, a table for each micrograph and class_averages.mrcs there (extra: em).",
)
@click.option(
    "--posterior-map",
    type=click.Path(path_type=Path),
    metavar="ZARR",
    help="Write the expected number of copies centred on each pixel as an OME-Zarr image.",
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
    from ..run.folder import RunFolder

    folder = RunFolder(run_dir)
    record = folder.read_record()
    if posterior_map is not None:
        refuse_output(posterior_map, force, [run_dir, Path(record["measurement"]["path"])])
    with locked(folder.path):
        found = write_copies(folder, record, threshold, device)
        if relion is not None:
            write_for_relion(folder, record, found, relion)
        if posterior_map is not None:
            _write_map(folder, record, posterior_map, device, force)
    emit(
        {
            "copies": len(found),
            "expected_count": record["result"]["expected_count"],
            "csv": str(folder.picks),
            "star": str(folder.picks_star),
            **({} if relion is None else {"relion": str(relion)}),
            **({} if posterior_map is None else {"posterior_map": str(posterior_map)}),
        },
        as_json,
    )


def write_copies(
    folder: RunFolder, record: dict[str, Any], threshold: float = 0.5, device: str = "auto"
) -> Detections:
    """Find the copies (:func:`find_copies`) and write the tables of a run folder, locked by the caller."""
    found = find_copies(folder, record, threshold, device)
    table = table_of_run(folder, record)
    found.to_csv(folder.picks)
    found.to_json(folder.picks_json)
    found.to_star(folder.picks_star, table.names, table.bin)
    return found


def write_for_relion(folder: RunFolder, record: dict[str, Any], found: Detections, output: Path) -> None:
    """Write class averages on the grey scale of the micrographs and a table of picks for each micrograph.

    Args:
        folder: of a finished run.
        record: its ``run.json``.
        found: its copies.
        output: folder, as RELION's tables should name it.
    """
    from mtdcore.results.relion import write_class_averages, write_picks

    table = table_of_run(folder, record)
    shares = record["result"]["likelihood"].get("class_weights") or [1.0]
    estimate = folder.read_image(folder.estimate, record["parameters"]["box_size"])
    write_class_averages(output, estimate, shares, table.scale, table.pixel_size)
    write_picks(output, found, table)


def _write_map(folder: RunFolder, record: dict[str, Any], path: Path, device: str, force: bool) -> None:
    from mtdcore.results.posterior_map import write_posterior_map

    measurement, likelihood = _model(record)
    pixel_size = table_of_run(folder, record).pixel_size
    estimate = folder.read_image(folder.estimate, likelihood.box_size)
    write_posterior_map(
        path, measurement, estimate, likelihood, device, pixel_size=pixel_size, overwrite=force
    )


def find_copies(
    folder: RunFolder, record: dict[str, Any], threshold: float = 0.5, device: str = "auto"
) -> Detections:
    """Detect the estimate of a run in its measurement, with the run's noise level, count and separation.

    A run of the patch likelihood is read with the window likelihood, in which a copy has one pose.
    """
    from mtdcore.results.detections import detect

    measurement, likelihood = _model(record)
    return detect(
        measurement, folder.read_image(folder.estimate, likelihood.box_size), likelihood, device, threshold
    )


def _model(record: dict[str, Any]) -> tuple[Measurement, WindowLikelihood]:
    """The measurement of a run and the window model that its copies are read with."""
    from dataclasses import replace

    from mtdcore import WindowLikelihood
    from mtdcore.model.likelihood.records import likelihood_from_record

    from ..inputs.usable import open_for

    result = record["result"]
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
    return open_for(Path(record["measurement"]["path"]), record["parameters"]), likelihood


def accuracy(found: Detections, estimate: np.ndarray, simulation: Truth) -> dict[str, float | int]:
    """Precision and recall against the copies of a simulation.

    The estimate may sit turned and shifted in its box; its copies are compared in the frame of the truth.

    Args:
        found: copies of the estimate.
        estimate: (L, L).
        simulation: the truth.
    """
    from mtdcore.results.matching import match
    from mtdcore.results.metrics import align, forgiven_shift

    frame = align(estimate, simulation.target, found.rotations, forgiven_shift(found.box_size))
    matched = match(found.in_frame_of(frame), simulation.positions, TOLERANCE)
    return {
        "count": matched.detections,
        "copies": matched.copies,
        "precision": matched.precision,
        "recall": matched.recall,
        "tolerance": TOLERANCE,
    }


def table_of_run(folder: RunFolder, record: dict[str, Any]) -> MicrographTable:
    """What the run knew about its micrographs; numbered names where it knew nothing."""
    from mtdcore.data.micrographs.table import Entry, MicrographTable

    table = MicrographTable.load(folder.path)
    if table is not None:
        return MicrographTable(tuple(_nameable(i, entry) for i, entry in enumerate(table.entries)))
    count = record["measurement"]["shape"][0]
    return MicrographTable(tuple(Entry(f"micrograph_{i + 1:06d}") for i in range(count)))


def _nameable(index: int, entry: Entry) -> Entry:
    """The entry, with a number for a name that no STAR file can hold (of several lines)."""
    from dataclasses import replace

    from mtdcore.data.micrographs.star import quoted
    from mtdcore.errors import ParameterError

    try:
        quoted(entry.name)
    except ParameterError as problem:
        log(f"warning: micrograph {index + 1} goes by its number: {problem}")
        return replace(entry, name=f"micrograph_{index + 1:06d}")
    return entry
