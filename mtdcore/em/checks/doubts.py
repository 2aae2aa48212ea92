"""Doubts about the result of a run: warnings that name what does not fit, and what to do about it."""

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

#: Relative error allowed in a given noise level. A level a few per cent too high leaves no copy worth its cost.
_GIVEN = 0.03

#: Relative difference allowed between a learned noise level and the estimate from neighbouring pixels, before the noise counts as not white.
_LEARNED = 0.25

#: Relative standard errors, times the square root of the number of pixels: of the noise level from neighbours, of a standard deviation.
_OF_NEIGHBOURS, _OF_RESIDUAL = 1.2, 0.71

#: Number of standard errors that counts as chance.
_CHANCE = 4.0

#: Share of a side of the micrograph above which a box is nearly all of the micrograph.
_WHOLE = 0.8

#: Copies times the square of the separation, as a share of the field, above which the separation may have excluded other copies.
_PACKED = 0.25

#: Share of the separation that copies of the target's size need, below which the separation is too large.
_CLOSER = 0.75


def doubt(
    recovery: Recovery, source: Measurement, noise_given: bool, diameter: float | None, framing: Framing
) -> None:
    """Warn (:class:`Doubt`) of everything that makes a result doubtful.

    Args:
        recovery: the result.
        source: what it was recovered from.
        noise_given: whether the noise level was given rather than learned.
        diameter: of the target, if it was given.
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
    """Suppress doubts, for runs on noise alone, which should find nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        yield


def _no_copies(recovery: Recovery, unsaid: bool, given: bool) -> str | None:
    """The warning that no copies were found; it asks for the diameter if the box is square and no diameter was given.

    If the diameter was given, a run without it may help: behind a noise filter the diameter can keep every faint start from growing.
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
    """The warning that the noise level or a white spectrum does not fit; micrographs with noise levels of their own are not checked."""
    sigma, left, pixels = recovery.noise_std, recovery.residual_std, recovery.statistics.pixels
    if recovery.likelihood.micrographs is not None or not pixels:
        return None
    try:
        neighbours = estimate_noise_std(recovery.likelihood.whitened(source))
    except InputError:  # there are no neighbouring pixels
        neighbours = left
    root = math.sqrt(pixels)
    if given:
        misfit = _off(left, sigma, max(_GIVEN, _CHANCE * _OF_RESIDUAL / root))
        # If no copies were found, the residual still holds their energy.
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
    # a box that fills one axis belongs to a signal with one channel per row
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
