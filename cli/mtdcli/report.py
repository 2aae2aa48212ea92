"""``mtd report``, and the page that every run folder gets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import emit, json_option, log, show

if TYPE_CHECKING:
    import numpy as np

    from .run_folder import RunFolder


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--truth", type=click.Path(path_type=Path), help="True image to show beside the estimate.")
@json_option
def command(run_dir: Path, truth: Path | None, as_json: bool) -> None:
    """Write RUN_DIR/report.html again, from the files of the run and its measurement."""
    from .run_folder import RunFolder

    folder = RunFolder(run_dir)
    with folder.lock():
        write_report(folder, truth)
    emit({"report": str(folder.page)}, as_json)


def write_report(folder: RunFolder, truth_file: Path | None = None) -> None:
    """Write ``report.html`` of a finished run.

    Args:
        folder: of the run, locked by the caller.
        truth_file: true image; None: the one of the simulation, if the measurement is one.
    """
    from .page import write_page
    from .truth import true_target

    record = folder.read_record()
    parameters, result = record["parameters"], record["result"]
    path = Path(record["measurement"]["path"])
    truth = true_target(path, truth_file, parameters["box_size"])
    micrographs, height, width = record["measurement"]["shape"]
    window = parameters["likelihood"] == "window"
    pictures, texts = _location(folder, record, path)
    write_page(
        folder.page,
        "report.html.j2",
        title=f"One image from {path.name}",
        subtitle=f"{micrographs} micrograph{'s' * (micrographs > 1)} of {height} x {width} pixels, box {parameters['box_size']}, "
        f"{parameters['rotations']} rotations, {parameters['likelihood']} likelihood, prior: {parameters['prior'] or 'none'}",
        facts=[
            ("copies expected", f"{result['expected_count']:.1f}"),
            ("noise standard deviation", f"{result['noise_std']:.4g}"),
            ("evidence, nats" if window else "log-likelihood, nats", f"{result['evidence_nats']:.5g}"),
            ("iterations", f"{result['iterations']}"),
            ("stopped by", result["stopped"]),
            ("seconds", f"{record['seconds']:.1f}"),
        ],
        images=_images(folder, truth, parameters),
        pictures={**pictures, **_convergence(folder)},
        **texts,
        parameters=_table(record),
        command=record["command"],
    )


def _images(folder: RunFolder, truth: np.ndarray | None, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Estimate, aligned average and truth on one grey scale."""
    from . import figures
    from .truth import errors

    estimate, average = folder.read_image(folder.estimate), folder.read_image(folder.average)
    limits = figures.value_range(estimate if truth is None else truth)
    source = "what the data and the prior say together" if parameters["prior"] else "no prior was used"
    shown = [
        ("Estimate", estimate, f"The answer: {source}."),
        ("Aligned average", average, "The data alone: the average of all copies, no prior applied."),
    ]
    if truth is not None:
        found = errors(estimate, truth, parameters["rotations"])
        text = f"Error of the estimate: E = {found['E']:.3f}; E_s = {found['E_s']:.3f} when up to {found['max_shift']} pixels of shift are forgiven."
        shown.append(("Truth", truth, text))
    return [{"title": t, "text": text, "data": figures.picture(image, limits)} for t, image, text in shown]


def _location(
    folder: RunFolder, record: dict[str, Any], path: Path
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures of the measurement and its posterior on the first tile; none if the measurement is gone or changed."""
    import numpy as np
    from scipy import ndimage

    import mtdcore as mtd
    from mtdcore.errors import MtdError
    from mtdcore.likelihood.records import likelihood_from_record

    from . import figures
    from .posterior import view
    from .usable import open_for

    likelihood = likelihood_from_record(record["result"]["likelihood"])
    try:
        measurement = open_for(path, record["parameters"])
        if list(measurement.shape) != record["measurement"]["shape"]:
            raise mtd.MtdError(f"{path} is not the measurement of this run any more")
        backend = mtd.get_backend("cpu")
        bound = likelihood.bind(measurement.shape)
        tile = next(iter(measurement.tiles(bound.geometry)))
    except MtdError as problem:
        log(f"the report has no picture of the measurement: {problem}")
        return {}, {}
    target = folder.read_image(folder.estimate)
    turned = mtd.RotationSet(bound.rotations, bound.box_size).apply(target)
    seen = view(tile, backend.posterior(tile, turned, bound), bound)
    rows, columns = tile.region.read
    pictures = {
        "measurement": figures.with_boxes(
            seen.values, seen.corners, bound.box_size, figures.value_range(seen.values, 0.002)
        ),
        "posterior": figures.posterior_map(
            ndimage.maximum_filter(seen.best, max(3, max(seen.best.shape) // 100))
        ),
    }
    where = f"Rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop} of micrograph {tile.micrograph + 1}"
    count = len(seen.corners)
    return pictures, {
        "measurement_text": f"{where}. Outlined: {count} {'copy' if count == 1 else 'copies'} that the posterior is sure of.",
        "posterior_text": "Probability that a copy in its best rotation has its top-left corner there, on the same pixels; "
        f"the highest is {np.max(seen.best):.2f}. Points are enlarged, faint ones brightened.",
    }


def _convergence(folder: RunFolder) -> dict[str, bytes]:
    from . import figures

    with open(folder.history, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    history = {name: [float(row[name]) for row in rows] for name in rows[0]}
    return {
        "curves": figures.curves(history, figures.LIGHT),
        "curves_dark": figures.curves(history, figures.DARK),
    }


def _table(record: dict[str, Any]) -> list[tuple[str, str]]:
    measurement = record["measurement"]
    rows = {
        "measurement": measurement["path"],
        "fingerprint": measurement["fingerprint"],
        "unused pixels": measurement["unused_pixels"],
        "masked pixels": measurement.get("masked_pixels", 0),
        **({"bad chunks": measurement["bad_chunks"]} if measurement.get("bad_chunks") else {}),
        **{name.replace("_", " "): value for name, value in record["parameters"].items()},
        "device": record["device"],
        "started": record["started"],
        **{name: version for name, version in record["versions"].items()},
    }
    return [(name, show(value)) for name, value in rows.items()]
