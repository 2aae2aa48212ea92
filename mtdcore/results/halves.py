"""Agreement of two halves of the data: held-out evidence, and the Fourier ring correlation of two separate recoveries (docs/model.md 10).

For held-out evidence each half has starts of its own, so that its target is independent of the half on which it is judged. For the correlation both
halves start from a blurred copy of the target and are then recovered separately (Scheres and Chen 2012), so that they lie in one frame and share only
the coarsest frequencies. Aligning both to the sharp target would be cheaper and worthless: the target depends on both halves, and noise aligned to a
common template agrees with itself (docs/trust.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from .._base.typing import plain
from ..data import MeasurementLike, open_measurement
from ..data.derived import DerivedMeasurement
from ..data.tiles import Tile
from ..em.checks.doubts import undoubted
from ..em.recover import recover
from ..em.state import Recovery
from ..model.likelihood import Likelihood
from ..model.poses import may_be_mirrored
from ..model.rotations import in_plane
from .metrics import RingCorrelation, align, fourier_ring_correlation

#: Width (standard deviation) of the blur of the common start, in boxes: half the power is gone beyond 1.1 cycles per box.
_BLUR = 1 / 8

#: Width over height above which a measurement is cut across: rows may be channels.
_LONG = 4


@dataclass(frozen=True)
class HalfMeasurement(DerivedMeasurement):
    """The upper or the lower half of every micrograph of a measurement; the other one is masked.

    If micrographs are more than four times as wide as high, as signals are, the halves are left and right.

    Attributes:
        source: the whole measurement.
        lower: whether this is the lower (or right) half.
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


def held_out_evidence(measurement: MeasurementLike, **options: Any) -> tuple[float, float]:
    """Nats that the target of each half gives to the other half, against "no copies".

    Each half is recovered from starts of its own, independently of the other half: a starting image of the run may have been made
    from all of the data, and is left out (:func:`own_starts`). If the noise follows the model, a log-likelihood ratio fixed beforehand
    exceeds log(1 / a) with a probability of at most a, and so does :func:`pooled_evidence` of both (the split likelihood ratio test:
    Wasserman, Ramdas and Balakrishnan, PNAS 117, 16880, 2020). The evidence of the window model is nearly such a ratio, see docs/trust.md.

    Args:
        measurement: what was recovered from.
        options: keyword arguments that :func:`mtdcore.recover` was called with.

    Returns:
        (evidence of the upper half's target on the lower half, of the lower half's target on the upper half).
    """
    source = open_measurement(measurement, options.pop("mask", None))
    first, second = HalfMeasurement(source, False), HalfMeasurement(source, True)

    def judged(seen: HalfMeasurement, other: HalfMeasurement) -> float:
        with undoubted():
            found = recover(seen, **own_starts(options))
            return at_target(other, found.target, found.likelihood, **options).evidence

    return judged(first, second), judged(second, first)


def own_starts(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a run, with default starts in place of given starting images."""
    given = not isinstance(options.get("initial"), str | None)
    return {**options, "initial": None, "starts": None} if given else dict(options)


def without_prior(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a run without its prior, whose samples are replaced by default starts."""
    free = own_starts(options) | {"prior": None, "prior_scale": None, "update": None}
    return free if free.get("initial") not in (None, "samples") else free | {"initial": None, "starts": None}


def pooled_evidence(held_out: Sequence[float]) -> float:
    """Log of the mean likelihood ratio of :func:`held_out_evidence`, nats: strong evidence in one half is enough."""
    return float(np.logaddexp.reduce(np.asarray(held_out)) - math.log(len(held_out)))


def at_target(
    measurement: MeasurementLike, target: np.ndarray, likelihood: Likelihood, /, **options: Any
) -> Recovery:
    """One E-step at a target, with the final numbers of a run; ``options`` are those of the run."""
    fixed = {
        "likelihood": likelihood,
        "method": "em",
        "initial": target,
        "starts": None,
        "micrographs": None,
        "diameter": None,
    }
    return recover(measurement, **{**options, **fixed, "iterations": 0})


def half_set_correlation(first: Recovery, second: Recovery, index: int = 0) -> RingCorrelation:
    """Fourier ring correlation of the unregularised averages of two recoveries, brought into one frame.

    ``.resolution()`` is the period at which it falls below 1/7. The common start and the choice of the frame let noise
    agree at the lowest frequencies: the curve belongs beside that of a null run, whose halves start from the null run's target.

    Args:
        first: one half.
        second: the other.
        index: which class, where there are several.
    """
    views = first.likelihood.views
    reference, image = (half.aligned_average.reshape(-1, *views.box_shape)[index] for half in (first, second))
    rotations, mirror = in_plane(views), may_be_mirrored(views)
    shift = (n // 5 if n == max(views.box_shape) else 0 for n in views.box_shape)
    frame = align(image, reference, 1 if rotations is None else rotations.around, plain(*shift), mirror)
    return fourier_ring_correlation(reference, frame.image)
