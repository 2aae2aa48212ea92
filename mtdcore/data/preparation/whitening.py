"""The radial amplitude spectrum of the noise of a micrograph, and its whitening filter."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.interpolate import make_lsq_spline

from ..._base.numerics.fourier import radial_frequencies
from ...errors import InputError

#: Number of values of a radial curve, at equally spaced frequencies from 0 to 1/2 cycles per pixel.
CURVE = 129

#: Side of the pieces in pixels, and fewest pieces for a median of their periodograms.
_PIECE, _FEWEST = 128, 4

#: Median of an exponential variable of mean 1, the distribution of a periodogram of white noise.
_MEDIAN = np.log(2.0)

#: Polynomial pieces of the smooth curve. Few, so that it follows the noise and not the rings of the CTF.
_KNOTS = 6

#: Largest share of invalid pixels in a piece.
_INVALID = 0.05

#: Largest gain of the filter relative to a typical frequency: a detector or a background filter may have removed some frequencies.
_MOST = 20.0


def noise_spectrum(image: np.ndarray) -> np.ndarray:
    """Radial amplitude spectrum of the noise: a smooth curve through the *median* periodogram of overlapping pieces.

    The median ignores contaminants in a few pieces; copies, far below the noise at every single frequency,
    hardly contribute. (Welch's method; the curve is a least-squares cubic spline of the log power over the root of the frequency.)

    Args:
        image: (H, W) floating point without background; non-finite pixels count as missing.

    Returns:
        (CURVE,) float64, the standard deviation per pixel of white noise of that strength, at equally spaced frequencies from
        0 to 1/2 cycles per pixel.

    Raises:
        InputError: the image is too small or constant, or too few of its pixels are valid.
    """
    side = min(_PIECE, *image.shape)
    power = _median_periodogram(image, side)
    frequencies = radial_frequencies((side, side))
    ring = np.rint(frequencies * side).astype(int)
    pixels = np.bincount(ring.ravel())
    rings = np.bincount(ring.ravel(), power.ravel()) / np.maximum(pixels, 1)
    at = np.bincount(ring.ravel(), frequencies.ravel()) / np.maximum(pixels, 1)
    # The first rings hold the rest of the background, and its leakage.
    use = (np.arange(len(rings)) >= 2) & (pixels > 0) & (rings > rings.max() * 1e-12)
    if use.sum() < _KNOTS + 4:
        raise InputError(
            f"the noise spectrum needs more than {side} x {side} varying pixels; this image is too small or constant: "
            "switch whitening off."
        )
    x, y = np.sqrt(at[use]), np.log(rings[use])
    edges = np.linspace(x[0], x[-1], _KNOTS + 1)
    knots = np.concatenate([[edges[0]] * 3, edges, [edges[-1]] * 3])
    spline = make_lsq_spline(x, y, knots, k=3, w=np.sqrt(pixels[use]))
    wanted = np.sqrt(np.clip(np.linspace(0.0, 0.5, CURVE), at[use][0], at[use][-1]))
    return np.asarray(np.exp(0.5 * spline(wanted)))


def whitening_filter(spectrum: np.ndarray) -> np.ndarray:
    """Reciprocal of a noise amplitude spectrum, bounded: the filtered noise is white of standard deviation 1.

    Args:
        spectrum: (CURVE,) of :func:`noise_spectrum`.

    Returns:
        (CURVE,) float64 of radial gains.
    """
    # Typical amplitude: a root mean square, weighted by the pixels of each ring.
    weights = np.linspace(0.0, 1.0, len(spectrum))
    typical = np.sqrt(np.average(spectrum**2, weights=weights))
    return np.asarray(1.0 / np.maximum(spectrum, typical / _MOST))


def _median_periodogram(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side // 2 + 1) median power of windowed pieces that overlap by half; white noise of std s gives s squared."""
    window = np.hanning(side + 2)[1:-1]
    taper = np.outer(window, window) / np.sqrt(np.mean(window**2)) ** 2
    starts = [range(0, n - side + 1, max(1, side // 2)) for n in image.shape]
    pieces = []
    for row in starts[0]:
        for column in starts[1]:
            piece = np.asarray(image[row : row + side, column : column + side], np.float64)
            valid = np.isfinite(piece)
            if valid.mean() < 1 - _INVALID:
                continue
            piece = np.where(valid, piece - piece[valid].mean(), 0.0) / np.sqrt(valid.mean())
            pieces.append(np.abs(fft.rfft2(piece * taper)) ** 2 / side**2)
    if not pieces:
        raise InputError(
            f"the noise spectrum needs pieces of {side} x {side} valid pixels; this image has none: mask less, or switch "
            "whitening off."
        )
    if len(pieces) < _FEWEST:
        return np.asarray(np.mean(pieces, axis=0))
    return np.asarray(np.median(pieces, axis=0) / _MEDIAN)
