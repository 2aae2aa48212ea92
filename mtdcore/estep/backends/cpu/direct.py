"""Patch E-step without transforms for small boxes: sums over the pixels of LANES patches side by side.

The code is generated for one box size and margin, so that sums stay in registers: products of every pixel of a patch row
with every pixel of a template row are added to a row of scores, and products of weights and pixels to a row of the back-projection.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ...._base.numerics.kernels import kernel
from .lanes.emitter import INDEX, LANES, emitting

#: Groups of patches that are summed in the precision of the pixels before they are added to float64 sums.
_FLUSH = 64


@intrinsic(prefer_literal=True)
def correlate_row(typingctx, length, row, pixels, patch, templates, template, bias, first, scores, out, peak):  # type: ignore[no-untyped-def]
    """One row of scores: ``bias + sum over i, j of template[row - i, c - j] patch[i, j]`` for c < 2 L - 1.

    pixels: vectors of LANES floats, L x L from ``patch``; templates: flipped on both axes, L x L from ``template``; bias: row from
    ``first``; scores: row of vectors from ``out``; peak: vector that they raise.
    """
    side, index = length.literal_value, types.intp
    shifts = 2 * side - 1

    def body(emit, _, row, pixels, patch, templates, template, bias, first, scores, out, peak):  # type: ignore[no-untyped-def]
        builder = emit.builder
        sums = [
            cgutils.alloca_once_value(builder, emit.broadcast(bias, builder.add(first, INDEX(c))))
            for c in range(shifts)
        ]
        low = emit.clipped(builder.sub(row, INDEX(side - 1)), 0, side)
        high = emit.clipped(builder.add(row, INDEX(1)), 0, side)
        with cgutils.for_range_slice(builder, low, high, INDEX(1), inc=True) as (i, _count):
            line = emit.at(patch, i, INDEX(side * LANES))
            factors = emit.at(template, builder.sub(row, i), INDEX(side))
            for j in range(side):
                pixel = emit.load(pixels, builder.add(line, INDEX(j * LANES)))
                for v in range(side):
                    factor = emit.broadcast(templates, builder.add(factors, INDEX(v)))
                    total = emit.sum(builder.load(sums[j + v]), emit.product(factor, pixel))
                    builder.store(total, sums[j + v])
        highest = emit.load(peak, INDEX(0))
        for c in range(shifts):
            value = builder.load(sums[c])
            emit.store(value, scores, builder.add(out, INDEX(c * LANES)))
            highest = emit.larger(value, highest)
        emit.store(highest, peak, INDEX(0))

    signature = types.void(length, index, pixels, index, templates, index, bias, index, scores, index, peak)
    return signature, emitting(pixels.dtype, body)


@intrinsic(prefer_literal=True)
def backproject_row(typingctx, length, margin, row, pixels, patch, weights, start, projected, out):  # type: ignore[no-untyped-def]
    """One row u of the frame: ``out[v] += sum over i, j of weights[i - u + L - 1, j - v + L - 1] patch[i, j]``.

    u = row - margin and v = -margin .. L + margin - 1; weights: vectors, (2 L - 1) x (2 L - 1) from ``start``; projected:
    row of L + 2 margin vectors from ``out``.
    """
    side, m, index = length.literal_value, margin.literal_value, types.intp
    shifts = 2 * side - 1

    def body(emit, _, __, row, pixels, patch, weights, start, projected, out):  # type: ignore[no-untyped-def]
        builder = emit.builder
        places = [builder.add(out, INDEX(v * LANES)) for v in range(side + 2 * m)]
        sums = [cgutils.alloca_once_value(builder, emit.load(projected, place)) for place in places]
        below = builder.sub(row, INDEX(m + side - 1))  # i of the first row of weights
        low = emit.clipped(below, 0, side)
        high = emit.clipped(builder.add(below, INDEX(shifts)), 0, side)
        with cgutils.for_range_slice(builder, low, high, INDEX(1), inc=True) as (i, _count):
            line = emit.at(patch, i, INDEX(side * LANES))
            weight_row = emit.at(start, builder.sub(i, below), INDEX(shifts * LANES))
            for j in range(side):
                pixel = emit.load(pixels, builder.add(line, INDEX(j * LANES)))
                for v in range(side + 2 * m):
                    shift = j - (v - m) + side - 1
                    if 0 <= shift < shifts:
                        weight = emit.load(weights, builder.add(weight_row, INDEX(shift * LANES)))
                        builder.store(emit.sum(builder.load(sums[v]), emit.product(weight, pixel)), sums[v])
        for place, total in zip(places, sums, strict=True):
            emit.store(builder.load(total), projected, place)

    signature = types.void(length, margin, index, pixels, index, weights, index, projected, index)
    return signature, emitting(pixels.dtype, body)


@intrinsic
def exponentials(typingctx, count, scores, peak, total):  # type: ignore[no-untyped-def]
    """``count`` vectors of scores to ``e^(score - peak)``; the vector ``total`` gains their sum."""
    index = types.intp

    def body(emit, count, scores, peak, total):  # type: ignore[no-untyped-def]
        builder, highest = emit.builder, emit.load(peak, INDEX(0))
        sum_ = cgutils.alloca_once_value(builder, emit.load(total, INDEX(0)))
        with cgutils.for_range(builder, count) as loop:
            place = builder.mul(loop.index, INDEX(LANES))
            value = emit.exp(builder.fsub(emit.load(scores, place), highest))
            emit.store(value, scores, place)
            builder.store(builder.fadd(builder.load(sum_), value), sum_)
        emit.store(builder.load(sum_), total, INDEX(0))

    return types.void(index, scores, peak, total), emitting(scores.dtype, body)


@intrinsic
def accumulate(typingctx, count, weights, factor, total):  # type: ignore[no-untyped-def]
    """``total += factor * weights`` for ``count`` vectors, ``factor`` one vector."""
    index = types.intp

    def body(emit, count, weights, factor, total):  # type: ignore[no-untyped-def]
        by = emit.load(factor, INDEX(0))
        with cgutils.for_range(emit.builder, count) as loop:
            place = emit.builder.mul(loop.index, INDEX(LANES))
            value = emit.sum(emit.load(total, place), emit.product(by, emit.load(weights, place)))
            emit.store(value, total, place)

    return types.void(index, weights, factor, total), emitting(weights.dtype, body)


@cache
def direct_patches(length: int, margin: int) -> Any:
    """Patch E-step for one box size and margin: ``(pixels, templates, bias, log_empty, projected, weight_sum)``.

    pixels (rows L, columns L) of whole patches, taken row by row; templates (K, L, L) over sigma^2, flipped on both axes;
    bias (K, S, S), S = 2 L - 1: log prior minus energy at shift l - (L - 1); log_empty: log of the prior mass of the empty
    poses; projected (K, B, B) and weight_sum (K, S, S), float64, gain the sums. Returns (sum of the log normalisers, sum
    of the empty masses).
    """
    shifts, frame, size = 2 * length - 1, length + 2 * margin, length**2

    @kernel(error_model="numpy")
    def patch_statistics(pixels, templates, bias, log_empty, projected, weight_sum):  # type: ignore[no-untyped-def]
        count, columns = pixels.size // size, pixels.shape[1] // length
        rotations, dtype = templates.shape[0], pixels.dtype
        patch = np.empty((size, LANES), dtype)
        scores = np.empty((rotations, shifts, shifts, LANES), dtype)
        weights = np.zeros(scores.shape, dtype)
        sums = np.zeros((rotations, frame, frame, LANES), dtype)
        peak, total, factor = np.empty(LANES, dtype), np.empty(LANES, dtype), np.empty(LANES, dtype)
        log_sum, empty_sum = 0.0, 0.0
        for first in range(0, count, LANES):
            here = min(LANES, count - first)
            patch[:] = 0
            for a in range(here):
                top, left = (first + a) // columns * length, (first + a) % columns * length
                for r in range(length):
                    for c in range(length):
                        patch[r * length + c, a] = pixels[top + r, left + c]
            peak[:] = log_empty
            for k in range(rotations):
                for row in range(shifts):
                    at = (k * shifts + row) * shifts
                    correlate_row(
                        length, row, patch, 0, templates, k * size, bias, at, scores, at * LANES, peak
                    )
            total[:] = 0
            exponentials(rotations * shifts * shifts, scores, peak, total)
            for a in range(LANES):
                whole = np.float64(total[a]) + np.exp(np.float64(log_empty) - np.float64(peak[a]))
                factor[a] = 1.0 / whole if a < here else 0.0
                if a < here:
                    log_norm = np.float64(peak[a]) + np.log(whole)
                    log_sum += log_norm
                    empty_sum += np.exp(np.float64(log_empty) - log_norm)
            accumulate(rotations * shifts * shifts, scores, factor, weights)
            for i in range(size):
                for a in range(LANES):
                    patch[i, a] *= factor[a]
            for k in range(rotations):
                for row in range(frame):
                    at = (k * frame + row) * frame
                    start = k * shifts * shifts * LANES
                    backproject_row(length, margin, row, patch, 0, scores, start, sums, at * LANES)
            if first // LANES % _FLUSH == _FLUSH - 1 or first + LANES >= count:
                for k in range(rotations):
                    for r in range(frame):
                        for c in range(frame):
                            for a in range(LANES):
                                projected[k, r, c] += sums[k, r, c, a]
                    for r in range(shifts):
                        for c in range(shifts):
                            for a in range(LANES):
                                weight_sum[k, r, c] += weights[k, r, c, a]
                sums[:] = 0
                weights[:] = 0
        return log_sum, empty_sum

    return patch_statistics
