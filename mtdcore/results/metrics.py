"""Errors of an estimate against the truth, and agreement of two half-set estimates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .._base.typing import Lengths, pair, plain
from ..errors import ParameterError
from ..model.rotations import Rotations, rotate, usual_rotations
from ..model.shifts import moved

#: First and last step of the search for fractions of a pixel.
_FRACTION, _FINEST = 0.25, 0.01

#: Correlation at the resolution limit: of two halves of the data (Rosenthal and Henderson 2003: 0.143), and of all data with the truth.
HALF_SETS_LIMIT, TRUTH_LIMIT = 1 / 7, 0.5


@dataclass(frozen=True)
class Alignment:
    """The rotation and shift that bring an estimate, or its mirror image, closest to the truth.

    Attributes:
        image: (L, L) float64, the estimate mirrored, rotated and then shifted, with zeros shifted in.
        rotation: index k of the rotation, angle ``2 pi k / K`` counter-clockwise.
        shift: (rows, columns) by which the rotated estimate was moved down and to the right, whole pixels unless fractions were asked for.
        error: relative error of ``image``.
        mirrored: whether the columns of the estimate were put in reverse order first.
    """

    image: np.ndarray
    rotation: int
    shift: tuple[float, float]
    error: float
    mirrored: bool = False


def relative_error(
    estimate: np.ndarray,
    truth: np.ndarray,
    rotations: int | None = None,
    max_shift: Lengths = 0,
    mirror: bool = False,
    fractions: bool = False,
) -> float:
    """``min ||S R_k estimate - truth|| / ||truth||`` over rotations and shifts (docs/model.md 1).

    Args:
        estimate: (L, L) real image, or (h, w).
        truth: of the same shape, not all zero.
        rotations: number K of equally spaced rotations that leave the problem unchanged; None: 4, or 1 of images that are no
            squares.
        max_shift: largest integer shift S along rows and columns (one number, or one for each), zeros shifted in. 0 gives the
            paper's error E, :func:`forgiven_shift` the gauge-free error E_s.
        mirror: whether a mirror image counts as the same, as it does where copies may be mirrored.
        fractions: whether the best whole shift may be off by fractions of a pixel (band-limited), as it may where copies lie
            between pixels: the error E_f. Found to a hundredth of a pixel.

    Returns:
        The error; NaN when the estimate holds a NaN.

    Raises:
        ParameterError: shapes that differ, a blank truth, rotations < 1 or that leave the box, max_shift < 0.
    """
    return align(estimate, truth, rotations, max_shift, mirror, fractions).error


@overload
def forgiven_shift(box_size: int) -> int: ...
@overload
def forgiven_shift(box_size: Lengths) -> Lengths: ...


def forgiven_shift(box_size: Lengths) -> Lengths:
    """Pixels of shift that the gauge-free error E_s (docs/model.md 1) forgives: 6 at a box of 28, in proportion.

    In a box that is no square, along its longer side alone.
    """
    longest = max(pair(box_size))
    rows, columns = (round(6 / 28 * n) if n == longest else 0 for n in pair(box_size))
    return plain(rows, columns)


def align(
    estimate: np.ndarray,
    truth: np.ndarray,
    rotations: int | None = None,
    max_shift: Lengths = 0,
    mirror: bool = False,
    fractions: bool = False,
) -> Alignment:
    """The minimiser of :func:`relative_error`; arguments and errors are the same."""
    estimate, truth = _pair(estimate, truth)
    norm = float(np.linalg.norm(truth))
    if norm == 0:
        raise ParameterError("a relative error needs a truth that is not blank; every pixel of it is 0.")
    down, across = pair(max_shift)
    if min(down, across) < 0:
        raise ParameterError(f"max_shift must be 0 or a positive number of pixels; got {max_shift}.")
    count = usual_rotations(truth.shape) if rotations is None else rotations
    angles = Rotations(count, plain(*truth.shape)).angles
    if fractions:
        whole = align(estimate, truth, count, max_shift, mirror)
        turned = rotate(estimate[:, ::-1] if whole.mirrored else estimate, angles)
        return _between(turned[whole.rotation], truth, whole)
    if mirror:
        here, there = (align(image, truth, count, max_shift) for image in (estimate, estimate[:, ::-1]))
        return replace(there, mirrored=True) if there.error < here.error else here
    rotated = rotate(estimate, angles)
    best = Alignment(rotated[0], 0, (0, 0), math.nan)
    for k, image in enumerate(rotated):
        frames = sliding_window_view(np.pad(image, [(down, down), (across, across)]), truth.shape)
        errors = np.linalg.norm(frames - truth, axis=(2, 3)) / norm
        row, col = np.unravel_index(np.argmin(errors), errors.shape)
        if not best.error <= errors[row, col]:
            shift = (down - int(row), across - int(col))
            best = Alignment(frames[row, col].copy(), k, shift, float(errors[row, col]))
    return best


def free_correlation(
    estimate: np.ndarray, truth: np.ndarray, rotations: int | None = None, max_shift: Lengths = 0
) -> tuple[float, float]:
    """The largest correlation of an estimate with a truth in any units, over the rotations and shifts of :func:`relative_error`.

    Args:
        estimate: (L, L) real image, or (h, w), with background 0.
        truth: of the same shape, not constant; neither its units nor its offset matter.
        rotations: as in :func:`relative_error`.
        max_shift: as in :func:`relative_error`.

    Returns:
        Pearson's r, and the units of the estimate in one of the truth there: the slope of its regression on the truth.

    Raises:
        ParameterError: the shapes differ, or the truth is constant.
    """
    estimate, truth = _pair(estimate, truth)
    centred = truth - truth.mean()
    norm = float(np.linalg.norm(centred))
    if norm <= 1e-12 * float(np.linalg.norm(truth)):
        raise ParameterError("a correlation needs a truth that is not the same everywhere.")
    down, across = pair(max_shift)
    count = usual_rotations(truth.shape) if rotations is None else rotations
    best, scale = -math.inf, math.nan
    for image in rotate(estimate, Rotations(count, plain(*truth.shape)).angles):
        frames = sliding_window_view(np.pad(image, [(down, down), (across, across)]), truth.shape)
        shared = np.einsum("ijkl,kl->ij", frames, centred, optimize=True)
        spread = np.std(frames, axis=(2, 3)) * math.sqrt(truth.size)
        found = np.divide(shared, spread * norm, out=np.zeros_like(shared), where=spread > 0.0)
        at = np.unravel_index(np.argmax(found), found.shape)
        if found[at] > best:
            best, scale = float(found[at]), float(shared[at]) / norm**2
    return best, scale


def _between(turned: np.ndarray, truth: np.ndarray, best: Alignment) -> Alignment:
    """The alignment with the shift of an (h, w) turned estimate refined by a pattern search (Hooke and Jeeves 1961)."""
    step, around = _FRACTION, np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j])
    while step > _FINEST:
        shifts = np.array(best.shift) + step * around
        images = moved(np.repeat(turned[None], len(shifts), axis=0), shifts)
        errors = np.linalg.norm(images - truth, axis=(1, 2)) / np.linalg.norm(truth)
        least = int(np.argmin(errors))
        if errors[least] < best.error:
            shift = (float(shifts[least, 0]), float(shifts[least, 1]))
            best = replace(best, image=images[least], shift=shift, error=float(errors[least]))
        else:
            step /= 2
    return best


def correlation(a: np.ndarray, b: np.ndarray, max_shift: Lengths = 0) -> float:
    """Largest Pearson correlation of two images over integer shifts, each on the pixels that overlap.

    Args:
        a: (L, L) real image, or (h, w).
        b: of the same shape.
        max_shift: largest shift along rows and columns (one number, or one for each), below the sides.

    Returns:
        A number in [-1, 1]; 0 where an overlap is constant.
    """
    a, b = _pair(a, b)
    if not all(0 <= shift < n for shift, n in zip(pair(max_shift), a.shape, strict=True)):
        raise ParameterError(
            f"max_shift must lie in 0..{min(a.shape) - 1} for images of side {plain(*a.shape)}; got {max_shift}."
        )
    return max(_pearson(a[ours], b[theirs]) for ours, theirs in _overlaps(a.shape, pair(max_shift)))


@dataclass(frozen=True)
class RingCorrelation:
    """A Fourier ring correlation curve.

    Attributes:
        frequency: (L // 2,) ring radii 1/L, 2/L, ... in cycles per pixel, up to the Nyquist frequency.
        correlation: (L // 2,) correlation of the two spectra on each ring; 0 where one has no power.
    """

    frequency: np.ndarray
    correlation: np.ndarray

    def resolution(self, threshold: float = HALF_SETS_LIMIT) -> float:
        """Period in pixels at which the curve first falls below the threshold, by linear interpolation.

        The default is for two halves of the data; beside the truth, :data:`TRUTH_LIMIT` means the same.

        ``inf`` when it is below from the first ring on, the period of the last ring when it never falls below.
        """
        below = np.flatnonzero(~(self.correlation >= threshold))
        if below.size == 0:
            return float(1 / self.frequency[-1])
        i = int(below[0])
        if i == 0:
            return math.inf
        high, low = self.correlation[i - 1], self.correlation[i]
        step = (high - threshold) / (high - low)
        return float(1 / (self.frequency[i - 1] + step * (self.frequency[i] - self.frequency[i - 1])))


def fourier_ring_correlation(a: np.ndarray, b: np.ndarray) -> RingCorrelation:
    """``Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2)`` of two (L, L) images on rings one frequency bin wide.

    Of (h, w) images, signals among them, a ring holds the frequencies of one length in cycles per pixel, and L is the longer side.
    For two independent halves of the data, :data:`HALF_SETS_LIMIT` is the usual threshold. The ring of the mean grey value is left out.
    """
    a, b = _pair(a, b)
    spectrum_a, spectrum_b = np.fft.fft2(a), np.fft.fft2(b)
    side = max(a.shape)
    down, across = (np.fft.fftfreq(n) * side for n in a.shape)
    ring = np.rint(np.hypot(down[:, None], across)).astype(int).ravel()
    rings = slice(1, side // 2 + 1)

    def ring_sum(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, weights=values.ravel())[rings]

    shared = ring_sum((spectrum_a * spectrum_b.conj()).real)
    power = np.sqrt(ring_sum(abs(spectrum_a) ** 2) * ring_sum(abs(spectrum_b) ** 2))
    curve = np.divide(shared, power, out=np.zeros_like(shared), where=power > 0)
    return RingCorrelation(np.arange(1, side // 2 + 1) / side, curve)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float64, checked to be of one shape; signals (w,) become (1, w)."""
    a, b = (np.asarray(one, dtype=np.float64) for one in (a, b))
    if a.ndim not in (1, 2) or a.shape != b.shape or not a.size:
        raise ParameterError(f"expected two images of one shape; got {a.shape} and {b.shape}.")
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    return a, b


def _overlaps(
    shape: tuple[int, ...], max_shift: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of index expressions that cut the overlap out of two images for every shift."""

    def cut(row: int, column: int) -> tuple[slice, slice]:
        down, across = (slice(max(0, s), n + min(0, s)) for s, n in zip((row, column), shape, strict=True))
        return down, across

    rows, columns = (range(-most, most + 1) for most in max_shift)
    for row in rows:
        for column in columns:
            yield cut(row, column), cut(-row, -column)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.sum(a * b) / norm) if norm > 0 else 0.0
