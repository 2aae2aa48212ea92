"""Competition between the corners of a tile (window model, docs/model.md 7).

If templates are scored in parts, competition comes between the two halves of an E-step: the log-odds of all parts,
joined by ``numpy.logaddexp``, become the ``log_norm`` of :meth:`Backend.project`.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from ..._base.typing import Array
from ...data.tiles import Tile
from ...model.likelihood import WindowLikelihood
from .array.sums import slide_log_sum
from .cpu import kernels

#: Logarithm below which float64 sums over a neighbourhood cannot overflow.
_LARGEST_EXPONENT = 600.0


def log_partition(log_odds: Array, likelihood: WindowLikelihood) -> Array:
    """log(1 + S) at every corner: by kernels for NumPy arrays, otherwise in array-API terms.

    Args:
        log_odds: (P, Q) float64, log-odds of a copy in any template at each corner of the pixels of a tile.
        likelihood: bound to the measurement.

    Returns:
        (P, Q) float64 of the same library; correct at the corners whose whole neighbourhood is in the tile or beyond the micrograph.
    """
    if not isinstance(log_odds, np.ndarray):
        xp, near = array_namespace(log_odds), log_odds
        for distance in likelihood.separations:
            near = xp.permute_dims(slide_log_sum(near, distance - 1), (1, 0))
        return xp.logaddexp(near, xp.zeros_like(near))
    rows, columns = (d - 1 for d in likelihood.separations)
    logarithmic = bool(log_odds.max() > _LARGEST_EXPONENT)
    odds = log_odds if logarithmic else np.exp(log_odds)
    down = kernels.slide_sum(odds, rows, logarithmic)
    across = kernels.slide_sum(np.ascontiguousarray(down.T), columns, logarithmic)
    log_norm = np.ascontiguousarray(across.T)
    if not logarithmic:  # NumPy's logarithm of float64 is vectorised, unlike that of the kernels
        return np.asarray(np.log(1.0 + log_norm))
    kernels.log_partition(log_norm, logarithmic)
    return log_norm


def log_norm(log_odds: np.ndarray, tile: Tile, likelihood: WindowLikelihood) -> np.ndarray:
    """log(1 + S) at the corners that a tile owns, as :meth:`Backend.project` takes it.

    Args:
        log_odds: (P, Q) floating point, log-odds of a copy in any template at each corner of the pixels of the tile.
        tile: the tile.
        likelihood: bound to the measurement.

    Returns:
        (owned rows, owned columns) float64.
    """
    everywhere = log_partition(np.ascontiguousarray(log_odds, dtype=np.float64), likelihood)
    return np.ascontiguousarray(everywhere[tile.owned])
