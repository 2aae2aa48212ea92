"""The truth behind a measurement, when it is known, and the errors against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtdcore import relative_error
from mtdcore._base.typing import Lengths, pair, plain
from mtdcore.em.gauge.prior import ANY_ANGLE
from mtdcore.errors import InputError, MtdError
from mtdcore.results.metrics import forgiven_shift
from mtdcore.synthetic.simulate import open_simulation

from .sources import read_image

if TYPE_CHECKING:
    from mtdcore.synthetic.simulate import Simulation


def simulation_at(path: Path) -> Simulation | None:
    """The simulation whose measurement lies at ``path``; None if it is no simulation or is gone."""
    try:
        return open_simulation(path)
    except MtdError:
        return None


def true_target(measurement: Path, file: Path | None, box_size: Lengths) -> np.ndarray | None:
    """The true image, float64 of the shape of the box: from a file if given, else from the measurement; None if unknown, or of another box.

    Raises:
        InputError: the image in the file has another size than the box.
    """
    box = pair(box_size)
    if file is None:
        simulation = simulation_at(measurement)
        return None if simulation is None or simulation.target.shape != box else simulation.target
    truth = read_image(file)
    if truth.shape != box:
        raise InputError(
            f"the truth should have the size of the box, {box[0]} x {box[1]}; it is {truth.shape[0]} x {truth.shape[1]}."
        )
    return truth


def errors(
    estimate: np.ndarray, truth: np.ndarray, rotations: int, mirror: bool = False, subpixel: bool = False
) -> dict[str, float | int]:
    """The relative error E and the gauge-free error E_s (docs/model.md 1), with the shift that E_s forgives.

    Args:
        estimate: of the shape of the box.
        truth: likewise, not blank.
        rotations: number K of rotations that count as the same image; from 72 on, every degree does.
        mirror: whether mirror images do, too.
        subpixel: whether shifts by fractions of a pixel are forgiven as well: the error E_f.
    """
    shift = forgiven_shift(plain(*truth.shape))
    if rotations >= ANY_ANGLE:  # and so may what is recovered
        rotations = 360
    return {
        "E": relative_error(estimate, truth, rotations, mirror=mirror),
        "E_s": relative_error(estimate, truth, rotations, max_shift=shift, mirror=mirror),
        **({"E_f": relative_error(estimate, truth, rotations, shift, mirror, True)} if subpixel else {}),
        "max_shift": max(pair(shift)),
    }
