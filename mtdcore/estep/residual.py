"""The power spectrum of the residual of a measurement, an estimate of the noise spectrum (docs/model.md 15).

The expected residual ``E|M - sum_t z_t * A_t F|^2`` at each frequency is the power of the measurement minus the posterior mean of the
copies, plus the posterior variance of the copies. Both are averaged over tapered pieces of many tiles (Welch 1967).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import fft

from ..data import Measurement
from ..data.tiles import Tile
from ..model.likelihood import Likelihood
from ..model.likelihood.window import localised
from .backends import Backend
from .posteriors import Posterior

#: Side of a piece in boxes; largest side in pixels (two boxes, if that is more), and smallest.
_BOXES, _LARGEST, SMALLEST = 4, 256, 16

#: Number of sampled tiles, spread evenly over the measurement: they hold a thousand pieces or more, fewer where ``_WEIGHTS`` limits a tile.
_TILES = 24

#: Tiles of a micrograph for :func:`noise_in_sight`: uniform noise is estimated to a per cent, while only an excess of a half matters.
_GLANCE = 4

#: Side of a tile in sides of a piece, if its posterior fits in memory.
_PIECES = 4

#: Largest number of posterior weights of a tile.
_WEIGHTS = 1 << 24

#: Number of templates whose power represents that of all.
_SOME = 16

#: Share of corners with copies up to which the copies are added one by one.
_FEW = 0.02

#: Smallest share of valid pixels in a piece.
_VALID = 0.5


@dataclass(frozen=True)
class Residual:
    """The power spectrum of the residual on the ``rfft2`` grid of P x P pixels; white noise of standard deviation s gives s^2.

    Attributes:
        power: (P, P // 2 + 1) mean over the pieces, including the posterior variance of the copies.
        pieces: equivalent number of independent pieces.
        mean: mean of the residual pixels: the error of the offset.
    """

    power: np.ndarray
    pieces: float
    mean: float


def spectrum_side(box: tuple[int, int], shape: tuple[int, int, int]) -> int | None:
    """P for a box and micrographs of this shape: four boxes, or less if room or memory is short; None: not enough of either.

    Args:
        box: (h, w) pixels.
        shape: (micrographs, H, W).
    """
    side = max(box)
    wanted = min(_BOXES * side, max(_LARGEST, 2 * side), *shape[1:]) // 2 * 2
    return wanted if wanted >= side and wanted >= SMALLEST else None


def residual_spectrum(
    measurement: Measurement,
    target: np.ndarray | None,
    likelihood: Likelihood,
    backend: Backend,
    side: int,
    copies: float | None = None,
    tiles: int = _TILES,
) -> Residual | None:
    """The spectrum of the residual given a target; relative noise levels of micrographs are divided out.

    Args:
        measurement: unfiltered, with its offset.
        target: of the shape that the views of the likelihood take, on the host; None: there are no copies.
        likelihood: with its current filter, which is used for the posterior of the copies.
        backend: scores the tiles.
        side: P of a piece in pixels, even, no less than the box and no more than a micrograph.
        copies: expected number in the measurement (for the patch model, whose residual is computed by the window model).
        tiles: number of sampled tiles, at most 24.

    Returns:
        None where no piece has enough valid pixels.
    """
    window = likelihood if likelihood.localises else localised(likelihood, max(copies or 0.0, 1e-3))
    bound = window.bind(measurement.shape)
    plain = bound.with_whitening(None)
    reach, halo = max(bound.geometry.reaches), max(bound.geometry.halos)
    wide = max(min(_PIECES * side, math.isqrt(_WEIGHTS // bound.templates)), side + reach)
    geometry = bound.geometry.enlarged(wide + 2 * halo + reach)
    posterior = None if target is None else Posterior(target, bound, backend)
    sums = _Sums.empty(side)
    parts = max(1, min(measurement.tile_count(geometry), tiles, _TILES))
    for white, raw in zip(
        bound.whitened(measurement).split(parts), plain.whitened(measurement).split(parts), strict=True
    ):
        tile = next(raw.tiles(geometry))
        optics = bound.micrographs
        level = 1.0 if optics is None else float(optics.noise_ratio[tile.micrograph])
        weights = squares = templates = None
        if posterior is not None:
            seen = next(white.tiles(geometry))
            weights, squares = posterior.amplitudes(seen)
            templates = np.asarray(plain.of_micrograph(tile.micrograph).shown.apply(target)) / level
        sums += _tile_sums(tile, weights, squares, templates, level, side)
    return sums.residual(max(bound.views.box_shape))


def noise_in_sight(
    measurement: Measurement, target: np.ndarray, likelihood: Likelihood, backend: Backend
) -> float:
    """Power of the residual at the frequencies of the target, relative to white noise of ``noise_std``.

    In noise of the spectrum S, the log-likelihood ratio of a copy has the variance ``sum_f S_f |F_f|^2 / sigma^4``. The result is the ratio of
    this variance to that in white noise; 1 if there are no pieces.

    Args:
        measurement: unfiltered, with its offset.
        target: of the shape that the views of the likelihood take, on the host.
        likelihood: with its current numbers.
        backend: scores the tiles.
    """
    side = spectrum_side(likelihood.views.box_shape, measurement.shape)
    if side is None:
        return 1.0
    tiles = _GLANCE * measurement.shape[0]
    left = residual_spectrum(measurement, target, likelihood, backend, side, tiles=tiles)
    if left is None:
        return 1.0
    templates = np.asarray(likelihood.views.apply(target))
    some = templates[:: max(1, len(templates) // _SOME)]
    both = np.full(side // 2 + 1, 2.0)  # half of the grid represents the other half
    both[[0, -1]] = 1.0
    seen = _power(some, side).sum(axis=0) * both
    return float((left.power * seen).sum() / (max(seen.sum(), 1e-300) * likelihood.noise_std**2))


@dataclass(frozen=True)
class _Sums:
    """Sums over pieces.

    Attributes:
        left: (P, P // 2 + 1) power of the pixels minus the posterior mean of the copies.
        mean: (P, P // 2 + 1) power of the posterior mean of the copies.
        copies: (P, P // 2 + 1) sum of the powers of single copies.
        pieces: number of pieces.
        worth: equivalent number of independent pieces.
        total: sum of the residual pixels.
        pixels: number of the residual pixels.
    """

    left: np.ndarray
    mean: np.ndarray
    copies: np.ndarray
    pieces: int = 0
    worth: float = 0.0
    total: float = 0.0
    pixels: int = 0

    @classmethod
    def empty(cls, side: int) -> _Sums:
        """The sums of no pieces."""
        return cls(*np.zeros((3, side, side // 2 + 1)))

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def residual(self, box: int) -> Residual | None:
        """The mean over the pieces, including the posterior variance of the copies."""
        if not self.pieces:
            return None
        variance = np.maximum(_smooth(self.copies, box) - _smooth(self.mean, box), 0.0)
        return Residual((self.left + variance) / self.pieces, self.worth, self.total / max(self.pixels, 1))


def _tile_sums(
    tile: Tile,
    weights: np.ndarray | None,
    squares: np.ndarray | None,
    templates: np.ndarray | None,
    level: float,
    side: int,
) -> _Sums:
    """Sums of one tile, over the pixels to which no copy of another tile contributes.

    Args:
        tile: not filtered.
        weights: (T, p, q) posterior of corners, times the amplitude there; None: there are no copies.
        squares: the same times squared amplitudes.
        templates: (T, h, w) in noise levels of the micrograph.
        level: relative noise level of the micrograph.
        side: P of a piece.
    """
    extent, reaches = tile.geometry.extent(tile.micrograph_shape), tile.geometry.reaches
    owned, read = tile.region
    near = tuple(
        slice(o.start - r.start, o.stop + reach - r.start)
        for o, r, reach in zip(owned, read, reaches, strict=True)
    )
    complete = tuple(
        slice(reach if o.start else 0, o.stop - o.start + (reach if o.stop == n else 0))
        for o, n, reach in zip(owned, extent, reaches, strict=True)
    )
    left = tile.values[near][complete] / level
    use = np.ones(left.shape, bool) if tile.valid is None else tile.valid[near][complete]
    taper = _taper(side)
    copies = None
    if weights is not None and squares is not None and templates is not None:
        # the place of a copy among these pixels is the middle of its box
        middle = tuple(n // 2 - c.start for n, c in zip(templates.shape[1:], complete, strict=True))
        copies = _Copies(squares, _power(templates, side), middle, _image(weights, templates)[complete])
        left = left - copies.image
    left = np.where(use, left, 0.0)
    sums = replace(_Sums.empty(side), total=float(left.sum()) * level, pixels=int(use.sum()))
    rows, columns = (_starts(n, side) for n in left.shape)
    used = np.zeros((len(rows), len(columns)))
    for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
        piece = slice(row, row + side), slice(column, column + side)
        share = float((taper**2)[use[piece]].sum()) / side**2
        if share < _VALID:
            continue
        used[i, j] = 1.0
        one = replace(_Sums.empty(side), left=_power(left[piece] * taper, side) / share, pieces=1)
        if copies is not None:
            one = replace(one, mean=_power(copies.image[piece] * taper, side))
        sums += one
    if copies is not None:
        mass = (used * copies.masses(rows, columns, side)).sum(axis=(1, 2))
        sums = replace(sums, copies=np.tensordot(mass, copies.power, axes=1))
    worth = _worth(rows, side) * _worth(columns, side) * sums.pieces / max(1, len(rows) * len(columns))
    return replace(sums, worth=worth)


@dataclass(frozen=True)
class _Copies:
    """The copies of a tile.

    Attributes:
        weights: (T, p, q) posterior of corners, times squared amplitudes.
        power: (T, P, P // 2 + 1) power spectra of the templates.
        middle: pixel in the middle of the box of the first corner.
        image: posterior mean of the copies in the pixels.
    """

    weights: np.ndarray
    power: np.ndarray
    middle: tuple[int, ...]
    image: np.ndarray

    def masses(self, rows: list[int], columns: list[int], side: int) -> np.ndarray:
        """(T, rows, columns) posterior of each template in each piece, times the squared taper at the middle of the box."""
        down, across = (self._tapers(starts, axis, side) for axis, starts in enumerate((rows, columns)))
        return np.asarray(down @ (self.weights @ across.T), np.float64)

    def _tapers(self, starts: list[int], axis: int, side: int) -> np.ndarray:
        """(pieces, corners) squared taper along one axis; that of a piece is the product of both."""
        middle, corners = self.middle[axis], self.weights.shape[1 + axis]
        squares = _line(side) ** 2
        found = np.zeros((len(starts), corners), self.weights.dtype)
        for row, start in zip(found, starts, strict=True):
            first = max(0, start - middle)
            last = max(first, min(corners, start - middle + side))
            row[first:last] = squares[first + middle - start : last + middle - start]
        return found


def _power(images: np.ndarray, side: int) -> np.ndarray:
    """Power spectra of images of up to P x P pixels, per pixel of a piece."""
    return np.asarray(np.abs(fft.rfft2(images, (side, side))) ** 2 / side**2)


def _image(weights: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Posterior mean of the copies' image: (T, p, q) weights of corners and (T, h, w) templates to (p + h - 1, q + w - 1)."""
    shape = tuple(n + m - 1 for n, m in zip(weights.shape[1:], templates.shape[1:], strict=True))
    rows, columns = np.nonzero(weights.any(axis=0))
    if len(rows) <= _FEW * weights[0].size:  # few corners, as after local search: no transforms
        image, (height, width) = np.zeros(shape), templates.shape[1:]
        shown = np.tensordot(weights[:, rows, columns], templates, axes=(0, 0))
        for row, column, copy in zip(rows.tolist(), columns.tolist(), shown, strict=True):
            image[row : row + height, column : column + width] += copy
        return image
    wide = tuple(fft.next_fast_len(n, real=True) for n in shape)
    spectrum = np.zeros((wide[0], wide[1] // 2 + 1), np.complex128)
    for weight, template in zip(weights, templates.astype(weights.dtype), strict=True):
        spectrum += fft.rfft2(weight, wide) * fft.rfft2(template, wide)
    return np.asarray(fft.irfft2(spectrum, wide)[: shape[0], : shape[1]])


def _taper(side: int) -> np.ndarray:
    """(side, side) Hann window of mean square 1."""
    return np.outer(_line(side), _line(side))


def _line(side: int) -> np.ndarray:
    """The same along one axis."""
    line = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(side) + 0.5) / side)
    return np.asarray(line / math.sqrt(np.mean(line**2)))


def _starts(length: int, side: int) -> list[int]:
    """First pixels of pieces that overlap by half or a little more, from edge to edge; empty if no piece fits."""
    if length < side:
        return []
    count = 1 + math.ceil(2 * (length - side) / side)
    return [round(start) for start in np.linspace(0, length - side, count)]


def _worth(starts: list[int], side: int) -> float:
    """Equivalent number of independent pieces along one axis (Welch 1967)."""
    line = _taper(side)[side // 2]
    alike = np.correlate(line, line, "full")[side - 1 :] / (line @ line)
    apart = np.abs(np.subtract.outer(starts, starts)).astype(int)
    return (
        len(starts) ** 2 / float((np.append(alike, 0.0)[np.minimum(apart, side)] ** 2).sum())
        if starts
        else 0.0
    )


def _smooth(power: np.ndarray, box: int) -> np.ndarray:
    """Power spectrum from autocorrelations at lags below a box: it keeps single copies, and drops correlations between copies."""
    side = len(power)
    lags = np.abs(np.fft.fftfreq(side, 1.0 / side)) / box
    line = np.where(lags < 1.0, 0.5 + 0.5 * np.cos(np.pi * lags), 0.0)
    correlation = fft.irfft2(power, (side, side)) * np.outer(line, line)
    return np.asarray(fft.rfft2(correlation).real)
