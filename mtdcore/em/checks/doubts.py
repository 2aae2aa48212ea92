"""What a finished run says against itself: warnings that name what does not fit, and what to do about it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ...data import Measurement
from ...data.noise import estimate_noise_std
from ...errors import Doubt, InputError
from ...estep.residual import spectrum_side
from ..framing import Framing
from ..gauge.extent import closest_separation
from ..state import Recovery
from .angles import more_angles

#: By how much a given noise level may differ from what fits. At a few per cent too much no copy is worth its cost.
_GIVEN = 0.03

#: By how much a learned one may differ from what neighbouring pixels say, before the noise counts as not white.
_LEARNED = 0.25

#: Relative standard errors, times the root of the number of pixels: of the noise level from neighbours, of a standard deviation.
_OF_NEIGHBOURS, _OF_RESIDUAL = 1.2, 0.71

#: Standard errors that are chance.
_CHANCE = 4.0

#: Share of a side of the micrograph from which on a box is nearly all of it.
_WHOLE = 0.8

#: Copies times the square of the separation, as a share of the field, from which on it may have excluded others.
_PACKED = 0.25

#: Part of the separation that copies of the target's size need, below which it is too large.
_CLOSER = 0.75


def doubt(
    recovery: Recovery, source: Measurement, noise_given: bool, diameter: float | None, framing: Framing
) -> None:
    """Warn (:class:`Doubt`) of everything that makes a result doubtful.

    Args:
        recovery: the result.
        source: what it was recovered from.
        noise_given: whether the noise level was given rather than learned.
        diameter: of the target, where it was given.
        framing: of the run.
    """
    square = len(set(recovery.likelihood.views.box_shape)) == 1
    unsaid = square and diameter is None
    for found in (
        _no_copies(recovery, unsaid, diameter is not None),
        _noise(recovery, source, noise_given),
        _rivals(recovery, unsaid),
        more_angles(recovery, source, framing),
        *_geometry(recovery, source),
    ):
        if found is not None:
            warnings.warn(found, Doubt, stacklevel=3)


@contextmanager
def undoubted() -> Iterator[None]:
    """No doubts are said: runs on noise alone find nothing, as they should."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        yield


def _no_copies(recovery: Recovery, unsaid: bool, given: bool) -> str | None:
    """With what can still be said of the target: its diameter, where the box is square and it was not given.

    Where it was, leaving it out may help: in noise that is not white what it tells of the spectrum can hold every faint start down.
    """
    if recovery.found_copies:
        return None
    diameter = (
        "give the diameter of the object, "
        if unsaid
        else "try it without the diameter, "
        if given and recovery.likelihood.whitening is not None
        else ""
    )
    return (
        f"no copies were found ({recovery.expected_count:.2g} expected, evidence {recovery.evidence:.2g} nats), so the target is "
        f'no estimate of anything: {diameter}check box_size, the contrast sign and noise_std, or try other starts (initial="several").'
    )


def _rivals(recovery: Recovery, unsaid: bool) -> str | None:
    if recovery.settled is not False:
        return None
    diameter = "the diameter, " if unsaid else ""
    return (
        f"the result is not settled: other starts end at other images with about as much evidence; give {diameter}more data, a prior, "
        "or compare the starts one by one."
    )


def _noise(recovery: Recovery, source: Measurement, given: bool) -> str | None:
    """Micrographs with noise levels of their own are left to those who gave them."""
    sigma, left, pixels = recovery.noise_std, recovery.residual_std, recovery.statistics.pixels
    if recovery.likelihood.micrographs is not None or not pixels:
        return None
    try:
        neighbours = estimate_noise_std(recovery.likelihood.whitened(source))
    except InputError:  # there are no neighbours to ask
        neighbours = left
    root = math.sqrt(pixels)
    if given:
        misfit = _off(left, sigma, max(_GIVEN, _CHANCE * _OF_RESIDUAL / root))
        # Without copies everything is left, what they add among it.
        fits = left if recovery.found_copies or left < neighbours else neighbours
        if not misfit and (
            recovery.found_copies or not _off(neighbours, sigma, max(_GIVEN, _CHANCE * _OF_NEIGHBOURS / root))
        ):
            return None
        return (
            f"noise_std={sigma:.4g} does not fit the measurement: a standard deviation of {left:.4g} is left beside the copies, and "
            f'neighbouring pixels differ as by noise of {neighbours:.4g}: give noise_std={fits:.4g} or "auto", or look for '
            "structure that is neither noise nor copies."
        )
    if not _off(neighbours, sigma, _LEARNED):
        return None
    box = recovery.likelihood.views.box_shape
    advice = (
        "make it so first, a slow drift by mtd import --background gaussian --background-width W, where W is half the box or less (periods "
        "below 5 W pass), the rest by a filter that flattens its spectrum"
        if spectrum_side(box, source.shape) is None
        else 'remove background, or try noise="spectrum" or a whitened measurement (mtd import --whiten), which may lose copies with the noise'
    )
    return (
        f"the noise does not look white: noise_std is {sigma:.4g}, but neighbouring pixels differ as by white noise of "
        f"{neighbours:.4g}: {advice}; do not trust the evidence."
    )


def _off(value: float, sigma: float, tolerance: float) -> bool:
    return abs(value / sigma - 1.0) > tolerance


def _geometry(recovery: Recovery, source: Measurement) -> Iterator[str]:
    likelihood, sides = recovery.likelihood, source.shape[1:]
    box = likelihood.views.box_shape
    # a box that fills one axis is that of a signal, with a channel a row
    free = [(n, side) for n, side in zip(box, sides, strict=True) if n < side] or [
        *zip(box, sides, strict=True)
    ]
    if any(n > _WHOLE * side for n, side in free):
        yield (
            f"a box of {box[0]} x {box[1]} pixels is nearly the whole of a micrograph of {sides[0]} x {sides[1]}: hardly any "
            "position is left to compare with; give a smaller box_size or larger micrographs."
        )
    separation, area = likelihood.separation, math.prod(source.shape)
    packed = recovery.expected_count * math.prod(likelihood.separations) / area
    if not (likelihood.localises and packed > _PACKED and likelihood.views.target_shape[-2:] == box):
        return
    closest = closest_separation(recovery.target)
    if closest < _CLOSER * separation:
        unit = "pixels" if box[0] == box[1] else "samples"
        yield (
            f"copies are excluded within {separation} {unit} of another and fill the field, although what they show needs {closest} "
            f'{unit}: give min_separation={closest}, or "auto".'
        )
