"""Two-dimensional FFTs that never leave the cache: mixed-radix, in place, LANES at a time (see ``emitter``).

Stockham's self-sorting algorithm: stage i of radix r takes a length n = r m and a stride s (the product of the radices
before it) and moves cell q + s (p + m j) to q + s (r p + k), j and k < r, p < m, q < s. The first stage reads and the last
stage writes the data in place, so that columns need no copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit

from ....._base.numerics.kernels import kernel
from .emitter import CELL, LANES, RADICES
from .simd import butterfly, never_inline

_kernel = kernel(error_model="numpy")


@dataclass(frozen=True)
class Transform:
    """A length of :func:`transform`, with its radices and twiddle factors.

    Attributes:
        radices: radix of each stage.
        twiddles: (cosine, sine) pairs of the twiddle factors in the order of use, 1-D.
    """

    radices: np.ndarray
    twiddles: np.ndarray

    @property
    def length(self) -> int:
        """Length n of the transform."""
        return math.prod(self.radices.tolist())

    @classmethod
    @cache
    def of(cls, length: int, dtype: np.dtype) -> Transform:
        """The transform of this length, a product of RADICES."""
        radices, angles, rest = _radices(length), [], length
        for radix in radices:
            steps = np.outer(np.arange(rest // radix), np.arange(1, radix))
            angles.append(-2.0 * np.pi * steps.ravel() / rest)
            rest //= radix
        turn = np.concatenate(angles)
        return cls(np.array(radices), np.stack([np.cos(turn), np.sin(turn)], axis=1).ravel().astype(dtype))


def fast_length(least: int) -> int:
    """The cheapest length for a square of at least this side."""
    lengths = [n for n in range(max(2, least), 2 * least + 2) if relative_cost(n)]
    return min(lengths, key=lambda n: n * n * relative_cost(n))


def relative_cost(length: int) -> int:
    """Time per point of a transform of this length, in arbitrary units; 0 if the length is not supported."""
    # Measured: equal within a tenth for up to three stages of any radices; it grows with further stages.
    return 12 + len(_radices(length)) if _factors(length) else 0


def cells(*shape: int, dtype: np.dtype) -> np.ndarray:
    """1-D workspace of zero cells of this shape; it starts at a cache line."""
    size = math.prod(shape) * CELL
    raw = np.zeros(size + CELL, dtype)
    first = -raw.ctypes.data % (LANES * 4) // raw.itemsize
    return raw[first : first + size]


def _radices(length: int) -> tuple[int, ...]:
    """The factorisation of fewest stages and, among these, of the most even radices."""
    return min(_factors(length), key=lambda radices: (len(radices), sum(radices)))


@cache
def _factors(length: int) -> frozenset[tuple[int, ...]]:
    """Every ascending factorisation into RADICES."""
    if length == 1:
        return frozenset([()])
    return frozenset(
        tuple(sorted((radix, *rest)))
        for radix in RADICES
        if length % radix == 0
        for rest in _factors(length // radix)
    )


@njit(nogil=True, inline="always")
def _stage(radix, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first):
    for p in range(m):
        for q in range(s):
            butterfly(
                radix,
                source,
                start + step * (q + s * p),
                step * s * m,
                out,
                out_start + out_step * (q + s * radix * p),
                out_step * s,
                swap,
                twiddles,
                first + 2 * (radix - 1) * p,
            )


@_kernel
def _any_stage(radix, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first):
    if radix == 8:
        _stage(8, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first)
    elif radix == 7:
        _stage(7, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first)
    elif radix == 5:
        _stage(5, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first)
    elif radix == 4:
        _stage(4, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first)
    elif radix == 3:
        _stage(3, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first)
    else:
        _stage(2, source, start, step, out, out_start, out_step, m, s, swap, twiddles, first)


@_kernel
def transform(cells, start, step, work, swap, radices, twiddles):
    """Transform the cells ``start + step * j``, j < n, of a 1-D array in place; the inverse, times n, with ``swap = LANES``.

    work: 2 n cells of the same dtype; radices, twiddles: of the :class:`Transform` of length n.
    """
    never_inline()
    n = 1
    for radix in radices:
        n *= radix
    last, s, first, m = len(radices) - 1, 1, 0, n
    for i in range(len(radices)):
        m //= radices[i]
        here, there = ((i + 1) % 2) * n * CELL, (i % 2) * n * CELL
        source, out = cells if i == 0 else work, cells if i == last else work
        source_start, source_step = (start, step) if i == 0 else (here, CELL)
        out_start, out_step = (start, step) if i == last else (there, CELL)
        _any_stage(
            radices[i],
            source,
            source_start,
            source_step,
            out,
            out_start,
            out_step,
            m,
            s,
            swap,
            twiddles,
            first,
        )
        first += 2 * (radices[i] - 1) * m
        s *= radices[i]
