"""The precision that correlations need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.tiles import Tile

#: Rounding in float32 may move a log-weight by this much (nats) before the E-step is done in float64.
_TOLERANCE = 0.01


def needed_precision(precision: str, largest_norm: float, noise_std: float, tiles: Sequence[Tile]) -> str:
    """float64 if float32 rounding of the scores of these tiles exceeds :data:`_TOLERANCE`, ``precision`` otherwise.

    The scores are of size ||F||^2 / sigma^2 for a hit and rms(M) ||F|| / sigma^2 elsewhere, where a transform
    multiplies the rounding by a few.

    Args:
        precision: the requested one, "float32" or "float64".
        largest_norm: largest norm of a template.
        noise_std: noise level of the measurement.
        tiles: tiles that are scored together.
    """
    if precision == "float64":
        return precision
    height = max(tile.level for tile in tiles)
    rounding = np.finfo(np.float32).eps * (largest_norm + 5.0 * height) * largest_norm / noise_std**2
    return "float32" if rounding < _TOLERANCE else "float64"
