"""Operations on cells (see ``emitter``) for Numba kernels: a butterfly, products, sums, exponentials.

Arrays are C-contiguous and of one dtype; every index and step counts floats from the start of an array.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .emitter import CELL, INDEX, LANES, Complex, emitting


@intrinsic
def never_inline(typingctx):  # type: ignore[no-untyped-def]
    """Compile the calling function once, instead of inlining it at every call."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic(prefer_literal=True)
def butterfly(typingctx, radix, source, start, step, out, out_start, out_step, swap, twiddles, first):  # type: ignore[no-untyped-def]
    """One butterfly: ``radix`` cells of ``source``, ``step`` floats apart, to ``out``, times twiddle factors.

    source, out: 1-D float arrays; ``start`` and ``out_start`` index the first cell; ``twiddles`` holds (real, imaginary)
    factors of outputs 1 .. radix - 1 from index ``first``.
    """
    length, index = radix.literal_value, types.intp

    def body(emit, _, source, start, step, out, out_start, out_step, swap, twiddles, first):  # type: ignore[no-untyped-def]
        values = [emit.cell(source, emit.at(start, step, INDEX(j)), swap) for j in range(length)]
        for j, value in enumerate(emit.transform(values)):
            if j:
                factor = emit.number(twiddles, emit.builder.add(first, INDEX(2 * (j - 1))))
                value = emit.multiply(value, factor)
            emit.store_cell(value, out, emit.at(out_start, out_step, INDEX(j)), swap)

    signature = types.void(radix, source, index, index, out, index, index, index, twiddles, index)
    return signature, emitting(source.dtype, body)


@intrinsic(prefer_literal=True)
def multiply(typingctx, keep, count, image, start, table, first, out, out_start):  # type: ignore[no-untyped-def]
    """``out = keep * out + image * table`` for ``count`` neighbouring cells; one complex number of ``table`` per cell."""
    index = types.intp

    def body(emit, _, count, image, start, table, first, out, out_start):  # type: ignore[no-untyped-def]
        with cgutils.for_range(emit.builder, count) as loop:
            number = emit.number(table, emit.at(first, loop.index, INDEX(2)))
            value = emit.multiply(emit.cell(image, emit.at(start, loop.index, INDEX(CELL))), number)
            place = emit.at(out_start, loop.index, INDEX(CELL))
            if keep.literal_value:
                value = emit.add(emit.cell(out, place), value)
            emit.store_cell(value, out, place)

    signature = types.void(keep, index, image, index, table, index, out, index)
    return signature, emitting(image.dtype, body)


