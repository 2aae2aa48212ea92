"""The M-step of the noise: from the power spectrum of the residual to the filter that whitens it (docs/model.md 15).

A mean of few periodograms is rough. So the estimate is refined in stages: one number, a curve over rings, lines, single frequencies, patches. A stage
changes the estimate only where the mean departs from it by more than chance: white noise stays white, and stripes, which are a line in the spectrum,
are found. (Multiscale shrinkage, as of wavelet coefficients: Donoho and Johnstone 1994.)
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from scipy import ndimage

from ..data import Measurement
from ..estep.backends import Backend
from ..estep.residual import Residual, residual_spectrum, spectrum_side
from ..model.filters.whitening import MOST, Whitening
from ..model.likelihood import Likelihood

#: How the noise is modelled: white unless the data show otherwise, white, or by its spectrum in any case.
Noise: TypeAlias = Literal["auto", "white", "spectrum"]

#: Number of standard errors that counts as chance: among some dozens of rings, among thousands of frequencies.
_RINGS, _FINE = 4.5, 5.5

#: Widths in bins of the averages across (row, column) frequencies; inf: a whole line. Lines and peaks come first, as wider averages include them.
_SCALES = ((math.inf, 0.0), (0.0, math.inf), (0.0, 0.0), (2.0, 2.0), (6.0, 6.0))

#: Correlation of a bin with its neighbours under a Hann window, summed over a line: this many bins are worth one independent bin.
_ALIKE = 1.94

#: Ratio of the power of a row or column through the origin to that of rows or columns half a box^-1 to a box^-1 beside it, above which it is a line.
_LINES = 2.5

#: Periods longer than the first number, in boxes, are background if their power exceeds that of periods of one to two boxes by a factor of the
#: second number, or of the third while the copies are still in the pixels: copies reach a factor of 2 to 3 (noise.py).
_SLOW, _ALONE, _WITH_COPIES = 4.0, 3.0, 5.0


def noise_filter(
    source: Measurement,
    likelihood: Likelihood,
    noise: Noise,
    backend: Backend,
    target: np.ndarray | None = None,
    copies: float = 0.0,
) -> Whitening | None:
    """The filter for the residual after the copies of a target; None: the residual is white, or too small to judge.

    Args:
        source: the measurement.
        likelihood: with the noise so far.
        noise: "auto" or "spectrum", see :func:`mtdcore.recover`.
        backend: computes.
        target: on the host; None: the copies are unknown.
        copies: expected count.
    """
    box = likelihood.views.box_shape
    side = spectrum_side(box, source.shape)
    if side is None:
        return None
    found = residual_spectrum(source, target, likelihood, backend, side, copies)
    if found is None:
        return None
    return learned(found, max(box), noise, copies=target is None)


def learned(residual: Residual, box: int, noise: Noise, copies: bool = False) -> Whitening | None:
    """The filter for a residual; None: the noise is white within the error of its spectrum.

    Args:
        residual: power spectrum of the residual.
        box: side of the box in pixels.
        noise: "auto", or "spectrum", which makes a filter for white noise as well.
        copies: whether the copies are still in the residual: then only a slow background or lines, which are no copies, are a reason for a filter.
    """
    side = len(residual.power)
    spectrum, white = shrunk(_whole(residual.power), residual.pieces)
    cutoff = 1.0 / (_SLOW * box)
    background = not white and _slow(spectrum, box, _WITH_COPIES if copies else _ALONE)
    if copies:
        if not background and (white or not _lines(spectrum, box)):
            return None
    elif white and noise == "auto":
        return None
    typical = float(spectrum[_frequencies(side) > cutoff].mean())
    amplitude = np.sqrt(np.maximum(spectrum, typical / MOST**2) / np.median(spectrum))
    return Whitening(amplitude[:, : side // 2 + 1], cutoff if background else 0.0)


def shrunk(power: np.ndarray, pieces: float) -> tuple[np.ndarray, bool]:
    """A smooth spectrum through a mean of periodograms, and whether it is flat.

    Args:
        power: (P, P) on the whole ``fft2`` grid, point-symmetric.
        pieces: number of independent periodograms that the mean is worth.
    """
    usual = np.ones(power.shape, bool)
    spectrum, white, odd = _refined(power, pieces, usual)
    if odd.any():  # repeat with ring means that exclude lines and peaks
        spectrum, white, _ = _refined(power, pieces, ~odd)
    return spectrum, white


def _refined(power: np.ndarray, pieces: float, usual: np.ndarray) -> tuple[np.ndarray, bool, np.ndarray]:
    """The estimate, whether it is flat, and where it departs from its ring means, which are taken over the usual bins."""
    side = len(power)
    # under the taper the zero frequency is not independent, so it joins ring 1
    ring = np.clip(np.rint(_frequencies(side) * side).astype(int), 1, side // 2) - 1
    some = usual | (np.bincount(ring.ravel(), usual.ravel())[ring] == 0)
    bins = np.bincount(ring[some])
    level = float(np.median(power)) / (1.0 - 1.0 / (9.0 * pieces)) ** 3
    rings = np.bincount(ring[some], power[some]) / bins
    # half of the bins mirror the others, and neighbouring bins are correlated
    surprise = _surprise(rings / level, pieces * np.maximum(1.0, bins / (2.0 * _ALIKE**2)))
    white = bool(surprise.max() <= _RINGS)
    spectrum = np.full(power.shape, level) if white else _curve(rings, bins)[ring]
    odd = np.zeros(power.shape, bool)
    for scale in _SCALES:
        ratio, number = _averaged(power / spectrum, scale)
        departs = _surprise(ratio, pieces * number) > _FINE
        if departs.any():
            white = False
            odd |= departs
            spectrum = spectrum * np.where(departs, ratio, 1.0)
    return spectrum, white, odd


def _surprise(ratio: np.ndarray, degrees: np.ndarray | float) -> np.ndarray:
    """Standard errors by which means of ``degrees`` exponential variables depart from 1 (Wilson and Hilferty 1931)."""
    ninth = 1.0 / (9.0 * degrees)
    return np.asarray(np.abs(np.cbrt(ratio) - (1.0 - ninth)) / np.sqrt(ninth))


def _averaged(ratio: np.ndarray, scale: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Averages over a scale, and the number of independent frequencies in each."""
    number = 1.0
    for axis, width in enumerate(scale):
        if math.isinf(width):
            ratio = np.broadcast_to(ratio.mean(axis=axis, keepdims=True), ratio.shape)
            number *= ratio.shape[axis] / (2.0 * _ALIKE)
        elif width:
            ratio = ndimage.gaussian_filter1d(ratio, width, axis=axis, mode="wrap")
            number *= max(1.0, 2.0 * math.sqrt(math.pi) * width / _ALIKE)
    return ratio, number


