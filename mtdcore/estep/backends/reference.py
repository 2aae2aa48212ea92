"""The definition of the E-step: plain loops over poses, float64, no transform. Clear rather than fast.

======================  =================================================================
docs/model.md           here
======================  =================================================================
M_m, x                  ``pixels`` of one patch; ``corner`` of one window
l                       ``shift``, signed: -L+1 .. L-1 shows something, the others are empty
R_k F                   ``templates[k]``
log w, w                ``log_weight``, ``weight``
Lambda(x, k)            ``ratio[k, row, column]``
S(x)                    ``log_competition`` (its logarithm)
======================  =================================================================

Invalid pixels are left out of every sum over pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import cast

import numpy as np
from scipy.special import logsumexp

from ..._base.typing import Array
from ...data.tiles import Tile
from ...model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ..sums import TemplateSums, by_class
from .base import Moment
from .library import ALL, HostArrays, checked, checked_norm, window_model


class ReferenceBackend(HostArrays):
    """Plain loops on the CPU in float64; see :class:`Backend` for the contract."""

    name = "reference"
    precision = "float64"

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """0: the cut of the likelihood is kept."""
        return 0

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> TemplateSums:
        """Sum of the statistics of the tiles; see :meth:`Backend.accumulate`."""
        templates = _float64(templates, likelihood)
        total = TemplateSums.zeros(len(templates), likelihood)
        for tile in tiles:
            total = total + _accumulate(tile, templates, likelihood)
        return total

    def posterior(
        self, tile: Tile, templates: Array, likelihood: Likelihood, moment: Moment = 0
    ) -> np.ndarray:
        """Posterior weights of one tile; see :meth:`Backend.posterior`."""
        templates = _float64(templates, likelihood)
        if likelihood.localises:
            return _window_posterior(tile, templates, cast(WindowLikelihood, likelihood), moment)
        return _patch_posterior(tile, templates, cast(PatchLikelihood, likelihood))[0]

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """Log-odds of a copy at each corner; see :meth:`Backend.log_odds`."""
        templates = _float64(templates, window_model(likelihood), part)
        return np.asarray(logsumexp(_window_log_odds(tile, templates, likelihood, part), axis=0))

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> TemplateSums:
        """Statistics of some templates; see :meth:`Backend.project`."""
        templates = _float64(templates, window_model(likelihood), part)
        return _project(tile, templates, likelihood, checked_norm(log_norm, tile), part)


def _float64(templates: Array, likelihood: Likelihood, part: slice = ALL) -> np.ndarray:
    return np.asarray(checked(templates, likelihood, np, part), dtype=np.float64)


def _accumulate(tile: Tile, templates: np.ndarray, likelihood: Likelihood) -> TemplateSums:
    if likelihood.localises:
        return _accumulate_windows(tile, templates, cast(WindowLikelihood, likelihood))
    return _accumulate_patches(tile, templates, cast(PatchLikelihood, likelihood))


# ---------------------------------------------------------------- patch model (docs/model.md 3)


def _accumulate_patches(tile: Tile, templates: np.ndarray, likelihood: PatchLikelihood) -> TemplateSums:
    box, sigma = likelihood.views.box_shape, likelihood.noise_std
    zero = TemplateSums.zeros(len(templates), likelihood)
    backprojection, coverage = zero.backprojection.copy(), zero.coverage.copy()
    weights, evidence = _patch_posterior(tile, templates, likelihood)
    empty_mass, mass = 0.0, np.zeros(len(templates))
    for row, column, pixels, valid in _patches(tile, box):
        for (k, *shift), weight in np.ndenumerate(weights[row, column]):
            if shift[0] == box[0] or shift[1] == box[1]:
                empty_mass += weight
                continue
            mass[k] += weight
            frame = _frame(shift, box, likelihood.margins)
            backprojection[k][frame[0]] += weight * np.where(valid, pixels, 0.0)[frame[1]]
            coverage[k][frame[0]] += weight * valid[frame[1]]
    energy, total, count = _owned(tile)
    shown = float(coverage[(slice(None), *likelihood.inner)].sum()) / math.prod(box)
    return replace(
        zero,
        backprojection=backprojection,
        coverage=coverage,
        class_mass=by_class(mass, likelihood),
        log_likelihood=evidence
        - energy / (2.0 * sigma**2)
        - 0.5 * count * math.log(2.0 * math.pi * sigma**2),
        energy=energy,
        total=total,
        expected_count=shown,
        empty_mass=empty_mass,
        sites=weights.shape[0] * weights.shape[1],
        pixels=count,
        amplitude_sum=shown,
        amplitude_squares=shown,
    )


def _patch_posterior(
    tile: Tile, templates: np.ndarray, likelihood: PatchLikelihood
) -> tuple[np.ndarray, float]:
    """w_m(l, k) of eq. 14 and the sum over patches of log p(M_m | F) - log p(M_m | empty)."""
    box = likelihood.views.box_shape
    log_empty, log_shown = likelihood.log_prior
    bias = likelihood.template_bias
    rows, columns = (s.stop // n - s.start // n for s, n in zip(tile.owned, box, strict=True))
    poses = (len(templates), 2 * box[0], 2 * box[1])
    weights = np.empty((rows, columns, *poses))
    evidence = 0.0
    for row, column, pixels, valid in _patches(tile, box):
        log_weight = np.full(poses, log_empty)
        for k, *shift in np.ndindex(log_weight.shape):
            if shift[0] == box[0] or shift[1] == box[1]:
                continue
            # -||M - C T_l Z R_k F||^2 / (2 sigma^2), minus the same for the empty pose (15)
            target, seen = _frame(shift, box, (0, 0))
            image = templates[k][target]
            gain = (image * (pixels[seen] - 0.5 * image)).sum(where=valid[seen])
            log_weight[k][tuple(shift)] = log_shown + bias[k] + gain / likelihood.noise_std**2
        total = logsumexp(log_weight)
        evidence += float(total)
        weights[row, column] = np.exp(log_weight - total)
    return weights, evidence


def _patches(tile: Tile, box: tuple[int, int]) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(row, column, pixels, valid) of every owned h x w patch."""
    pixels, valid = (array[tile.owned] for array in _pixels(tile))
    height, width = box
    for row in range(pixels.shape[0] // height):
        for column in range(pixels.shape[1] // width):
            cut = (
                slice(row * height, (row + 1) * height),
                slice(column * width, (column + 1) * width),
            )
            yield row, column, pixels[cut], valid[cut]


def _frame(
    shift: list[int], box: tuple[int, int], margins: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the (L + 2 margin) target frame and of the patch that meet under ``np.roll(ZF, shift)``."""
    target, patch = [], []
    for value, length, margin in zip(shift, box, margins, strict=True):
        offset = value if value < length else value - 2 * length
        first, last = max(0, offset - margin), min(length, offset + length + margin)
        patch.append(slice(first, last))
        target.append(slice(first - offset + margin, last - offset + margin))
    return (target[0], target[1]), (patch[0], patch[1])


# ---------------------------------------------------------------- window model (docs/model.md 7)


def _accumulate_windows(tile: Tile, templates: np.ndarray, likelihood: WindowLikelihood) -> TemplateSums:
    log_odds = _window_log_odds(tile, templates, likelihood)
    return _project(tile, templates, likelihood, _log_norm(tile, log_odds, likelihood))


def _window_posterior(
    tile: Tile, templates: np.ndarray, likelihood: WindowLikelihood, moment: Moment
) -> np.ndarray:
    """w(x, k) at the owned corners, times the posterior mean of a power of the amplitude."""
    log_odds = _window_log_odds(tile, templates, likelihood)
    weights = _weights(tile, log_odds, _log_norm(tile, log_odds, likelihood))
    return weights * _moment(tile, templates, likelihood, moment)


def _project(
    tile: Tile,
    templates: np.ndarray,
    likelihood: WindowLikelihood,
    log_norm: np.ndarray,
    part: slice = ALL,
) -> TemplateSums:
    """Statistics at the owned corners, given the log(1 + S) there."""
    zero, log_odds = (
        TemplateSums.zeros(len(templates), likelihood),
        _window_log_odds(tile, templates, likelihood, part),
    )
    backprojection, coverage = zero.backprojection.copy(), zero.coverage.copy()
    weights = _weights(tile, log_odds, log_norm)
    first, second = (weights * _moment(tile, templates, likelihood, order) for order in (1, 2))
    pixels, valid = _pixels(tile)
    around, (height, width) = [(m, m) for m in likelihood.margins], likelihood.frame_shape
    pixels = np.pad(np.where(valid, pixels, 0.0), around)
    valid = np.pad(valid, around)
    top, left = tile.owned[0].start, tile.owned[1].start
    for k, row, column in np.ndindex(weights.shape):
        window = (slice(top + row, top + row + height), slice(left + column, left + column + width))
        backprojection[k] += first[k, row, column] * pixels[window]
        coverage[k] += second[k, row, column] * valid[window]
    energy, total, count = _owned(tile)
    nothing = np.full(log_odds.shape[1:], likelihood.log_activity)
    evidence = (log_norm - _log_norm(tile, nothing[None], likelihood)).sum() / likelihood.neighbourhood
    return replace(
        zero,
        backprojection=backprojection,
        coverage=coverage,
        class_mass=by_class(weights.sum(axis=(1, 2)), likelihood, part),
        log_likelihood=float(evidence),
        energy=energy,
        total=total,
        expected_count=float(weights.sum()),
        sites=log_norm.size,
        pixels=count,
        amplitude_sum=float(first.sum()),
        amplitude_squares=float(second.sum()),
    )


def _weights(tile: Tile, log_odds: np.ndarray, log_norm: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_odds[(slice(None), *tile.owned)] - log_norm))


def _log_norm(tile: Tile, log_odds: np.ndarray, likelihood: WindowLikelihood) -> np.ndarray:
    """log(1 + S) at the owned corners."""
    down, across = (d - 1 for d in likelihood.separations)
    owned_rows, owned_columns = (range(s.start, s.stop) for s in tile.owned)
    log_norm = np.empty((len(owned_rows), len(owned_columns)))
    for i, row in enumerate(owned_rows):
        for j, column in enumerate(owned_columns):
            near = log_odds[
                :,
                max(0, row - down) : row + down + 1,
                max(0, column - across) : column + across + 1,
            ]
            log_competition = logsumexp(near)
            log_norm[i, j] = np.logaddexp(0.0, log_competition)
    return log_norm


def _window_log_odds(
    tile: Tile, templates: np.ndarray, likelihood: WindowLikelihood, part: slice = ALL
) -> np.ndarray:
    """(t, P, Q) log a_k = log (lam / K) + Lambda(x, k) at every corner of the pixels of a tile."""
    gain, energy = _gains(tile, templates, likelihood)
    amplitudes = likelihood.amplitudes
    ratio = gain - 0.5 * energy if amplitudes is None else amplitudes.log_ratio(gain, energy)
    log_prior = likelihood.template_bias[part] + likelihood.log_activity - math.log(likelihood.templates)
    return ratio + log_prior[:, None, None]


def _moment(
    tile: Tile, templates: np.ndarray, likelihood: WindowLikelihood, order: Moment
) -> np.ndarray | float:
    """Posterior mean of a power of the amplitude of a copy at each owned corner; 1 if all amplitudes are 1."""
    amplitudes = likelihood.amplitudes
    if order == 0 or amplitudes is None:
        return 1.0
    gain, energy = (values[(slice(None), *tile.owned)] for values in _gains(tile, templates, likelihood))
    return np.asarray(amplitudes.moment(order, gain, energy))


def _gains(tile: Tile, templates: np.ndarray, likelihood: WindowLikelihood) -> tuple[np.ndarray, np.ndarray]:
    """(t, P, Q) each: <M, R_k F> / sigma^2 and ||R_k F||^2 / sigma^2 over the valid pixels of every window."""
    height, width = likelihood.views.box_shape
    pixels, valid = _pixels(tile)
    shape = (len(templates), pixels.shape[0] - height + 1, pixels.shape[1] - width + 1)
    gain, energy = np.empty(shape), np.empty(shape)
    for k, row, column in np.ndindex(shape):
        window = (slice(row, row + height), slice(column, column + width))
        gain[k, row, column] = (templates[k] * pixels[window]).sum(where=valid[window])
        energy[k, row, column] = (templates[k] ** 2).sum(where=valid[window])
    return gain / likelihood.noise_std**2, energy / likelihood.noise_std**2


def _owned(tile: Tile) -> tuple[float, float, int]:
    """Energy, sum and number of the valid pixels that belong to this tile.

    Corners are fewer than pixels: the last tile of a row or column also owns the L - 1 pixels beyond.
    """
    pixels, valid = _pixels(tile)
    cut = tile.owned_pixels
    kept = valid[cut]
    pixels = pixels[cut][kept]
    return float((pixels**2).sum()), float(pixels.sum()), int(kept.sum())


def _pixels(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in float64 and their validity."""
    pixels = np.asarray(tile.values, dtype=np.float64)
    valid = np.ones(pixels.shape, bool) if tile.valid is None else np.asarray(tile.valid)
    return np.where(valid, pixels, 0.0), valid
