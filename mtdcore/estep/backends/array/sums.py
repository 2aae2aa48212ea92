"""Sums over pixels and poses in array-API terms.

Every sum over pixels is one function, :func:`correlate`, on a torus with zeros around the image:

===================  ============================  ==================================
sum                  image                         kernels
===================  ============================  ==================================
scores of windows    pixels of a tile              templates
their statistics     the same, from the margin on  weights of the owned corners
scores of patches    patches                       templates, at negative shifts too
their statistics     patches                       weights of all shifts
===================  ============================  ==================================

The same sums with the validity of pixels as the image give energies of templates, and coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from array_api_compat import array_namespace
from scipy.fft import next_fast_len

from ...._base.typing import Array


def torus(shape: Sequence[int], zeros: Sequence[int]) -> tuple[int, ...]:
    """Sides of fast transforms, with room for ``zeros`` around an image along rows and columns."""
    return tuple(next_fast_len(n + zero, real=True) for n, zero in zip(shape, zeros, strict=True))


def correlate(
    image: Array,
    kernels: Array,
    firsts: Sequence[int],
    counts: Sequence[int],
    zeros: Sequence[int] = (0, 0),
    summed: bool = False,
) -> Array:
    """``sum_p image[p + s] kernel[p]`` for the shifts s from ``firsts`` on.

    Args:
        image: (..., h, w); zero elsewhere.
        kernels: (..., a, b), their leading axes broadcast against those of the image.
        firsts: first shift along rows and columns.
        counts: number of shifts along both.
        zeros: pixels by which a kernel at any of the shifts reaches beyond the image, along rows and columns.
        summed: add up the first axis.

    Returns:
        (..., *counts) array.
    """
    xp, axes = array_namespace(image), (-2, -1)
    sides = torus(image.shape[-2:], zeros)
    spectra = xp.fft.rfftn(image, s=sides, axes=axes) * xp.conj(xp.fft.rfftn(kernels, s=sides, axes=axes))
    found = xp.fft.irfftn(xp.sum(spectra, axis=0) if summed else spectra, s=sides, axes=axes)
    for axis, first, count in zip(axes, firsts, counts, strict=True):
        found = xp.roll(found, -first, axis=axis) if first < 0 else found
        start = max(first, 0)
        cut = [slice(None)] * found.ndim
        cut[axis] = slice(start, start + count)
        found = found[tuple(cut)]
    return found


def log_sum(values: Array, axes: int | tuple[int, ...]) -> Array:
    """Log of the sum of exponentials, axes kept."""
    xp = array_namespace(values)
    peak = xp.max(values, axis=axes, keepdims=True)
    return peak + xp.log(xp.sum(xp.exp(values - peak), axis=axes, keepdims=True))


def slide_log_sum(values: Array, reach: int) -> Array:
    """Log of the sum of exponentials over rows r - reach .. r + reach, in log2 steps: sums of 1, 2, 4, ... rows."""
    xp, (rows, columns) = array_namespace(values), values.shape
    beyond = xp.full((reach, columns), -math.inf, dtype=values.dtype, device=values.device)
    powers, size, first, total = xp.concat([beyond, values, beyond]), 1, 0, None
    for bit in reversed(f"{2 * reach + 1:b}"):
        if bit == "1":
            piece = powers[first : first + rows, ...]
            total = piece if total is None else xp.logaddexp(total, piece)
            first += size
        if 2 * size <= 2 * reach + 1:
            powers = xp.logaddexp(powers[:-size, ...], powers[size:, ...])
        size *= 2
    return total
