"""``mtd evaluate --volume``: a recovered volume against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..terminal.console import emit, json_option
from ..terminal.options import PATH, option, run_argument


@click.command()
@run_argument
@option("--truth", "True map (MRC). Default: what the measurement was simulated with.", PATH)
@json_option
def command(run_dir: Path, truth: Path | None, as_json: bool) -> None:
    """Compare the volume in RUN_DIR with the truth, after alignment over rotation, shift and hand: correlation, shape (the
    correlation without spherical means, which any two particles share) of the volume as it is and with the power of the truth in each
    shell, shell correlation and where it falls below 0.5.
    """
    emit(compare(run_dir, truth), as_json)


def compare(run_dir: Path, truth: Path | None) -> dict[str, Any]:
    """Scores of the volume in a run folder.

    Args:
        run_dir: of ``mtd recover --volume``.
        truth: an MRC map; None: the truth beside the simulated measurement.

    Raises:
        InputError: no such folder, or no truth of its box.
    """
    import numpy as np

    from mtdcore.errors import InputError
    from mtdcore.model.volumes.maps import read_map
    from mtdcore.results.metrics import TRUTH_LIMIT
    from mtdcore.results.volumes import (
        align_volumes,
        cosine,
        fourier_shell_correlation,
        matched_to,
        shape_correlation,
    )
    from mtdcore.synthetic.particles import open_volume_truth

    from ..run.folder import RunFolder

    record = RunFolder(run_dir).read_record()
    try:
        measurement = Path(record["measurement"]["path"])
    except (KeyError, TypeError) as problem:
        raise InputError(
            f"{run_dir} should be a folder written by `mtd recover --volume`; its run.json names no measurement ({problem})."
        ) from problem
    volume, _ = read_map(run_dir / "volume.mrc")
    wanted: np.ndarray = read_map(truth)[0] if truth is not None else open_volume_truth(measurement).volume
    if wanted.shape != volume.shape:
        raise InputError(
            f"the truth should have the box of the run, {volume.shape}; it has {wanted.shape}: resample it first."
        )
    aligned = align_volumes(matched_to(volume, wanted), wanted)
    placed, curve = aligned.applied(volume), fourier_shell_correlation(aligned.volume, wanted)
    result: dict[str, Any] = {
        "correlation": cosine(placed, wanted),
        "shape": shape_correlation(placed, wanted),
        "shape_matched": shape_correlation(aligned.volume, wanted),
        "mirrored": aligned.mirrored,
        f"resolution_pixels_at_{TRUTH_LIMIT:g}": curve.resolution(TRUTH_LIMIT),
        "shell_correlation": [round(float(c), 4) for c in curve.correlation],
    }
    return result