@intrinsic
def project(typingctx, count, image, start, weights, weights_start, total, first):  # type: ignore[no-untyped-def]
    """``total += sum over lanes of image conj(weights)`` for ``count`` cells; total as the table of :func:`multiply`."""
    index = types.intp

    def body(emit, count, image, start, weights, weights_start, total, first):  # type: ignore[no-untyped-def]
        blocks = emit.builder.udiv(count, INDEX(LANES // 2))
        with cgutils.for_range(emit.builder, blocks) as loop:
            products = []
            for j in range(LANES // 2):
                cell = emit.builder.add(
                    emit.builder.mul(loop.index, INDEX(CELL * LANES // 2)), INDEX(j * CELL)
                )
                a = emit.cell(image, emit.builder.add(start, cell))
                b = emit.cell(weights, emit.builder.add(weights_start, cell))
                products += emit.multiply_conjugate(a, b)
            place = emit.at(first, loop.index, INDEX(LANES))
            emit.store(emit.builder.fadd(emit.load(total, place), emit.sums(products)), total, place)

    return types.void(index, image, index, weights, index, total, index), emitting(image.dtype, body)


@intrinsic
def exponentiate(typingctx, count, cells, start, step, bias, first, peak, total, at):  # type: ignore[no-untyped-def]
    """``count`` cells of scores to ``e^(score + bias - peak)``.

    Lane by lane: ``peak[at ..]`` becomes the largest of score + bias, ``total[at ..]`` the sum of the results.
    """
    index = types.intp

    def body(emit, count, cells, start, step, bias, first, peak, total, at):  # type: ignore[no-untyped-def]
        builder = emit.builder
        lowest, none = emit.constant(-float("inf")), emit.constant(0.0)
        halves = [
            (
                INDEX(half),
                cgutils.alloca_once_value(builder, lowest),
                cgutils.alloca_once_value(builder, none),
            )
            for half in (0, LANES)
        ]
        with cgutils.for_range(builder, count) as loop:
            place, b = emit.at(start, loop.index, step), emit.broadcast(bias, builder.add(first, loop.index))
            for half, high, _ in halves:
                value = builder.fadd(emit.load(cells, builder.add(place, half)), b)
                builder.store(emit.larger(value, builder.load(high)), high)
        with cgutils.for_range(builder, count) as loop:
            place, b = emit.at(start, loop.index, step), emit.broadcast(bias, builder.add(first, loop.index))
            for half, high, sum_ in halves:
                value = builder.fadd(emit.load(cells, builder.add(place, half)), b)
                value = emit.exp(builder.fsub(value, builder.load(high)))
                emit.store(value, cells, builder.add(place, half))
                builder.store(builder.fadd(builder.load(sum_), value), sum_)
        for half, high, sum_ in halves:
            emit.store(builder.load(high), peak, builder.add(at, half))
            emit.store(builder.load(sum_), total, builder.add(at, half))

    return types.void(index, cells, index, index, bias, index, peak, total, index), emitting(
        cells.dtype, body
    )


@intrinsic
def scale(typingctx, count, cells, start, step, factor, at, sums, first):  # type: ignore[no-untyped-def]
    """``count`` cells times the cell ``factor[at ..]``, lane by lane; the sum over lanes of each cell is added to ``sums``."""
    index = types.intp

    def body(emit, count, cells, start, step, factor, at, sums, first):  # type: ignore[no-untyped-def]
        builder = emit.builder
        by = emit.cell(factor, at)
        with cgutils.for_range(builder, builder.udiv(count, INDEX(LANES))) as loop:
            rows = []
            for j in range(LANES):
                place = emit.at(start, builder.add(builder.mul(loop.index, INDEX(LANES)), INDEX(j)), step)
                value = Complex(
                    *(emit.product(a, b) for a, b in zip(emit.cell(cells, place), by, strict=True))
                )
                emit.store_cell(value, cells, place)
                rows.append(builder.fadd(*value))
            place = emit.at(first, loop.index, INDEX(LANES))
            emit.store(builder.fadd(emit.load(sums, place), emit.sums(rows)), sums, place)

    return types.void(index, cells, index, index, factor, index, sums, index), emitting(cells.dtype, body)


@intrinsic
def transpose(typingctx, source, start, step, out, out_start, out_step):  # type: ignore[no-untyped-def]
    """Lane i of cell j of ``out`` is lane j of cell i of ``source``, for LANES cells each."""
    index = types.intp

    def body(emit, source, start, step, out, out_start, out_step):  # type: ignore[no-untyped-def]
        builder, half = emit.builder, LANES // 2
        masks = [
            ir.Constant(
                ir.VectorType(ir.IntType(32), LANES), [n // 2 + first + n % 2 * LANES for n in range(LANES)]
            )
            for first in (0, half)
        ]
        for part in (INDEX(0), INDEX(LANES)):
            rows = [
                emit.load(source, builder.add(emit.at(start, INDEX(i), step), part)) for i in range(LANES)
            ]
            for _ in range(LANES.bit_length() - 1):  # that many perfect shuffles of rows and lanes
                rows = [
                    builder.shuffle_vector(a, b, mask)
                    for a, b in zip(rows[:half], rows[half:], strict=True)
                    for mask in masks
                ]
            for j, row in enumerate(rows):
                emit.store(row, out, builder.add(emit.at(out_start, INDEX(j), out_step), part))

    return types.void(source, index, index, out, index, index), emitting(source.dtype, body)


@intrinsic(prefer_literal=True)
def multiply_cells(typingctx, keep, count, image, start, table, first, out, out_start):  # type: ignore[no-untyped-def]
    """``out = keep * out + image * table`` for ``count`` neighbouring cells, lane by lane."""
    index = types.intp

    def body(emit, _, count, image, start, table, first, out, out_start):  # type: ignore[no-untyped-def]
        with cgutils.for_range(emit.builder, count) as loop:
            a, b, place = (emit.at(origin, loop.index, INDEX(CELL)) for origin in (start, first, out_start))
            value = emit.multiply(emit.cell(image, a), emit.cell(table, b))
            if keep.literal_value:
                value = emit.add(emit.cell(out, place), value)
            emit.store_cell(value, out, place)

    signature = types.void(keep, index, image, index, table, index, out, index)
    return signature, emitting(image.dtype, body)


@intrinsic
def project_cells(typingctx, count, image, start, weights, weights_start, total, first):  # type: ignore[no-untyped-def]
    """``total += image conj(weights)`` for ``count`` neighbouring cells, lane by lane."""
    index = types.intp

    def body(emit, count, image, start, weights, weights_start, total, first):  # type: ignore[no-untyped-def]
        with cgutils.for_range(emit.builder, count) as loop:
            a, b, place = (
                emit.at(origin, loop.index, INDEX(CELL)) for origin in (start, weights_start, first)
            )
            product = emit.multiply_conjugate(emit.cell(image, a), emit.cell(weights, b))
            emit.store_cell(emit.add(emit.cell(total, place), product), total, place)

    return types.void(index, image, index, weights, index, total, index), emitting(image.dtype, body)


@intrinsic
def fold_log_sum(typingctx, count, cells, start, step, offsets, k, peak, total, at):  # type: ignore[no-untyped-def]
    """Running log-sum-exp: ``peak + log(total)`` gains the scores plus ``offsets[k]``.

    ``count`` cells of scores ``step`` apart; neighbouring cells of peak and total from index ``at``.
    """
    index = types.intp

    def body(emit, count, cells, start, step, offsets, k, peak, total, at):  # type: ignore[no-untyped-def]
        builder, offset, one = emit.builder, emit.broadcast(offsets, k), emit.constant(1.0)
        with cgutils.for_range(builder, count) as loop:
            for half in (INDEX(0), INDEX(LANES)):
                place = builder.add(emit.at(at, loop.index, INDEX(CELL)), half)
                score = emit.load(cells, builder.add(emit.at(start, loop.index, step), half))
                value, high, sum_ = (
                    builder.fadd(score, offset),
                    emit.load(peak, place),
                    emit.load(total, place),
                )
                rises, difference = builder.fcmp_ordered(">", value, high), builder.fsub(value, high)
                shrink = emit.exp(builder.select(rises, builder.fneg(difference), difference))
                kept, shrunk = (builder.select(rises, *pair) for pair in ((one, sum_), (sum_, one)))
                emit.store(builder.select(rises, value, high), peak, place)
                emit.store(emit.sum(kept, emit.product(shrink, shrunk)), total, place)

    signature = types.void(index, cells, index, index, offsets, index, peak, total, index)
    return signature, emitting(cells.dtype, body)


@intrinsic
def weigh(typingctx, count, cells, start, step, offsets, k, log_norm, at, mass):  # type: ignore[no-untyped-def]
    """``count`` cells of scores to ``e^(score + offsets[k] - log_norm)``; the cell ``mass`` gains their sum.

    log_norm: neighbouring cells from index ``at``, infinite where there is no site.
    """
    index = types.intp

    def body(emit, count, cells, start, step, offsets, k, log_norm, at, mass):  # type: ignore[no-untyped-def]
        builder, offset = emit.builder, emit.broadcast(offsets, k)
        halves = [
            (half, cgutils.alloca_once_value(builder, emit.load(mass, half)))
            for half in (INDEX(0), INDEX(LANES))
        ]
        with cgutils.for_range(builder, count) as loop:
            for half, sum_ in halves:
                place = builder.add(emit.at(start, loop.index, step), half)
                norm = emit.load(log_norm, builder.add(emit.at(at, loop.index, INDEX(CELL)), half))
                value = emit.exp(builder.fsub(builder.fadd(emit.load(cells, place), offset), norm))
                emit.store(value, cells, place)
                builder.store(builder.fadd(builder.load(sum_), value), sum_)
        for half, sum_ in halves:
            emit.store(builder.load(sum_), mass, half)

    signature = types.void(index, cells, index, index, offsets, index, log_norm, index, mass)
    return signature, emitting(cells.dtype, body)
