"""Noise level, offset and copy-number estimates from the measurement alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from .._base.typing import plain
from ..errors import InputError
from . import Measurement
from .pictures import SIDE, SQUARES, noise_level
from .tiles import Tile, TileGeometry

#: Ratio of sides from which on a measurement counts as a signal, with long tiles instead of square ones.
_LONG = 16


def estimate_noise_std(measurement: Measurement) -> float:
    """Robust start for the noise level, :func:`mtdcore.data.pictures.noise_level` of a sample. White noise is assumed; the
    M-step refines the value from the residual.

    Raises:
        InputError: the measurement has no two valid neighbours, or is constant.
    """
    return noise_level(sample_pictures(measurement))


def estimate_noise_levels(measurement: Measurement) -> np.ndarray:
    """(M,) float64 :func:`estimate_noise_std` of each of the M micrographs of a whole measurement.

    A micrograph without valid neighbours, which scores nothing, gets the root mean square of the others.

    Raises:
        InputError: no micrograph has two valid neighbours, or one is constant.
    """
    samples = [sample_pictures(one) for one in measurement.split(measurement.shape[0])]
    known = [any(np.isfinite(np.diff(one, axis=1)).any() for one in pictures) for pictures in samples]
    if not any(known):
        noise_level([])
    levels = [noise_level(one) if told else math.nan for one, told in zip(samples, known, strict=True)]
    return np.where(known, levels, np.sqrt(np.nanmean(np.square(levels))))


def estimate_offset(measurement: Measurement) -> float:
    """Robust start for the offset of a measurement: the median of a sample. The M-step refines the value from the residual.

    Raises:
        InputError: the measurement has no valid pixel.
    """
    pixels = np.concatenate([picture[np.isfinite(picture)] for picture in sample_pictures(measurement)])
    if not pixels.size:
        raise InputError("the measurement has no valid pixel: every value is NaN, infinite or masked.")
    return float(np.median(pixels.astype(np.float64)))


def excess_energy(measurement: Measurement, noise_std: float) -> float:
    """Energy of the copies, ``||M||^2 - N sigma^2`` as if all N pixels were valid, from a sample; at least 0.

    Args:
        measurement: without its offset.
        noise_std: sigma.
    """
    energy = pixels = 0.0
    for tile in sample_tiles(measurement):
        values = tile.values.astype(np.float64)
        energy += float(np.square(values).sum())
        pixels += values.size if tile.valid is None else float(tile.valid.sum())
    if not pixels:
        raise InputError("the measurement has no valid pixel: every value is NaN, infinite or masked.")
    total = math.prod(measurement.shape)
    return max(0.0, (energy / pixels - noise_std**2) * total)


def default_expected_count(shape: tuple[int, int, int], box_pixels: int, density: float = 0.1) -> float:
    """Number of copies whose boxes cover the share ``density`` of the measurement: a start that the M-step refines."""
    return max(1.0, density * math.prod(shape) / box_pixels)


def sample_tiles(measurement: Measurement) -> Iterator[Tile]:
    """A few tiles spread evenly over the measurement."""
    side = max(1, min(SIDE, *measurement.shape[1:]))
    sides = tuple(SIDE**2 // side if n >= _LONG * side else side for n in measurement.shape[1:])
    geometry = TileGeometry(side=plain(*sides), unit=1, halo=0, reach=0)
    tiles = measurement.tile_count(geometry)
    for part in measurement.split(min(tiles, SQUARES)) if tiles else ():
        yield from islice(part.tiles(geometry), 1)


def sample_pictures(measurement: Measurement) -> list[np.ndarray]:
    """The pixels of :func:`sample_tiles`, NaN where invalid."""
    return [
        tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
        for tile in sample_tiles(measurement)
    ]
