"""The report of a run, ``report.html``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtdcore._base.typing import pair
from mtdcore.drawing.charts import DARK, LIGHT, convergence, is_motif
from mtdcore.drawing.images import value_range

from ..inputs.truth import errors, true_target
from ..run.finished import FinishedRun
from ..run.folder import RunFolder
from ..run.record import RunRecord
from ..terminal.console import show
from . import trust
from .figures_signal import shown_as
from .figures_trust import ring_correlations
from .location import location
from .page import write_page


def write_report(run: FinishedRun, truth_file: Path | None = None) -> None:
    """Write ``report.html`` of a finished run.

    Args:
        run: in a folder locked by the caller.
        truth_file: true image; None: the one of the simulation, if the measurement is one.
    """
    folder, parameters, result = run.folder, run.parameters, run.record.result
    box, share = parameters.box_size, result.data_share
    spread = float(result.likelihood.get("amplitude_std", 0.0))
    truth = true_target(run.measurement, truth_file, box)
    micrographs, height, width = run.record.measurement.shape
    pictures, texts = location(run)
    limits = value_range(run.estimate if truth is None else truth)
    halves = trust.curves(folder)
    for name, palette in (("halves", LIGHT), ("halves_dark", DARK)) if halves else ():
        pictures[name] = ring_correlations(halves[:1], halves[1:], palette)
    write_page(
        folder.page,
        "report.html.j2",
        title=f"One {'motif' if is_motif(pair(box)) else 'image'} from {run.measurement.name}",
        subtitle=f"{micrographs} {'signal' if height == 1 else 'micrograph'}{'s' * (micrographs > 1)} of {height} x {width} "
        f"{'samples' if height == 1 else 'pixels'}, box {' x '.join(map(str, box)) if isinstance(box, tuple) else box}, "
        f"{parameters.turns} rotation{'s' * (parameters.turns > 1)}, {parameters.likelihood} likelihood, prior: {parameters.prior or 'none'}",
        facts=[
            ("copies expected", f"{result.expected_count:.1f}"),
            *([("standard deviation of their amplitudes", f"{spread:.2g}")] if spread else []),
            ("noise standard deviation", f"{result.noise_std:.4g}"),
            ("evidence, nats", f"{result.evidence_nats:,.1f}"),
            *([("decided by the data", f"{share:.0%}")] if parameters.prior and share is not None else []),
            *(
                [("method", "moments")]
                if parameters.method == "moments"
                else [("iterations", f"{result.iterations}"), ("stopped by", result.stopped)]
            ),
            ("seconds", f"{run.record.seconds:.1f}"),
        ],
        notes=_notes(run),
        verdict=trust.verdict(run),
        warnings=run.record.doubts,
        images=_images(run, truth, limits),
        doubts=trust.images(run, limits),
        pictures={**pictures, **_convergence(folder)},
        **texts,
        parameters=_table(run.record),
        command=run.record.command,
    )


def _notes(run: FinishedRun) -> list[str]:
    """Sentences about the micrographs and their noise."""
    table, result, parameters = run.table(), run.record.result, run.parameters
    notes = []
    if table.pixel_size is not None:
        box, diameter = max(pair(parameters.box_size)) * table.pixel_size, parameters.diameter
        inside = (
            f", the diameter given {diameter * table.pixel_size:.4g}" if isinstance(diameter, float) else ""
        )
        notes.append(f"A pixel is {table.pixel_size:.4g} angstrom: the box is {box:.4g} wide{inside}.")
    if table.transfer is not None:
        notes.append(
            "What the import let through of each frequency (CTFs with their phases flipped, whitening) is part of the model, micrograph by micrograph."
            if run.likelihood.micrographs is not None
            else "The import changed the spectra of the micrographs; the model does not know by how much (--micrographs alike)."
        )
    if result.noise != "white":
        notes.append(f"{result.noise[0].upper()}{result.noise[1:]}.")
    return notes


def _images(run: FinishedRun, truth: np.ndarray | None, limits: tuple[float, float]) -> list[dict[str, Any]]:
    """Estimate, aligned average and truth on one grey scale; the first two of every class."""
    parameters, result = run.parameters, run.record.result
    box, copies = (-1, *pair(parameters.box_size)), result.expected_count
    estimates, averages = (run.image(file).reshape(box) for file in (run.folder.estimate, run.folder.average))
    source = "what the data and the prior say together" if parameters.prior else "no prior was used"
    alone = "The data alone: the average of all copies, no prior applied."
    if len(estimates) == 1 and copies > 0:
        alone += f" Its noise has a standard deviation of {result.noise_std / copies**0.5:.2g}."
    shown = []
    for number, (estimate, average) in enumerate(zip(estimates, averages, strict=True), start=1):
        which = f", class {number}" if len(estimates) > 1 else ""
        shown += [
            (f"Estimate{which}", estimate, f"The answer: {source}."),
            (f"Aligned average{which}", average, alone),
        ]
    if truth is not None:
        found = min(
            (errors(image, truth, parameters.turns, parameters.mirror) for image in estimates),
            key=lambda e: e["E_s"],
        )
        text = f"Error of the estimate: E = {found['E']:.3f}; E_s = {found['E_s']:.3f} when up to {found['max_shift']} pixels of shift are forgiven."
        shown.append(("Truth", truth, text))
    return [{"title": t, "text": text, **shown_as(image, limits)} for t, image, text in shown]


def _convergence(folder: RunFolder) -> dict[str, Any]:
    history = folder.read_history()
    return {"curves": convergence(history)} if history["iteration"] else {}


def _table(record: RunRecord) -> list[tuple[str, str]]:
    measurement = record.measurement
    rows = {
        "measurement": measurement.path,
        "fingerprint": measurement.fingerprint,
        "unused pixels": measurement.unused_pixels,
        "masked pixels": measurement.masked_pixels,
        **({"bad chunks": measurement.bad_chunks} if measurement.bad_chunks else {}),
        **{name.replace("_", " "): value for name, value in record.parameters.described().items()},
        "device": record.device,
        "started": record.started,
        **record.versions,
    }
    return [(name, show(value)) for name, value in rows.items()]
