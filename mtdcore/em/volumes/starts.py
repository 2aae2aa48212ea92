"""Where a run starts: a blob with smooth noise, in the units of the data."""

from __future__ import annotations

import math

import numpy as np

from ...model.volumes.grids import ball, low_passed, radii
from ...model.volumes.projections import Projections

#: Standard deviation of the blob in boxes, and of the logarithm of its roughness.
_WIDTH, _ROUGH = 0.17, 0.7

#: Views over which the energy of a start is averaged.
_VIEWS = 60


def rough_blob(box_size: int, band: float, energy: float, rng: np.random.Generator) -> np.ndarray:
    """``exp(-r^2 / 2 (.17 L)^2) exp(.7 z)``, z white noise low-passed and scaled to unit deviation.

    Args:
        box_size: L in voxels.
        band: limit of the roughness in cycles per voxel; at least 1.6 periods per box.
        energy: mean squared norm of the projections.
        rng: of z.

    Returns:
        (L, L, L) float64.
    """
    blob = np.exp(-(radii(box_size) ** 2) / (2.0 * (_WIDTH * box_size) ** 2))
    rough = low_passed(rng.standard_normal((box_size,) * 3), max(band, 1.6 / box_size))
    return scaled_to(blob * np.exp(_ROUGH * rough / rough.std()) * ball(box_size), energy)


def scaled_to(volume: np.ndarray, energy: float) -> np.ndarray:
    """The volume times the number that gives its projections this mean squared norm."""
    images = Projections(len(volume), _VIEWS).apply(volume)
    return volume * math.sqrt(energy / float(np.mean(np.sum(images**2, axis=(1, 2)))))
