"""Patch E-step between pixels and statistics: correlation, posterior and back-projection of 2 LANES patches at a time.

Two patches form one complex image, and LANES of these lie side by side: ``a + i b`` correlated with a real template has the
scores of ``a`` as real part and those of ``b`` as imaginary part, and ``sum_m hat(M_m) conj(hat(w_m))`` over such pairs
has the back-projection of both as the real part of its inverse transform. No transform of real input is needed.

Rows have an odd number of cells (see ``lanes.emitter``), so that the cells of a column spread over the sets of the cache.
"""

from __future__ import annotations

import numpy as np

from ...._base.numerics.kernels import kernel
from .lanes.emitter import CELL, LANES
from .lanes.fft import transform
from .lanes.math import exp
from .lanes.simd import exponentiate, multiply, project, scale

_kernel = kernel(error_model="numpy")


@_kernel
def _load(pixels, length, first, pitch, image, work, radices, twiddles):
    """Spectrum of the patches ``first ..``, two in each lane; zeros after the last patch."""
    columns = pixels.shape[1] // length
    image[:] = 0
    for a in range(min(CELL, pixels.size // length**2 - first)):
        top, left = (first + a) // columns * length, (first + a) % columns * length
        for r in range(length):
            for c in range(length):
                image[(r * pitch + c) * CELL + a] = pixels[top + r, left + c]
    for r in range(length):
        transform(image, r * pitch * CELL, CELL, work, 0, radices, twiddles)
    for c in range(work.size // (2 * CELL)):
        transform(image, c * CELL, pitch * CELL, work, 0, radices, twiddles)


@_kernel
def _score(
    k, image, seen, masked, spectra, energies, bias, shown, pitch, out, work, radices, twiddles, peak, total
):
    """Poses of template k: each column of log-weights as exponentials, with their own ``peak`` and ``total``."""
    side, row, length = work.size // (2 * CELL), pitch * CELL, (shown.size + 1) // 2
    for r in range(side):
        table = 2 * side * (k * side + r)
        multiply(0, side, image, r * row, spectra, table, out, r * row)
        if masked:
            multiply(1, side, seen, r * row, energies, table, out, r * row)
        transform(out, r * row, CELL, work, LANES, radices, twiddles)
        out[r * row + length * CELL : r * row + (side - length + 1) * CELL] = 0
    for n in range(shown.size):
        column, at = shown[n] * CELL, k * shown.size + n
        transform(out, column, row, work, LANES, radices, twiddles)
        exponentiate(side, out, column, row, bias, at * side, peak, total, at * CELL)


@_kernel
def patch_statistics(
    pixels,
    valid,
    spectra,
    energies,
    bias,
    shown,
    log_empty,
    radices,
    twiddles,
    image,
    seen,
    maps,
    work,
    projected,
    covered,
    weight_sum,
):
    """Add up the statistics of patches (docs/model.md 3).

    Args:
        pixels: (rows L, columns L) of whole patches, taken row by row.
        valid: ones and zeros of the shape and dtype of the pixels, or no rows when all are valid.
        spectra: (K, N, N, 2) conjugate spectra of the templates over sigma^2 N^2, real and imaginary parts.
        energies: the same for minus the templates' energies per pixel; used if ``valid`` has rows.
        bias: (K, S, N) log prior (minus the energy if all pixels are valid) by column and row of the torus, -inf where there
            is no pose.
        shown: (S,) columns of the torus that hold poses, the same set as the rows.
        log_empty: log of the prior mass of the empty poses.
        radices: of the transform of length N.
        twiddles: of the transform of length N.
        image: workspace of R x P cells, zeros beyond N rows; R = N rounded up to LANES, P odd and at least R.
        seen: the same, used if ``valid`` has rows.
        maps: (1 to K, R P CELL) workspace: with fewer than K maps, maps beyond the first are recomputed.
        work: workspace of 2 N cells.
        projected: (K, N, R, 2) gains the spectra of the back-projections.
        covered: (K, N, R, 2) gains the spectra of the coverages, if ``valid`` has rows.
        weight_sum: (K, S, R) gains the weights by column and row.

    Returns:
        (sum of the log normalisers, sum of the empty masses), float64.
    """
    masked, dtype, length = valid.shape[0] > 0, pixels.dtype, (shown.size + 1) // 2
    count = pixels.size // length**2
    rotations, side, padded = projected.shape[0], projected.shape[1], projected.shape[2]
    pitch = padded + 1
    row = pitch * CELL
    peak, total = np.empty((2, rotations, shown.size, CELL), dtype)
    highest, norm = np.empty(CELL, dtype), np.empty(CELL, np.float64)
    log_sum, empty_sum = 0.0, 0.0
    for first in range(0, count, CELL):
        _load(pixels, length, first, pitch, image, work, radices, twiddles)
        if masked:
            _load(valid, length, first, pitch, seen, work, radices, twiddles)
        highest[:] = log_empty
        for k in range(rotations):
            out = maps[min(k, maps.shape[0] - 1)]
            _score(
                k,
                image,
                seen,
                masked,
                spectra,
                energies,
                bias,
                shown,
                pitch,
                out,
                work,
                radices,
                twiddles,
                peak,
                total,
            )
            for n in range(shown.size):
                for a in range(CELL):
                    highest[a] = max(highest[a], peak[k, n, a])
        for a in range(CELL):
            norm[a] = np.exp(np.float64(log_empty) - highest[a])
        for k in range(rotations):
            for n in range(shown.size):
                for a in range(CELL):
                    norm[a] += total[k, n, a] * exp(peak[k, n, a] - highest[a])
        for a in range(min(CELL, count - first)):
            log_norm = highest[a] + np.log(norm[a])
            log_sum += log_norm
            empty_sum += np.exp(log_empty - log_norm)
        for k in range(rotations):
            out = maps[min(k, maps.shape[0] - 1)]
            if maps.shape[0] < rotations and k >= maps.shape[0] - 1:
                _score(
                    k,
                    image,
                    seen,
                    masked,
                    spectra,
                    energies,
                    bias,
                    shown,
                    pitch,
                    out,
                    work,
                    radices,
                    twiddles,
                    peak,
                    total,
                )
            for n in range(shown.size):
                for a in range(CELL):
                    here = exp(peak[k, n, a] - highest[a]) / norm[a]
                    peak[k, n, a] = here if first + a < count else 0
                column, at = shown[n] * CELL, k * shown.size + n
                scale(padded, out, column, row, peak, at * CELL, weight_sum, at * padded)
                transform(out, column, row, work, 0, radices, twiddles)
            for r in range(side):
                transform(out, r * row, CELL, work, 0, radices, twiddles)
                place = 2 * padded * (k * side + r)
                project(padded, image, r * row, out, r * row, projected, place)
                if masked:
                    project(padded, seen, r * row, out, r * row, covered, place)
    return log_sum, empty_sum
