"""Do two halves of the data agree? Fourier ring correlation of two independent recoveries (SPEC 10).

Each half is recovered on its own, from its own start. Aligning both halves to one target that has seen both would
be cheaper and worthless: noise aligned to any template agrees with itself (null curves near 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .em import recover
from .likelihood import Tile, TileGeometry
from .measurement import Measurement, open_measurement
from .metrics import RingCorrelation, align, fourier_ring_correlation
from .recovery import Recovery


@dataclass(frozen=True)
class HalfMeasurement:
    """The upper or the lower half of every micrograph of a measurement; the other one is masked.

    Shapes, tiles and positions are those of the whole, see :class:`Measurement`.

    Attributes:
        source: the whole.
        lower: which half.
    """

    source: Measurement
    lower: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H, W) of the whole."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.source.dtype

    def tile_count(self, geometry: TileGeometry) -> int:
        """Number of tiles."""
        return self.source.tile_count(geometry)

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """The tiles of the whole, with the pixels of the other half invalid."""
        for tile in self.source.tiles(geometry):
            read, _ = tile.region.read
            below = np.arange(read.start, read.stop) >= self.shape[1] // 2
            own = np.broadcast_to((below == self.lower)[:, None], tile.values.shape)
            valid = own if tile.valid is None else own & tile.valid
            yield replace(
                tile, values=np.where(valid, tile.values, 0), valid=None if valid.all() else valid.copy()
            )

    def split(self, parts: int) -> list[HalfMeasurement]:
        """Consecutive parts."""
        return [replace(self, source=part) for part in self.source.split(parts)]


def half_recoveries(
    measurement: Measurement | ArrayLike | str, seed: int = 0, **options: Any
) -> tuple[Recovery, Recovery]:
    """Recover the upper and the lower half of the micrographs, each on its own.

    A masked half counts as unseen, not as empty: ``expected_count`` of each result extrapolates to the whole.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        seed: of the start of the upper half; the lower one takes the next.
        options: keyword arguments that :func:`mtdcore.recover` was called with, without ``seed``.
    """
    source = open_measurement(measurement)
    upper, lower = (recover(HalfMeasurement(source, bool(i)), seed=seed + i, **options) for i in (0, 1))
    return upper, lower


def half_set_correlation(first: Recovery, second: Recovery) -> RingCorrelation:
    """Fourier ring correlation of the unregularised averages of two recoveries, brought into one frame.

    ``.resolution()`` is the period at which it falls below 1/7. Choosing the frame makes noise agree a little: the
    curve belongs beside that of the halves of a null measurement.
    """
    reference, image = first.aligned_average, second.aligned_average
    shift = first.likelihood.box_size // 5
    frame = align(image, reference, first.likelihood.rotations, max_shift=shift)
    return fourier_ring_correlation(reference, frame.image)
