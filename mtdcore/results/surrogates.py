"""Measurements of the same noise without copies: the phases of every micrograph randomised (docs/model.md 10).

White noise is too lenient a null if the noise is not white. A surrogate keeps the properties of noise that copies do not have: the trend
over a micrograph, whole rows and columns, the local noise level, the power spectrum of the rest and the values of its pixels (iterated
amplitude adjustment: Schreiber and Schmitz, Phys. Rev. Lett. 77, 635, 1996).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d

from ..data import Measurement, MeasurementLike, open_measurement
from ..data.derived import DerivedMeasurement
from ..data.preparation.background import gaussian_background, polynomial_background
from ..data.tiles import Tile, TileGeometry
from ..errors import ParameterError

#: Rounds of amplitude adjustment: the spectrum changes by less than 1 % in further ones (test_surrogates.py).
_ROUNDS = 8

#: Degree of the polynomial trend that stays in place. A higher degree must not stay: slow noise is random too, and null runs that share it with
#: the data differ too little from one another.
_TREND = 2

#: Width (standard deviation), in boxes, of the average that gives the local noise level.
_PLACE = 2.0

#: Bytes of surrogates that are kept between iterations; others are made again.
_KEPT = 1 << 30

_WHOLE = TileGeometry(side=1024, unit=1, halo=0, reach=0)


def surrogate(micrograph: ArrayLike, box_size: int, seed: int | np.random.SeedSequence = 0) -> np.ndarray:
    """One micrograph with randomised phases, except for the trend and for whole rows and columns.

    The power of the copies stays in the spectrum: the null is a little too strict when copies hold much of it.

    Args:
        micrograph: (H, W) real; non-finite pixels stay non-finite.
        box_size: longer side of the box in pixels; rows and columns that are no shorter, and differ from those around them within a
            box, stay where they are.
        seed: of the phases.

    Returns:
        (H, W) float64.

    Raises:
        ParameterError: another shape, or no finite pixel.
    """
    pixels = np.asarray(micrograph, dtype=np.float64)
    valid = np.isfinite(pixels)
    if pixels.ndim != 2 or not valid.any():
        raise ParameterError(
            f"phases are randomised for (H, W) arrays with finite pixels; got shape {pixels.shape}."
        )
    rest = np.where(valid, pixels, np.nan)
    rest = rest - polynomial_background(rest, _TREND)
    for axis in (1, 0):
        if pixels.shape[axis] >= box_size:  # a copy would be too large a part of a shorter line
            rest = rest - _lines(rest, axis, box_size)
    fine = rest - gaussian_background(rest, box_size)
    level = np.sqrt(np.maximum(gaussian_background(fine**2, _PLACE * box_size), 0.0))
    level = np.maximum(level, np.finfo(np.float64).tiny)
    random = _phases_randomised(np.where(valid, rest / level, 0.0), valid, np.random.default_rng(seed))
    return np.where(valid, pixels - rest + level * random, np.nan)


def _lines(pixels: np.ndarray, axis: int, width: float) -> np.ndarray:
    """High-passed means of each row (axis 1) or column (axis 0), relative to an average over ``width``."""
    finite = np.isfinite(pixels)
    total = np.where(finite, pixels, 0.0).sum(axis=axis, keepdims=True)
    means = total / np.maximum(finite.sum(axis=axis, keepdims=True), 1)
    return np.asarray(means - gaussian_filter1d(means, width, axis=1 - axis, mode="reflect"))


def _phases_randomised(values: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W) with (nearly) the amplitudes of ``values`` and its valid values (exactly), in another order; 0 elsewhere."""
    amplitudes, ranked = np.abs(np.fft.rfft2(values)), np.sort(values[valid])
    found = np.zeros_like(values)
    found[valid] = rng.permutation(ranked)
    for _ in range(_ROUNDS):
        spectrum = np.fft.rfft2(found)
        size = np.abs(spectrum)
        spectrum *= np.divide(amplitudes, size, out=np.zeros_like(size), where=size > 0.0)
        order = np.argsort(np.fft.irfft2(spectrum, s=values.shape)[valid])
        adjusted = np.empty_like(ranked)
        adjusted[order] = ranked
        found[valid] = adjusted
    return found


@dataclass(frozen=True)
class SurrogateMeasurement(DerivedMeasurement):
    """The :func:`surrogate` of every micrograph of another measurement, made when it is read; see :class:`Measurement`.

    Attributes:
        source: the tiles it imitates: shape, dtype, masks and cut.
        origin: the whole of which ``source`` may be a part.
        box_size: pixels.
        seed: the same seed gives the same pixels, however they are cut.
    """

    origin: Measurement
    box_size: int
    seed: int = 0
    _made: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def derive(self, tile: Tile) -> Tile:
        """The tile of the surrogate."""
        values = np.ascontiguousarray(self._micrograph(tile.micrograph)[tile.region.read])
        if tile.valid is not None:
            values[~tile.valid] = 0
        return Tile(values, tile.valid, tile.region, tile.micrograph, tile.micrograph_shape, tile.geometry)

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be made again."""
        return {**self.__dict__, "_made": {}}

    def _micrograph(self, index: int) -> np.ndarray:
        if index not in self._made:
            stream = np.random.SeedSequence(self.seed, spawn_key=(index,))
            image = surrogate(_pixels(self.origin, index), self.box_size, stream).astype(self.dtype)
            if (len(self._made) + 1) * image.nbytes > _KEPT:
                self._made.clear()
            self._made[index] = image
        return self._made[index]


def surrogate_measurement(measurement: MeasurementLike, box_size: int, seed: int = 0) -> SurrogateMeasurement:
    """A measurement with the phases of every micrograph randomised; one micrograph at a time is in memory.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        box_size: of the target, pixels.
        seed: of the phases.
    """
    source = open_measurement(measurement)
    return SurrogateMeasurement(source, source, box_size, seed)


def _pixels(measurement: Measurement, index: int) -> np.ndarray:
    """(H, W) pixels of one micrograph, NaN where they may not be used."""
    image = np.full(measurement.shape[1:], np.nan)
    for tile in _tiles(measurement, index):
        image[tile.region.read] = (
            tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
        )
    return image


def _tiles(measurement: Measurement, index: int) -> Iterator[Tile]:
    return measurement.split(measurement.shape[0])[index].tiles(_WHOLE)
