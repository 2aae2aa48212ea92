"""Views, likelihood, offset, noise and state at the start of a run, from the arguments of :func:`mtdcore.recover`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..._base.typing import Lengths, plain
from ...data import Measurement
from ...data.noise import estimate_offset
from ...errors import ParameterError
from ...estep.backends import Backend
from ...estep.residual import SMALLEST, spectrum_side
from ...model.filters.optics import Micrographs
from ...model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ...model.likelihood.amplitudes import FIRST
from ...model.likelihood.base import check_whole
from ...model.priors import Prior, is_flat
from ...model.rotations import Rotations, in_plane, usual_rotations
from ...model.shifts import Shifted
from ...model.symmetry import Mirrored, invariant, order_of, symmetry_order
from ...model.views import Classes, Views
from ...mstep.noise import Noise, noise_filter
from ...mstep.support import soft_disc
from ...mstep.updates import Update
from ..gauge.extent import touching
from ..gauge.scale import in_units
from ..state import EMState
from ..temperature import SAMPLE_NATS, START_NATS, Temperature
from .defaults import noise_of, own_units
from .levels import first_levels
from .starts import Start, choose_starts

_log = logging.getLogger(__name__)

_LIKELIHOODS: dict[str, type[PatchLikelihood] | type[WindowLikelihood]] = {
    "window": WindowLikelihood,
    "patch": PatchLikelihood,
}

Box: TypeAlias = Lengths


def views_of(
    rotations: int | Views | None,
    box_size: Box,
    classes: int,
    symmetry: str = "C1",
    mirror: bool = False,
    subpixel: bool = False,
) -> Views:
    """The views of a run: those of ``rotations``, with mirror images, half-pixel shifts and classes if requested.

    Symmetry C_n leaves ``K / gcd(K, n)`` different angles of K, as angles that differ by ``360 / n`` degrees give the same view.

    Raises:
        ParameterError: the views have another box, classes of their own, or are rotations that leave the box.
    """
    shape = box_shape(box_size)
    rotations = usual_rotations(shape) if rotations is None else rotations
    if isinstance(rotations, int | np.integer):
        check_whole("rotations", rotations, "equally spaced angles")
        views: Views = Rotations(int(rotations), plain(*shape)).of_symmetry(symmetry_order(symmetry))
    else:
        views = rotations
        if views.box_shape != shape:
            raise ParameterError(
                f"the views have a box of {views.box_shape} pixels, and box_size is {shape}: give the same to both."
            )
        if symmetry_order(symmetry) > 1:
            raise ParameterError(
                f"symmetry {symmetry} needs rotations as a number of angles; views say themselves what they are of: "
                "Rotations(K, L, symmetry=n), Projections(symmetry=...)."
            )
    if mirror and _turned_is_mirrored(views):
        _log.info(
            "mirror: a signal turned round is its mirror image, which rotations=2 or symmetry C2 have already; no views are added."
        )
        mirror = False
    views = Mirrored(views) if mirror else views
    views = Shifted(views) if subpixel else views
    check_whole("classes", classes, "targets")
    if views.classes > 1 and classes not in (1, views.classes):
        raise ParameterError(f"the views have {views.classes} classes, and classes={classes} was asked for.")
    return Classes(views, classes) if classes > 1 and views.classes == 1 else views


def _turned_is_mirrored(views: Views) -> bool:
    """Whether views of one row of pixels include the half turn, which is the mirror image, or are invariant under it."""
    turns = in_plane(views)
    half = turns is not None and turns.around % 2 == 0
    return views.box_shape[0] == 1 and (half or order_of(views) % 2 == 0)


def box_shape(box_size: Box) -> tuple[int, int]:
    """(h, w) in pixels of ``box_size``: a side, or both."""
    sides = box_size if isinstance(box_size, tuple) else (box_size, box_size)
    if len(sides) != 2:
        raise ParameterError(f"box_size must be a side or (height, width) in pixels; got {box_size!r}.")
    for side in sides:
        check_whole("box_size", side, "pixels")
    return int(sides[0]), int(sides[1])


def begin_likelihood(
    likelihood: Literal["window", "patch"] | Likelihood,
    source: Measurement,
    views: Views,
    noise_std: float | Literal["auto"],
    min_separation: int | Literal["auto"] | None,
    expected_count: float | None,
    micrographs: Micrographs | Literal["each"] | None,
    diameter: float | None = None,
    amplitude_std: float | Literal["auto"] = 0.0,
) -> Likelihood:
    """The likelihood at the start; arguments as in :func:`mtdcore.recover`."""
    if not isinstance(likelihood, str):
        if micrographs is not None:
            raise ParameterError(
                "a likelihood object holds the micrographs itself: give it to recover without them."
            )
        if likelihood.views != views:
            raise ParameterError(
                f"the likelihood has the views {likelihood.views}; recover was asked for {views} by box_size, rotations "
                "and classes: give the same to both."
            )
        return likelihood
    if likelihood not in _LIKELIHOODS:
        raise ParameterError(
            f'likelihood must be "window", "patch" or a likelihood object; got {likelihood!r}.'
        )
    if diameter is not None and (min_separation is None or min_separation == "auto"):
        min_separation = touching(diameter)
    if isinstance(min_separation, str):
        # "auto" starts at half the box; the extent of the target decides later
        min_separation = (max(views.box_shape) + 1) // 2 if min_separation == "auto" else min_separation
    if min_separation is not None:  # from the longer side of a micrograph on, it holds at most one copy
        min_separation = min(min_separation, max(source.shape[1:]))
    sigma, optics = first_levels(source, noise_std, micrographs)
    begin = _LIKELIHOODS[likelihood].begin
    model = begin(views, sigma, source.shape, expected_count, min_separation, optics)
    # from the first iteration on: with equal amplitudes a start that fits bright copies wins the race, and too few others remain to learn a spread
    return model.with_amplitude_std(FIRST if amplitude_std == "auto" else float(amplitude_std))


def begin_offset(
    likelihood: Likelihood,
    source: Measurement,
    offset: float | Literal["auto"] | None,
    update: Update,
    given: bool,
) -> Likelihood:
    """The likelihood with the offset at the start: the given offset, or the median of the measurement if the offset is learned.

    Args:
        likelihood: at the start.
        source: the measurement.
        offset: as in :func:`mtdcore.recover`.
        update: the M-step.
        given: whether the user gave a likelihood object, whose own offset is then the start.
    """
    if offset is None or (offset == "auto" and (given or not update.learns_offset)):
        return likelihood
    if offset == "auto":
        return likelihood.with_offset(estimate_offset(source))
    try:
        return likelihood.with_offset(float(offset))
    except (TypeError, ValueError):
        raise ParameterError(
            f'offset must be a number in the units of the measurement, "auto", or None for a mean of 0; got {offset!r}.'
        ) from None


def begin_noise(
    likelihood: Likelihood,
    source: Measurement,
    noise: Noise,
    update: Update,
    backend: Backend,
    given: bool,
) -> Likelihood:
    """The likelihood with the noise at the start: white, unless a spectrum is requested or "auto" finds a slow background or lines.

    "auto" tests for these only if the micrographs have no transfer.

    Args:
        likelihood: with its offset.
        source: the measurement.
        noise: as in :func:`mtdcore.recover`.
        update: the M-step.
        backend: computes.
        given: whether the user gave a likelihood object, whose own noise is then the start.

    Raises:
        ParameterError: a spectrum is requested, and the micrographs are too small for one.
    """
    views, side = likelihood.views, spectrum_side(likelihood.views.box_shape, source.shape)
    if noise == "spectrum" and side is None:
        raise ParameterError(
            f"a noise spectrum needs pieces of a box, and of {SMALLEST} x {SMALLEST} pixels, at least; micrographs of {source.shape[1:]} "
            f'pixels with a box of {views.box_shape} have none: give noise="white".'
        )
    if given or noise_of(noise, update, likelihood) == "white":
        return likelihood
    optics = likelihood.micrographs
    if noise == "auto" and optics is not None and optics.transfer is not None:
        return likelihood  # behind whitening and CTFs slow variation may be the copies, so the residual is tested later instead
    learned = noise_filter(source, likelihood, noise, backend)
    return likelihood if learned is None else likelihood.with_whitening(learned)


def begin_state(
    likelihood: Likelihood,
    source: Measurement,
    prior: Prior,
    prior_scale: Literal["auto"] | None,
    update: Update,
    initial: ArrayLike | Start | None,
    starts: int | None,
    temperature: float | Literal["auto"] | None,
    iterations: int,
    seed: int,
    diameter: float | None = None,
) -> EMState:
    """The state before the first iteration; arguments as in :func:`mtdcore.recover`.

    With a prior, starts are draws from it, annealed a little if the signal is strong: otherwise each copy would keep the pose that suits
    the first image. Without a prior, the update decides. The usual start is random pixels, annealed. :class:`WienerUpdate` starts from faint
    random pixels without annealing: at the noise level of a high temperature its filter leaves at best the mean over rotations, an image that
    looks the same at all of them, which EM never leaves. If the diameter is known, several kinds of starts race, with a prior draws from it among them, and none is
    annealed: in crowded fields and slow noise the excess energy of the measurement overestimates the strength of a copy, and what starts too hot ends at
    a fraction of the evidence. Without a prior they also race in a box that is not
    square: signals are crowded, and all annealed starts of random pixels end at the same wrong target (docs/signals.md).
    """
    kind = initial
    if kind is None:
        height, width = likelihood.views.box_shape
        crowded = height != width and update.start == "random" and is_flat(prior)
        alone = update.start if is_flat(prior) else "samples"
        kind = "several" if diameter is not None or crowded else alone
    units = own_units(prior, prior_scale, update, likelihood)
    scales = None if units is None else (units.first(likelihood.noise_std),)
    nats = START_NATS
    if temperature is None:
        drawn = isinstance(kind, str) and kind == "samples"
        cooled = isinstance(kind, str) and kind in ("uniform", "random", "samples")
        temperature = "auto" if cooled and likelihood.tempered else 1.0
        nats = SAMPLE_NATS if drawn else START_NATS
    schedule = Temperature.begin(temperature, iterations, likelihood, source, nats)
    targets: Sequence[np.ndarray] = choose_starts(
        kind, starts, in_units(prior, scales), likelihood, seed, schedule.at(0), diameter
    )
    if diameter is not None:
        one = likelihood.views.target_shape[likelihood.classes > 1 :]
        targets = [target * soft_disc(one, diameter) for target in targets]
    targets = [_seen(target, likelihood.views) for target in targets] if is_flat(prior) else targets
    order = order_of(likelihood.views)
    targets = [np.asarray(invariant(target, order)) for target in targets] if order > 1 else targets
    return EMState.begin(targets, likelihood, schedule, units)


def _seen(target: np.ndarray, views: Views) -> np.ndarray:
    """The target without the pixels that no view shows (the corners of the box if copies lie at any angle), as no M-step would change them."""
    turns = in_plane(views)
    mask = None if turns is None else turns.mask(target)
    return target if mask is None else target * mask
