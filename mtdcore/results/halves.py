"""Do two halves of the data agree? Fourier ring correlation of two separate recoveries (docs/model.md 10).

Both halves start from a blurred copy of the target and are then recovered on their own (Scheres and Chen 2012), so that
they sit in one frame and share nothing but the coarsest frequencies. Aligning both to the sharp target would be
cheaper and worthless: it has seen both, and noise aligned to a common template agrees with itself (docs/trust.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from .._base.typing import plain
from ..data import MeasurementLike, open_measurement
from ..data.derived import DerivedMeasurement
from ..data.tiles import Tile
from ..em.recover import recover
from ..em.state import Recovery
from ..model.rotations import in_plane
from .metrics import RingCorrelation, align, fourier_ring_correlation

#: Width (standard deviation) of the blur of the common start, in boxes: half the power is gone beyond 1.1 cycles per box.
_BLUR = 1 / 8

#: Width over height above which a measurement is cut across: rows may be channels.
_LONG = 4


@dataclass(frozen=True)
class HalfMeasurement(DerivedMeasurement):
    """The upper or the lower half of every micrograph of a measurement; the other one is masked.

    Of measurements that are lower than wide by more than four times, signals for instance, the left or the right one.

    Attributes:
        source: the whole.
        lower: which half.
    """

    lower: bool

    def derive(self, tile: Tile) -> Tile:
        """The tile with the pixels of the other half invalid."""
        height, width = self.shape[1:]
        axis = int(width > _LONG * height)
        read = tile.region.read[axis]
        own = (np.arange(read.start, read.stop) >= self.shape[1 + axis] // 2) == self.lower
        own = np.broadcast_to(own if axis else own[:, None], tile.values.shape)
        valid = own if tile.valid is None else own & tile.valid
        return replace(
            tile, values=np.where(valid, tile.values, 0), valid=None if valid.all() else valid.copy()
        )


def half_recoveries(
    measurement: MeasurementLike, target: np.ndarray, **options: Any
) -> tuple[Recovery, Recovery]:
    """Recover the upper and the lower half of the micrographs (of signals the earlier and the later), each from a blurred copy of the target.

    A masked half counts as unseen, not as empty: ``expected_count`` of each result extrapolates to the whole.

    Args:
        measurement: what was recovered from.
        target: the result, (L, L), or (C, L, L) for C classes.
        options: keyword arguments that :func:`mtdcore.recover` was called with; ``initial`` and ``starts`` are set here.
    """
    source = open_measurement(measurement, options.pop("mask", None))
    blur = (_BLUR * n if n == max(target.shape[-2:]) else 0.0 for n in target.shape[-2:])
    options["initial"] = gaussian_filter(target, (*(0.0,) * (target.ndim - 2), *blur))
    options["starts"] = None
    upper, lower = (recover(HalfMeasurement(source, lower), **options) for lower in (False, True))
    return upper, lower


def half_set_correlation(first: Recovery, second: Recovery, index: int = 0) -> RingCorrelation:
    """Fourier ring correlation of the unregularised averages of two recoveries, brought into one frame.

    ``.resolution()`` is the period at which it falls below 1/7. The common start and the choice of the frame let noise
    agree at the lowest frequencies: the curve belongs beside that of a null run, whose halves start from the null run's target.

    Args:
        first: one half.
        second: the other.
        index: which class, where there are several.
    """
    box = first.likelihood.views.box_shape
    reference, image = (half.aligned_average.reshape(-1, *box)[index] for half in (first, second))
    rotations = in_plane(first.likelihood.views)
    shift = (n // 5 if n == max(box) else 0 for n in box)
    frame = align(image, reference, 1 if rotations is None else rotations.count, max_shift=plain(*shift))
    return fourier_ring_correlation(reference, frame.image)
