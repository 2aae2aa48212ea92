"""``mtd report``, and the page that every run folder gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..run.lock import locked
from ..terminal.console import emit, json_option, show

if TYPE_CHECKING:
    import numpy as np

    from ..run.folder import RunFolder


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--truth", type=click.Path(path_type=Path), help="True image to show beside the estimate.")
@json_option
def command(run_dir: Path, truth: Path | None, as_json: bool) -> None:
    """Write RUN_DIR/report.html again, from the files of the run and its measurement."""
    from ..run.folder import RunFolder

    folder = RunFolder(run_dir)
    folder.read_record()  # a lock would make a folder that is not there
    with locked(folder.path):
        write_report(folder, truth)
    emit({"report": str(folder.page)}, as_json)


def write_report(folder: RunFolder, truth_file: Path | None = None) -> None:
    """Write ``report.html`` of a finished run.

    Args:
        folder: of the run, locked by the caller.
        truth_file: true image; None: the one of the simulation, if the measurement is one.
    """
    from ..inputs.truth import true_target
    from ..report import figures
    from ..report import trust as report_trust
    from ..report.figures_trust import ring_correlations
    from ..report.location import location
    from ..report.page import write_page

    record = folder.read_record()
    parameters, result = record["parameters"], record["result"]
    path = Path(record["measurement"]["path"])
    side = parameters["box_size"]
    truth = true_target(path, truth_file, side)
    share = result.get("data_share")
    micrographs, height, width = record["measurement"]["shape"]
    pictures, texts = location(folder, record, path)
    limits = figures.value_range(folder.read_image(folder.estimate, side) if truth is None else truth)
    halves = report_trust.curves(folder)
    for name, palette in (("halves", figures.LIGHT), ("halves_dark", figures.DARK)) if halves else ():
        pictures[name] = ring_correlations(halves, palette)
    write_page(
        folder.page,
        "report.html.j2",
        title=f"One image from {path.name}",
        subtitle=f"{micrographs} micrograph{'s' * (micrographs > 1)} of {height} x {width} pixels, box {side}, "
        f"{parameters['rotations']} rotations, {parameters['likelihood']} likelihood, prior: {parameters['prior'] or 'none'}",
        facts=[
            ("copies expected", f"{result['expected_count']:.1f}"),
            ("noise standard deviation", f"{result['noise_std']:.4g}"),
            ("evidence, nats", f"{result['evidence_nats']:,.1f}"),
            *([("decided by the data", f"{share:.0%}")] if parameters["prior"] and share is not None else []),
            ("iterations", f"{result['iterations']}"),
            ("stopped by", result["stopped"]),
            ("seconds", f"{record['seconds']:.1f}"),
        ],
        verdict=report_trust.verdict(folder, record),
        images=_images(folder, truth, record, limits),
        doubts=report_trust.images(folder, side, limits),
        pictures={**pictures, **_convergence(folder)},
        **texts,
        parameters=_table(record),
        command=record["command"],
    )


def _images(
    folder: RunFolder, truth: np.ndarray | None, record: dict[str, Any], limits: tuple[float, float]
) -> list[dict[str, Any]]:
    """Estimate, aligned average and truth on one grey scale; the first two of every class."""
    from ..inputs.truth import errors
    from ..report import figures

    parameters, result = record["parameters"], record["result"]
    side, copies = parameters["box_size"], result["expected_count"]
    estimates, averages = (
        folder.read_image(file, side).reshape(-1, side, side) for file in (folder.estimate, folder.average)
    )
    source = "what the data and the prior say together" if parameters["prior"] else "no prior was used"
    alone = "The data alone: the average of all copies, no prior applied."
    if len(estimates) == 1 and copies > 0:
        alone += f" Its noise has a standard deviation of {result['noise_std'] / copies**0.5:.2g}."
    shown = []
    for number, (estimate, average) in enumerate(zip(estimates, averages, strict=True), start=1):
        which = f", class {number}" if len(estimates) > 1 else ""
        shown += [
            (f"Estimate{which}", estimate, f"The answer: {source}."),
            (f"Aligned average{which}", average, alone),
        ]
    if truth is not None:
        found = min(
            (errors(image, truth, parameters["rotations"]) for image in estimates), key=lambda e: e["E_s"]
        )
        text = f"Error of the estimate: E = {found['E']:.3f}; E_s = {found['E_s']:.3f} when up to {found['max_shift']} pixels of shift are forgiven."
        shown.append(("Truth", truth, text))
    return [{"title": t, "text": text, "data": figures.picture(image, limits)} for t, image, text in shown]


def _convergence(folder: RunFolder) -> dict[str, bytes]:
    from ..report import figures

    history = folder.read_history()
    if not history["iteration"]:
        return {}
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
