"""The copies of a finished run: found, written as tables, compared with the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtdcore import WindowLikelihood
from mtdcore.model.likelihood.window import localised
from mtdcore.results import detections
from mtdcore.results.detections import Detections
from mtdcore.results.matching import Match, match
from mtdcore.results.metrics import align, forgiven_shift
from mtdcore.synthetic.simulate import Truth

from .finished import FinishedRun

#: Largest distance between a detection and its copy, pixels: one step along rows, columns or both.
TOLERANCE = 1.5

#: Smallest expected count that detection assumes.
_FEWEST = 1e-3


def find_copies(run: FinishedRun, threshold: float = 0.5, device: str = "auto") -> Detections:
    """Detect the estimate of a run in its measurement, with the run's noise level, count and separation.

    After a run with the patch likelihood the window likelihood is used, in which a copy has one pose.
    """
    measurement = run.open()
    return detections.detect(measurement, run.estimate, window_likelihood(run), device, threshold)


def write_copies(run: FinishedRun, threshold: float = 0.5, device: str = "auto") -> Detections:
    """Find the copies (:func:`find_copies`) and write the tables of the folder, locked by the caller."""
    found = find_copies(run, threshold, device)
    write_tables(run, found)
    return found


def write_tables(run: FinishedRun, found: Detections) -> None:
    """Write the copies of a run to the tables of its folder, locked by the caller."""
    table, folder = run.table(), run.folder
    found.to_csv(folder.picks, table.sampling_rate)
    found.to_json(folder.picks_json, table.sampling_rate)
    found.to_star(folder.picks_star, table.names, table.bin)


def write_for_relion(run: FinishedRun, found: Detections, output: Path) -> None:
    """Write class averages on the grey scale of the micrographs and a table of picks for each micrograph.

    Args:
        run: finished.
        found: its copies.
        output: folder, as RELION's tables should name it.
    """
    from mtdcore.results.relion import write_class_averages, write_picks

    table, shares = run.table(), run.likelihood.class_weights or (1.0,)
    write_class_averages(output, run.estimate, shares, table.scale, table.pixel_size)
    write_picks(output, found, table)


def write_map(run: FinishedRun, path: Path, device: str, force: bool) -> None:
    """Write the expected number of copies centred on each pixel as an OME-Zarr image.

    Raises:
        StorageError: ``path`` exists and ``force`` is not given, or it must not be replaced.
    """
    from mtdcore.results.posterior_map import write_posterior_map

    write_posterior_map(
        path,
        run.open(),
        run.estimate,
        window_likelihood(run),
        device,
        pixel_size=run.table().pixel_size,
        overwrite=force,
    )


def window_likelihood(run: FinishedRun) -> WindowLikelihood:
    """The window likelihood that detects the copies of a run."""
    return localised(run.likelihood, max(run.record.result.expected_count, _FEWEST))


def accuracy(found: Detections, estimate: np.ndarray, simulation: Truth) -> dict[str, float | int | None]:
    """Precision and recall against the copies of a simulation.

    The estimate may be rotated and shifted in its box; its copies are compared in the frame of the truth.

    Args:
        found: copies of the estimate.
        estimate: (L, L).
        simulation: the truth.
    """
    shift, mirror = forgiven_shift(found.box_size), found.mirrored is not None
    between = found.row.dtype.kind == "f"
    frame = align(estimate, simulation.target, found.rotations, shift, mirror, between)
    posed = found.in_frame_of(frame)
    matched = match(posed, simulation.positions, TOLERANCE)
    return {
        "count": matched.detections,
        "copies": matched.copies,
        "precision": matched.precision,
        "recall": matched.recall,
        "tolerance": TOLERANCE,
        **({"position_error": _off(matched, posed, simulation)} if between else {}),
        **_alike(matched, posed, simulation),
    }


def _alike(matched: Match, posed: Detections, simulation: Truth) -> dict[str, float | None]:
    """Correlation of the amplitudes of the matched copies with the true ones, where both are known; None for fewer than three copies."""
    if posed.amplitude is None or simulation.amplitudes is None:
        return {}
    found, true = matched.pairs.T
    pairs = posed.amplitude[found], simulation.amplitudes[true]
    return {"amplitude_correlation": float(np.corrcoef(*pairs)[0, 1]) if len(found) > 2 else None}


def _off(matched: Match, posed: Detections, simulation: Truth) -> float | None:
    """Root mean square distance of the matched copies from the truth, pixels; None: no copy is matched."""
    found, true = matched.pairs.T
    apart = posed.positions[found] - simulation.positions[true]
    return float(np.sqrt(np.mean(np.square(apart).sum(axis=1)))) if len(found) else None
