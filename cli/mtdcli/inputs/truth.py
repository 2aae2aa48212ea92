"""The truth behind a measurement, when it is known, and the errors against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtdcore import relative_error
from mtdcore._base.typing import Lengths, pair, plain
from mtdcore.em.gauge.prior import ANY_ANGLE
from mtdcore.errors import InputError, MtdError
from mtdcore.results.metrics import forgiven_shift, free_correlation
from mtdcore.synthetic.simulate import open_simulation

from ..terminal.console import log
from .sources import read_image

if TYPE_CHECKING:
    from mtdcore.synthetic.simulate import Simulation

#: Ratio of the units of estimate and truth beyond which the difference is logged, and smallest correlation at which the log mentions it.
_UNITS, _ALIKE = 1.25, 0.5

#: Ratio of unexplained variances, mirror image over estimate, below which the mirror image is called the better fit.
_MIRRORED = 0.5


def simulation_at(path: Path) -> Simulation | None:
    """The simulation whose measurement lies at ``path``; None if it is no simulation or is gone."""
    try:
        return open_simulation(path)
    except MtdError:
        return None


def true_target(measurement: Path, file: Path | None, box_size: Lengths) -> np.ndarray | None:
    """The true image, float64 of the shape of the box: from a file if given, else from the measurement; None if unknown, or of another box.

    A smaller image in the file is put in the middle of the box, with zeros around it.

    Raises:
        InputError: the image in the file is larger than the box.
    """
    box = pair(box_size)
    if file is None:
        simulation = simulation_at(measurement)
        return None if simulation is None or simulation.target.shape != box else simulation.target
    truth = read_image(file)
    more = [n - m for n, m in zip(box, truth.shape, strict=True)]
    if min(more) < 0:
        raise InputError(
            f"the truth should have the size of the box, {box[0]} x {box[1]}, or less; it is {truth.shape[0]} x {truth.shape[1]}: "
            "cut its margin off."
        )
    return np.pad(truth, [(n // 2, n - n // 2) for n in more])


def errors(
    estimate: np.ndarray, truth: np.ndarray, rotations: int, mirror: bool = False, subpixel: bool = False
) -> dict[str, float | int]:
    """The relative error E and the gauge-free error E_s (docs/model.md 1), with the shift that E_s forgives.

    Args:
        estimate: of the shape of the box.
        truth: likewise, not blank.
        rotations: number K of rotations that count as the same image; from 72 on, rotations in steps of one degree.
        mirror: whether mirror images count as the same image, too.
        subpixel: whether shifts by fractions of a pixel are forgiven as well: the error E_f.
    """
    shift = forgiven_shift(plain(*truth.shape))
    if rotations >= ANY_ANGLE:  # the estimate may then be at any angle
        rotations = 360
    return {
        "E": relative_error(estimate, truth, rotations, mirror=mirror),
        "E_s": relative_error(estimate, truth, rotations, max_shift=shift, mirror=mirror),
        **({"E_f": relative_error(estimate, truth, rotations, shift, mirror, True)} if subpixel else {}),
        "max_shift": max(pair(shift)),
    }


def agreement(
    estimate: np.ndarray, truth: np.ndarray, rotations: int, mirror: bool = False
) -> dict[str, float]:
    """Correlation of an estimate with a truth in other units; the log names a mirror image or a difference of units that makes E large.

    Args:
        estimate: of the shape of the box.
        truth: likewise, from a file.
        rotations: number K of rotations of the run; if they are not all multiples of 90 degrees, the estimate may be at any angle.
        mirror: whether mirror images count as the same.

    Returns:
        "correlation", and "scale": one unit of the truth in units of the estimate.
    """
    shift = forgiven_shift(plain(*truth.shape))
    angles = rotations if 4 % rotations == 0 else 360
    found, other = (free_correlation(image, truth, angles, shift) for image in (estimate, estimate[:, ::-1]))
    found = max(found, other) if mirror else found
    if other[0] > _ALIKE and 1.0 - other[0] ** 2 < _MIRRORED * (1.0 - found[0] ** 2):
        log(
            f"the mirror image of the estimate fits better: correlation {other[0]:.3f}, not {found[0]:.3f}; rows in reverse order make one "
            "(TIFF files are read from the last row to the first), and so may the truth"
        )
    elif found[0] > _ALIKE and abs(np.log(found[1])) > np.log(_UNITS):
        log(
            f"the truth has units of its own, of which one is {found[1]:.3g} in the estimate (mtd import scales the noise to 1): "
            "E and E_s count that as an error, the correlation does not"
        )
    return {"correlation": found[0], "scale": found[1]}
