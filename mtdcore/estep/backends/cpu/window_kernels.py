"""Window E-step between pixels and statistics, in blocks that stay in the second-level cache (overlap-save).

Two blocks of pixels are one complex image ``a + i b``: correlated with a real template it has the scores of ``a`` as
real and those of ``b`` as imaginary part; back-projections of both add up in the real part of the inverse transform.

======================  =================================================================================
array                   layout, cells of LANES complex numbers (see ``lanes.emitter``)
======================  =================================================================================
``space``               rows y of P cells: lanes are LANES neighbouring columns x; P odd, at least N / LANES
spectrum                N / LANES bands of N cells: lanes are LANES neighbouring row frequencies, cells are
                        column frequencies
``log_norm``, ``peak``  for each band of columns, one cell per row
======================  =================================================================================

Columns are transformed where they lie; between the two passes squares of LANES x LANES are transposed in registers.
"""

from __future__ import annotations

from ...._base.numerics.kernels import kernel
from .kernels import LOG_ZERO
from .lanes.emitter import CELL, LANES
from .lanes.fft import transform
from .lanes.math import log
from .lanes.simd import fold_log_sum, multiply_cells, project_cells, transpose, weigh

_kernel = kernel(error_model="numpy")


@_kernel
def _load(pixels, tops, lefts, space, step, side):
    """Two blocks of pixels, zeros beyond the edges of the tile."""
    for half in range(2):
        top, left = tops[half], lefts[half]
        for y in range(side):
            inside = 0 <= top + y < pixels.shape[0]
            for x in range(0, side, LANES):
                at = y * step + 2 * x + half * LANES
                cell = space[at : at + LANES]
                if inside and left + x >= 0 and left + x + LANES <= pixels.shape[1]:
                    cell[:] = pixels[top + y, left + x : left + x + LANES]
                else:
                    for a in range(LANES):
                        c = left + x + a
                        cell[a] = pixels[top + y, c] if inside and 0 <= c < pixels.shape[1] else 0


@_kernel
def _band(space, step, band, bands, out, start, side, work, radices, twiddles):
    """One band of the spectrum from columns already transformed, of which only ``bands`` bands are not zero."""
    for b in range(bands):
        transpose(space, band * LANES * step + b * CELL, step, out, start + b * LANES * CELL, CELL)
    out[start + bands * LANES * CELL : start + side * CELL] = 0
    transform(out, start, CELL, work, 0, radices, twiddles)


@_kernel
def block_spectrum(pixels, tops, lefts, space, out, work, radices, twiddles):
    """Spectrum of two blocks of N x N pixels, their first pixels at (tops, lefts), to ``out``."""
    side = work.size // (2 * CELL)
    bands = side // LANES
    step = (bands | 1) * CELL
    _load(pixels, tops, lefts, space, step, side)
    for b in range(bands):
        transform(space, b * CELL, step, work, 0, radices, twiddles)
    for band in range(bands):
        _band(space, step, band, bands, out, band * side * CELL, side, work, radices, twiddles)


