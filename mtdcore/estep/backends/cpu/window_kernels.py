"""Window E-step between pixels and statistics, in blocks that stay in the second-level cache (overlap-save).

Two blocks of pixels form one complex image ``a + i b``: correlated with a real template it has the scores of ``a`` as
real and those of ``b`` as imaginary part; back-projections of both add up in the real part of the inverse transform.

======================  =================================================================================
array                   layout, cells of LANES complex numbers (see ``lanes.emitter``)
======================  =================================================================================
``space``               rows y of P cells: lanes are LANES neighbouring columns x; P odd, at least N / LANES
spectrum                N / LANES bands of N cells: lanes are LANES neighbouring row frequencies, cells are
                        column frequencies
``log_norm``, ``peak``  for each band of columns, one cell per row
======================  =================================================================================

Columns are transformed in place; between the two passes squares of LANES x LANES are transposed in registers.

If copies differ in amplitude (docs/model.md 7), ``amplitudes`` holds v, 1 / (1 + v e) and v / (2 (1 + v e)) of each template; otherwise it
is empty. Scores then begin as gains g; minus half the energy e is in a ``second`` space if invalid pixels change it.
``space`` then receives weights times amplitudes, and ``second`` weights times their squares.
"""

from __future__ import annotations

from ...._base.numerics.kernels import kernel
from .kernels import LOG_ZERO
from .lanes.emitter import CELL, LANES
from .lanes.fft import transform
from .lanes.math import exp, log
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
    """One band of the spectrum from transformed columns, of which only ``bands`` bands are not zero."""
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
    """Scores of template k in ``bands`` bands of columns: the inverse transform without its pass along columns."""
    for band in range(side // LANES):
        at = band * side * CELL
        multiply_cells(0, side, image, at, templates[k], at, row, 0)
        if masked:
            multiply_cells(1, side, seen, at, energies[k], at, row, 0)
        transform(row, 0, CELL, work, LANES, radices, twiddles)
        for b in range(bands):
            transpose(row, b * LANES * CELL, CELL, space, band * LANES * step + b * CELL, step)


@_kernel
def _gains(
    k,
    image,
    seen,
    masked,
    templates,
    energies,
    amplitudes,
    row,
    space,
    second,
    step,
    bands,
    side,
    work,
    radices,
    twiddles,
):
    """Scores of template k in the form of :func:`_correlate`; if amplitudes differ, gains and energies in separate spaces."""
    apart = masked and amplitudes.size > 0
    _correlate(
        k,
        image,
        seen,
        masked and not apart,
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
    if apart:
        _correlate(
            k, seen, seen, False, energies, energies, row, second, step, bands, side, work, radices, twiddles
        )


@_kernel
def _log_ratios(count, k, space, second, start, step, masked, amplitudes):
    """Convert gains of ``count`` cells to log-likelihood ratios in place; terms of the template alone are in the offsets."""
    variance, slope, bend = amplitudes[k, 0], amplitudes[k, 1], amplitudes[k, 2]
    one = amplitudes.dtype.type(1)
    half = one / (one + one)
    for y in range(count):
        at = start + y * step
        gains, lost = space[at : at + CELL], second[at : at + CELL]
        if masked:
            for a in range(CELL):
                grown = one - (variance + variance) * lost[a]
                score = gains[a] + lost[a] + half * variance * gains[a] * gains[a]
                gains[a] = score / grown - half * log(grown)
        else:
            for a in range(CELL):
                gains[a] = gains[a] * (slope + bend * gains[a])


@_kernel
def _compare_band(b, count, k, masked, amplitudes, space, second, step, work, radices, twiddles):
    """Convert gains of one band of columns to log-likelihood ratios of copies that differ in amplitude."""
    if masked:
        transform(second, b * CELL, step, work, LANES, radices, twiddles)
    _log_ratios(count, k, space, second, b * CELL, step, masked, amplitudes)


@_kernel
def _weigh_amplitudes(
    count, k, space, second, start, step, masked, amplitudes, offsets, log_norm, at, paired, sums
):
    """Convert gains of ``count`` cells to weights times amplitudes and, if ``paired``, to weights times their squares in ``second``.

    The three cells of ``sums`` gain the weights, the weights times amplitudes, and the weights times squares.
    """
    variance, slope, bend, offset = amplitudes[k, 0], amplitudes[k, 1], amplitudes[k, 2], offsets[k]
    one = amplitudes.dtype.type(1)
    half = one / (one + one)
    mass, first, squares = sums[:CELL], sums[CELL : 2 * CELL], sums[2 * CELL : 3 * CELL]
    for y in range(count):
        here = start + y * step
        gains, norm = space[here : here + CELL], log_norm[at + y * CELL : at + (y + 1) * CELL]
        lost = second[here : here + CELL]
        for a in range(CELL):
            gain, shrink = gains[a], slope
            if masked:
                grown = one - (variance + variance) * lost[a]
                shrink = one / grown
                score = (gain + lost[a] + half * variance * gain * gain) * shrink - half * log(grown)
            else:
                score = gain * (slope + bend * gain)
            weight = exp(score + offset - norm[a])
            mean = shrink * (one + variance * gain)
            square = weight * (mean * mean + variance * shrink)
            weighed = weight * mean
            mass[a] += weight
            first[a] += weighed
            squares[a] += square
            gains[a] = weighed
            if paired:
                lost[a] = square


@_kernel
def score_blocks(
    image,
    seen,
    masked,
    templates,
    energies,
    amplitudes,
    offsets,
    valid,
    peak,
    total,
    space,
    second,
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
        energies: the same for minus half the templates' energies per pixel.
        amplitudes: (K, 3), or (0, 3) if all amplitudes are 1.
        offsets: (K,) added to the scores.
        valid: number of corners along an axis.
        peak: bands x ``valid`` cells.
        total: workspace like ``peak``.
        space: workspace, N rows.
        second: the same if amplitudes differ, else one cell.
        row: workspace of N cells.
        mass: unused; part of the workspace of :func:`project_blocks`.
        work: workspace of 2 N cells.
        radices: of the transform of length N.
        twiddles: of the transform of length N.
    """
    side = work.size // (2 * CELL)
    step, bands = (side // LANES | 1) * CELL, -(-valid // LANES)
    peak[:] = LOG_ZERO
    total[:] = 0
    for k in range(offsets.size):
        _gains(
            k,
            image,
            seen,
            masked,
            templates,
            energies,
            amplitudes,
            row,
            space,
            second,
            step,
            bands,
            side,
            work,
            radices,
            twiddles,
        )
        for b in range(bands):
            transform(space, b * CELL, step, work, LANES, radices, twiddles)
            if amplitudes.size:
                _compare_band(b, valid, k, masked, amplitudes, space, second, step, work, radices, twiddles)
            fold_log_sum(valid, space, b * CELL, step, offsets, k, peak, total, b * valid * CELL)
    for i in range(peak.size):
        peak[i] += log(total[i])


@_kernel
def _weigh_band(
    b,
    reach,
    k,
    masked,
    amplitudes,
    offsets,
    log_norm,
    mass,
    space,
    second,
    paired,
    sums,
    step,
    work,
    radices,
    twiddles,
):
    """Transform one band of scores along its columns and convert it to weights, which are added to ``sums``."""
    transform(space, b * CELL, step, work, LANES, radices, twiddles)
    mass[:] = 0
    first = b * reach * CELL
    if amplitudes.size:
        if masked:
            transform(second, b * CELL, step, work, LANES, radices, twiddles)
        _weigh_amplitudes(
            reach,
            k,
            space,
            second,
            b * CELL,
            step,
            masked,
            amplitudes,
            offsets,
            log_norm,
            first,
            paired,
            mass,
        )
    else:
        weigh(reach, space, b * CELL, step, offsets, k, log_norm, first, mass)
    for kind in range(mass.size // CELL):
        count = 0.0
        for a in range(CELL):
            count += mass[kind * CELL + a]
        sums[kind] += count


@_kernel
def weigh_blocks(
    k,
    image,
    seen,
    masked,
    templates,
    energies,
    amplitudes,
    offsets,
    log_norm,
    reach,
    space,
    second,
    row,
    mass,
    work,
    radices,
    twiddles,
    sums,
    alone,
):
    """Weights of template k in two blocks, left in ``space``, and in ``second``; see :func:`project_blocks`.

    ``alone``: the weights without factors of the amplitudes.
    """
    side = work.size // (2 * CELL)
    step, bands = (side // LANES | 1) * CELL, -(-reach // LANES)
    _gains(
        k,
        image,
        seen,
        masked,
        templates,
        energies,
        amplitudes,
        row,
        space,
        second,
        step,
        bands,
        side,
        work,
        radices,
        twiddles,
    )
    for b in range(bands):
        if alone and amplitudes.size:
            transform(space, b * CELL, step, work, LANES, radices, twiddles)
            _compare_band(b, reach, k, masked, amplitudes, space, second, step, work, radices, twiddles)
            weigh(reach, space, b * CELL, step, offsets, k, log_norm, b * reach * CELL, mass)
            continue
        _weigh_band(
            b,
            reach,
            k,
            masked,
            amplitudes,
            offsets,
            log_norm,
            mass,
            space,
            second,
            amplitudes.size > 0,
            sums,
            step,
            work,
            radices,
            twiddles,
        )


@_kernel
def _spread(space, b, reach, step, side, work, radices, twiddles):
    """Transform one band of weights, zero beyond the first ``reach`` rows, along its columns."""
    for y in range(reach, side):
        space[y * step + b * CELL : y * step + (b + 1) * CELL] = 0
    transform(space, b * CELL, step, work, 0, radices, twiddles)


@_kernel
def project_blocks(
    k,
    image,
    seen,
    masked,
    templates,
    energies,
    amplitudes,
    offsets,
    log_norm,
    reach,
    space,
    second,
    row,
    mass,
    work,
    radices,
    twiddles,
    sums,
    projected,
    covered,
):
    """Back-projection of two blocks by their weights of template k.

    ``log_norm`` holds bands x ``reach`` cells of log(1 + S), infinite where there is no owned corner; the first ``reach``
    rows and columns of a block hold owned corners. ``mass`` is a workspace of one cell for each of the (1,) float64 ``sums``, or (3,) if
    amplitudes differ; ``sums`` gain the weights, the weights times amplitudes, and the weights times their squares. ``projected`` (N^2 / LANES cells)
    gains the spectrum of the back-projection, ``covered`` that of the coverage unless it is empty. The rest is as in
    :func:`score_blocks`; ``seen`` is also used for the coverage.
    """
    side = work.size // (2 * CELL)
    step, bands = (side // LANES | 1) * CELL, -(-reach // LANES)
    paired = amplitudes.size > 0 and covered.size > 0
    _gains(
        k,
        image,
        seen,
        masked,
        templates,
        energies,
        amplitudes,
        row,
        space,
        second,
        step,
        bands,
        side,
        work,
        radices,
        twiddles,
    )
    for b in range(bands):
        _weigh_band(
            b,
            reach,
            k,
            masked,
            amplitudes,
            offsets,
            log_norm,
            mass,
            space,
            second,
            paired,
            sums,
            step,
            work,
            radices,
            twiddles,
        )
        _spread(space, b, reach, step, side, work, radices, twiddles)
        if paired:
            _spread(second, b, reach, step, side, work, radices, twiddles)
    for band in range(side // LANES):
        _band(space, step, band, bands, row, 0, side, work, radices, twiddles)
        at = band * side * CELL
        project_cells(side, image, at, row, 0, projected, at)
        if paired:
            _band(second, step, band, bands, row, 0, side, work, radices, twiddles)
        if covered.size:
            project_cells(side, seen, at, row, 0, covered, at)


@_kernel
def block_image(spectrum, space, work, radices, twiddles):
    """Inverse transform, times N^2, of a spectrum to ``space``; the spectrum is overwritten."""
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
