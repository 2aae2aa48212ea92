"""Numba kernels of the CPU backend: windows between the transforms, and direct sums for small boxes.

====================  ==========================================================================
SPEC                  here
====================  ==========================================================================
Lambda + log(lam/K)   ``scores`` plus ``offset`` (SPEC 7)
S(x), log(1 + S(x))   ``slide_sum``, ``log_partition``
backprojection_k      ``accumulate_spectra`` (transform path) or ``*_backproject``
====================  ==========================================================================

All kernels release the GIL; the caller runs one per thread. Loops run over contiguous rows without
reductions where they can, which is what LLVM vectorises without reordering sums.
"""

from __future__ import annotations

import numpy as np

from ._cpu_math import exp, log, logaddexp
from ._kernel_cache import kernel

_kernel = kernel(error_model="numpy")

#: Stands for log 0 where -inf would give NaN in a difference.
LOG_ZERO = -1.0e30

#: Patches the direct kernel scores side by side: enough SIMD vectors per step to hide the loop around them,
#: few enough for the scores of one rotation to stay in the first-level cache (measured: 16 is five times slower).
LANES = 64

#: Rows of weights summed in float32 before they join a float64 sum.
_FLUSH = 64


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

    Blocks as long as the window, a running sum down and one up each block; every window is the end of
    one block and the start of the next (van Herk 1992). Sums only grow, nothing is ever subtracted.
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


@_kernel
def direct_patches(patches, count, templates, bias, log_empty, margin, backprojection, weight_sum):
    """Patch E-step without transforms for small boxes: score, normalise, back-project, LANES patches at a time.

    patches (G, L, L, LANES), of which the first ``count`` are real and the rest padding; templates (K, L, L) over sigma^2,
    flipped on both axes; bias (K, S, S), S = 2L - 1, log prior minus energy
    at shift l - (L - 1); backprojection (K, B, B) and weight_sum (K, S, S) float64 gain the sums.
    Returns (log normalisers (G, LANES), empty masses (G, LANES)) in float64.
    """
    groups, length = patches.shape[0], patches.shape[1]
    rotations, side, frame = templates.shape[0], bias.shape[1], backprojection.shape[1]
    dtype, last = patches.dtype, margin + length - 1
    scores = np.empty((rotations, side, side, LANES), dtype)
    weights = np.zeros((rotations, side, side, LANES), dtype)
    projected = np.zeros((rotations, frame, frame, LANES), dtype)
    peak, total, lane = np.empty(LANES, dtype), np.empty(LANES, dtype), np.empty(LANES, dtype)
    log_norm = np.empty((groups, LANES), np.float64)
    empty_mass = np.empty((groups, LANES), np.float64)
    for g in range(groups):
        peak[:] = log_empty
        for k in range(rotations):
            for r in range(side):
                for c in range(side):
                    scores[k, r, c, :] = bias[k, r, c]
            for i in range(length):
                for u in range(length):
                    for j in range(length):
                        pixels = patches[g, i, j]
                        for v in range(length):
                            factor = templates[k, u, v]
                            # shift l - (L - 1) = i - u'; unsigned: no test for negative indices
                            row = scores[k, np.uintp(i + u), np.uintp(j + v)]
                            for a in range(LANES):
                                row[a] += factor * pixels[a]
            for r in range(side):
                for c in range(side):
                    row = scores[k, r, c]
                    for a in range(LANES):
                        peak[a] = max(peak[a], row[a])
        for a in range(LANES):
            total[a] = exp(log_empty - peak[a])
        for k in range(rotations):
            for r in range(side):
                for c in range(side):
                    row = scores[k, r, c]
                    for a in range(LANES):
                        row[a] = exp(row[a] - peak[a])
                        total[a] += row[a]
        for a in range(LANES):
            log_norm[g, a] = peak[a] + np.log(np.float64(total[a]))
            empty_mass[g, a] = np.exp(np.float64(log_empty) - log_norm[g, a])
            total[a] = dtype.type(1) / total[a] if g * LANES + a < count else dtype.type(0)
        for k in range(rotations):
            for r in range(side):
                for c in range(side):
                    row, summed = scores[k, r, c], weights[k, r, c]
                    for a in range(LANES):
                        row[a] *= total[a]
                        summed[a] += row[a]
            for u in range(frame):
                for v in range(frame):
                    lane[:] = 0
                    for i in range(max(0, u - last), min(length, u - margin + length)):
                        for j in range(max(0, v - last), min(length, v - margin + length)):
                            weight = scores[k, np.uintp(i + last - u), np.uintp(j + last - v)]
                            pixels = patches[g, i, j]
                            for a in range(LANES):
                                lane[a] += weight[a] * pixels[a]
                    projected[k, u, v] += lane
    for k in range(rotations):
        for r in range(side):
            for c in range(side):
                weight_sum[k, r, c] += weights[k, r, c].astype(np.float64).sum()
        for u in range(frame):
            for v in range(frame):
                backprojection[k, u, v] += projected[k, u, v].astype(np.float64).sum()
    return log_norm, empty_mass