@_kernel
def _correlate(
    k, image, seen, masked, templates, energies, row, space, step, bands, side, work, radices, twiddles
):
    """Scores of template k in ``bands`` bands of columns: the inverse transform but for its pass along columns."""
    for band in range(side // LANES):
        at = band * side * CELL
        multiply_cells(0, side, image, at, templates[k], at, row, 0)
        if masked:
            multiply_cells(1, side, seen, at, energies[k], at, row, 0)
        transform(row, 0, CELL, work, LANES, radices, twiddles)
        for b in range(bands):
            transpose(row, b * LANES * CELL, CELL, space, band * LANES * step + b * CELL, step)


@_kernel
def score_blocks(
    image,
    seen,
    masked,
    templates,
    energies,
    offsets,
    valid,
    peak,
    total,
    space,
    row,
    mass,
    work,
    radices,
    twiddles,
):
    """Log of the summed odds of all templates at the first ``valid`` x ``valid`` corners of two blocks, to ``peak``.

    Args:
        image: spectrum of the two blocks.
        seen: spectrum of their validity, used when ``masked``.
        masked: whether template energies depend on invalid pixels.
        templates: (K, 2 N^2) conjugate spectra of the templates over sigma^2 N^2.
        energies: the same for minus the templates' energies per pixel.
        offsets: (K,) to add to the scores.
        valid: number of corners along an axis.
        peak: bands x ``valid`` cells.
        total: workspace like ``peak``.
        space: workspace, N rows.
        row: workspace of N cells.
        mass: unused: the workspace is that of :func:`project_blocks`.
        work: workspace of 2 N cells.
        radices: of the transform of length N.
        twiddles: of the same.
    """
    side = work.size // (2 * CELL)
    step, bands = (side // LANES | 1) * CELL, -(-valid // LANES)
    peak[:] = LOG_ZERO
    total[:] = 0
    for k in range(offsets.size):
        _correlate(
            k,
            image,
            seen,
            masked,
            templates,
            energies,
            row,
            space,
            step,
            bands,
            side,
            work,
            radices,
            twiddles,
        )
        for b in range(bands):
            transform(space, b * CELL, step, work, LANES, radices, twiddles)
            fold_log_sum(valid, space, b * CELL, step, offsets, k, peak, total, b * valid * CELL)
    for i in range(peak.size):
        peak[i] += log(total[i])


@_kernel
def _weigh_band(b, reach, k, offsets, log_norm, mass, space, step, work, radices, twiddles):
    """Scores of one band of columns, ready but for the transform along them, to weights; returns their sum."""
    transform(space, b * CELL, step, work, LANES, radices, twiddles)
    mass[:] = 0
    weigh(reach, space, b * CELL, step, offsets, k, log_norm, b * reach * CELL, mass)
    count = 0.0
    for a in range(CELL):
        count += mass[a]
    return count


@_kernel
def weigh_blocks(
    k,
    image,
    seen,
    masked,
    templates,
    energies,
    offsets,
    log_norm,
    reach,
    space,
    row,
    mass,
    work,
    radices,
    twiddles,
):
    """Weights of template k in two blocks, left in ``space``; see :func:`project_blocks`."""
    side = work.size // (2 * CELL)
    step, bands = (side // LANES | 1) * CELL, -(-reach // LANES)
    _correlate(
        k, image, seen, masked, templates, energies, row, space, step, bands, side, work, radices, twiddles
    )
    for b in range(bands):
        _weigh_band(b, reach, k, offsets, log_norm, mass, space, step, work, radices, twiddles)


@_kernel
def project_blocks(
    k,
    image,
    seen,
    masked,
    templates,
    energies,
    offsets,
    log_norm,
    reach,
    space,
    row,
    mass,
    work,
    radices,
    twiddles,
    projected,
    covered,
):
    """Back-projection of two blocks by their weights of template k, which are summed and returned.

    ``log_norm`` holds bands x ``reach`` cells of log(1 + S), infinite where there is no owned corner; the first ``reach``
    rows and columns of a block hold such corners. ``mass`` is a workspace of one cell. ``projected`` (N^2 / LANES cells)
    gains the spectrum of the back-projection, ``covered`` that of the coverage unless it is empty. The rest is as in
    :func:`score_blocks`; ``seen`` is also used for the coverage.
    """
    side = work.size // (2 * CELL)
    step, bands = (side // LANES | 1) * CELL, -(-reach // LANES)
    count = 0.0
    _correlate(
        k, image, seen, masked, templates, energies, row, space, step, bands, side, work, radices, twiddles
    )
    for b in range(bands):
        count += _weigh_band(b, reach, k, offsets, log_norm, mass, space, step, work, radices, twiddles)
        for y in range(reach, side):
            space[y * step + b * CELL : y * step + (b + 1) * CELL] = 0
        transform(space, b * CELL, step, work, 0, radices, twiddles)
    for band in range(side // LANES):
        _band(space, step, band, bands, row, 0, side, work, radices, twiddles)
        at = band * side * CELL
        project_cells(side, image, at, row, 0, projected, at)
        if covered.size:
            project_cells(side, seen, at, row, 0, covered, at)
    return count


@_kernel
def block_image(spectrum, space, work, radices, twiddles):
    """Inverse transform, times N^2, of a spectrum, which is consumed, to ``space``."""
    side = work.size // (2 * CELL)
    bands, step = side // LANES, (side // LANES | 1) * CELL
    for band in range(bands):
        transform(spectrum, band * side * CELL, CELL, work, LANES, radices, twiddles)
        for b in range(bands):
            transpose(
                spectrum, (band * side + b * LANES) * CELL, CELL, space, band * LANES * step + b * CELL, step
            )
    for b in range(bands):
        transform(space, b * CELL, step, work, LANES, radices, twiddles)
