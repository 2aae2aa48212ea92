"""Noise level and copy-number estimates from the measurement alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .errors import InputError
from .likelihood import Tile, TileGeometry
from .measurement import Measurement

#: Tiles looked at: a million pixels give the noise level to a tenth of a per cent.
_TILES, _TILE_SIDE = 16, 256

#: Median of |x - y| for independent standard normal x and y.
_MEDIAN_DIFFERENCE = 0.6744897501960817 * math.sqrt(2.0)


def estimate_noise_std(measurement: Measurement) -> float:
    """Robust start for the noise level: median absolute difference of horizontal neighbours.

    Differences cancel a smooth background, the median ignores the copies. White noise is assumed; the M-step
    refines the value from the residual.

    Raises:
        InputError: the measurement has no two valid neighbours, or is constant.
    """
    differences = [
        np.abs(np.diff(tile.values.astype(np.float64), axis=1))[_neighbours(tile.valid)].ravel()
        for tile in sample_tiles(measurement)
    ]
    joined = np.concatenate(differences) if differences else np.empty(0)
    if joined.size == 0:
        raise InputError(
            "the noise level cannot be estimated: no two neighbouring pixels are valid; give noise_std."
        )
    level = float(np.median(joined)) / _MEDIAN_DIFFERENCE
    if not (math.isfinite(level) and level > 0):
        raise InputError(
            "the noise level cannot be estimated: most neighbouring pixels are equal, so the measurement holds "
            "no noise; give noise_std, or check the file."
        )
    return level


def excess_energy(measurement: Measurement, noise_std: float) -> float:
    """Energy of the copies, ``||M||^2 - N sigma^2`` over all N valid pixels, from a sample; at least 0."""
    energy = pixels = 0.0
    for tile in sample_tiles(measurement):
        values = tile.values.astype(np.float64)
        energy += float(np.square(values).sum())
        pixels += values.size if tile.valid is None else float(tile.valid.sum())
    if not pixels:
        raise InputError("the measurement has no valid pixel: every value is NaN, infinite or masked.")
    total = math.prod(measurement.shape)
    return max(0.0, (energy / pixels - noise_std**2) * total)


def default_expected_count(shape: tuple[int, int, int], box_size: int, density: float = 0.1) -> float:
    """Number of copies that cover this share of the measurement: a start that the M-step refines."""
    return max(1.0, density * math.prod(shape) / box_size**2)


def sample_tiles(measurement: Measurement) -> Iterator[Tile]:
    """A few tiles spread evenly over the measurement."""
    side = min(_TILE_SIDE, *measurement.shape[1:])
    geometry = TileGeometry(side=side, unit=1, halo=0, reach=0)
    count = measurement.tile_count(geometry)
    chosen = min(count, _TILES)
    parts = measurement.split(count)
    for i in range(chosen):
        yield from parts[i * count // chosen].tiles(geometry)


def _neighbours(valid: np.ndarray | None) -> np.ndarray | slice:
    return slice(None) if valid is None else valid[:, 1:] & valid[:, :-1]