def _curve(rings: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Rings averaged over neighbours, more widely at higher frequencies, where a spectrum changes slowly."""
    smooth = np.array(rings)
    for r in range(3, len(rings)):
        reach = max(1, r // 8)
        near = slice(max(2, r - reach), min(len(rings), r + reach + 1))
        smooth[r] = np.exp(np.average(np.log(rings[near]), weights=bins[near]))
    return smooth


def _lines(spectrum: np.ndarray, box: int) -> bool:
    """Whether rows or columns through the origin are brighter than those beside them, at frequencies beyond those of copies."""
    index = np.abs(np.fft.fftfreq(len(spectrum))) * box
    on, beside, far = index <= index[1] + 1e-9, (index > 0.5) & (index <= 1.0), index > 2.0
    return any(
        s[np.ix_(on, far)].mean() > _LINES * s[np.ix_(beside, far)].mean() for s in (spectrum, spectrum.T)
    )


def _frequencies(side: int) -> np.ndarray:
    """|frequency| in cycles per pixel on the whole ``fft2`` grid."""
    line = np.fft.fftfreq(side)
    return np.asarray(np.hypot(line[:, None], line))


def _slow(spectrum: np.ndarray, box: int, excess: float) -> bool:
    """Whether the power of the longest periods exceeds that of one to two boxes along rows and along columns (a line exceeds it along one only)."""
    index = np.abs(np.fft.fftfreq(len(spectrum))) * box
    near = index <= max(1.0 / _SLOW, index[1]) + 1e-9
    beside = (index > 0.5) & (index <= 1.0)
    slow = spectrum[np.ix_(near, near)].mean()
    return bool(
        slow > excess * max(spectrum[np.ix_(near, beside)].mean(), spectrum[np.ix_(beside, near)].mean())
    )


def _whole(power: np.ndarray) -> np.ndarray:
    """The ``fft2`` grid of a real image from half of it."""
    side = len(power)
    mirror = power[(-np.arange(side)) % side][:, 1 : (side + 1) // 2][:, ::-1]
    return np.concatenate([power, mirror], axis=1)
