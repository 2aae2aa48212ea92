"""Numba kernels of the window model: competition between neighbouring corners (docs/model.md 7).

Loops run over contiguous rows, without reductions where possible: LLVM vectorises these without reordering sums.
"""

from __future__ import annotations

import numpy as np

from ...._base.numerics.kernels import kernel
from .lanes.math import exp, log, logaddexp

_kernel = kernel(error_model="numpy")

#: Stands for log 0 where -inf would give NaN in a difference.
LOG_ZERO = -1.0e30


@_kernel
def _join(above, below, out, logarithmic):
    """One step of a running sum, for a whole row: plain numbers, or their logarithms."""
    if logarithmic:
        for c in range(out.size):
            out[c] = logaddexp(above[c], below[c])
    else:
        for c in range(out.size):
            out[c] = above[c] + below[c]


@_kernel
def slide_sum(values, reach, logarithmic):
    """Sum (or log-sum-exp) over rows r - reach .. r + reach of every column, in O(1) per entry.

    The axis is cut into blocks as long as the window, with a running sum down and one up each block; every window is the end of
    one block and the start of the next (van Herk 1992). Nothing is subtracted, so no digits cancel.
    """
    rows, columns = values.shape
    width = 2 * reach + 1
    padded = rows + 2 * reach
    down = np.full((padded, columns), LOG_ZERO if logarithmic else 0.0, values.dtype)
    down[reach : reach + rows] = values
    up = down.copy()
    for r in range(1, padded):
        if r % width:
            _join(down[r - 1], down[r], down[r], logarithmic)
    for r in range(padded - 2, -1, -1):
        if (r + 1) % width:
            _join(up[r + 1], up[r], up[r], logarithmic)
    out = np.empty((rows, columns), values.dtype)
    for r in range(rows):
        if r % width:
            _join(up[r], down[r + width - 1], out[r], logarithmic)
        else:
            out[r] = up[r]
    return out


@_kernel
def exponentiate(values):
    """``e^x`` in place."""
    for r in range(values.shape[0]):
        for c in range(values.shape[1]):
            values[r, c] = exp(values[r, c])


@_kernel
def log_partition(competition, logarithmic):
    """``log(1 + S)`` in place, from S or from log S."""
    one = competition.dtype.type(1)
    for r in range(competition.shape[0]):
        row = competition[r]
        if logarithmic:
            for c in range(row.size):
                row[c] = logaddexp(row[c], one - one)
        else:
            for c in range(row.size):
                row[c] = log(one + row[c])
