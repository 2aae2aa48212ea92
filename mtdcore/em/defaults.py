"""One page of policy: every "auto" and None of :func:`mtdcore.recover`, resolved into a :class:`Plan`.

Constants that are policy rather than mathematics, with the bench that shows them:

=======================  ========  ===================================================================================
constant                 value     reason
=======================  ========  ===================================================================================
``SAMPLES``              16        draws from the prior that race: at SNR .03 eight lose one digit in ten (low_snr.py)
``QUARTER``              4         the race ends, and the gauge is due, at each quarter of the iterations (ablation.py)
``COPIES``               50        copies that are enough to find the centre of the target (continuous.py)
``COARSE_STEP``          4         pixels between neighbouring coarse angles at the edge of the box (angles.py)
``FILLED``               .5        share of the field under boxes up to which the offset is learned: each iteration leaves so much
                                   of its error, and boxes that overlap count pixels twice (test_extent.py)
``FEW``                  6         starts without a prior that run to the end: of blobs, early evidence prefers narrow ones, which
                                   end at half the nats of the right ones (docs/accuracy.md)
``ROUNDS``               10        the noise is listened to after each tenth of the iterations (noise.py)
``LISTENING``            .8        share of the iterations in which it is; the others converge (noise.py)
``KEPT``                 .25       share of the evidence that a filter must leave: pink noise and stripes of .3 sigma leave .5 to .9 (noise.py);
                                   pictures that were smoothed before .04, as what is not explained looks like the copies
``mstep.SEARCH_SHARE``   .6        share of the iterations that search; the others converge (ablation.py)
``base.FLOOR``           .5        share of its start that the count keeps while the target is meaningless (ablation.py)
=======================  ========  ===================================================================================
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .._base.typing import Lengths, plain
from ..data import Measurement
from ..data.noise import estimate_noise_std, estimate_offset
from ..errors import ParameterError
from ..estep.backends import Backend, get_backend
from ..estep.residual import SMALLEST, spectrum_side
from ..model.filters.optics import Micrographs
from ..model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ..model.likelihood.amplitudes import FIRST
from ..model.likelihood.base import check_whole
from ..model.poses import may_be_mirrored, on_whole_pixels
from ..model.priors import FlatPrior, Prior, has_own_units, is_flat
from ..model.rotations import Rotations, in_plane, usual_rotations
from ..model.shifts import Shifted
from ..model.symmetry import Mirrored, invariant, order_of, symmetry_order
from ..model.views import Classes, Views
from ..mstep.classes import EachClass
from ..mstep.noise import Noise, heard_noise
from ..mstep.support import Supported, soft_disc
from ..mstep.symmetry import Symmetric
from ..mstep.updates import DenoisingUpdate, ExactUpdate, Update
from ..mstep.wiener import CompactUpdate, WienerUpdate
from .gauge.centre import BetweenPixels, CentreGauge
from .gauge.energy import EnergyGauge
from .gauge.prior import Gauge, PriorGauge
from .gauge.scale import OwnUnits, in_units
from .online.batches import OnlineEM
from .starts import Start, choose_starts
from .state import EMState
from .temperature import SAMPLE_NATS, START_NATS, Temperature

_log = logging.getLogger(__name__)

QUARTER = 4
COPIES = 50
COARSE_STEP = 4
FILLED = 0.5
FEW = 6
KEPT = 0.25
ROUNDS, LISTENING = 10, 0.8

_LIKELIHOODS: dict[str, type[PatchLikelihood] | type[WindowLikelihood]] = {
    "window": WindowLikelihood,
    "patch": PatchLikelihood,
}

Box: TypeAlias = Lengths


@dataclass(frozen=True)
class Plan:
    """What a run does, nothing left open.

    Attributes:
        backend: computes.
        coarse: views of each class that find the places of copies; None: all views are scored everywhere.
        prior: the prior.
        units: those of the prior, where its scale is to be found; None: it has those of the measurement.
        update: M-step of the target.
        gauge: frame of the target; None: left as it is.
        online: what an iteration reads.
        iterations: largest number of iterations.
        tolerance: of a target at rest.
        learn_noise: whether the M-step updates the noise level.
        learn_amplitude: whether it updates the spread of the amplitudes.
        learn_offset: whether it updates the offset.
        learn_separation: whether the extent of the target sets the minimum separation.
        executor: runs the E-step in parts elsewhere.
        quarter: iterations of a race, and between two looks at the gauge.
        copies: number of copies that are enough to find the centre of the target.
        late: whether a race is decided by late evidence.
        noise: how the noise is modelled.
        symmetry: order n of the symmetry of the target.
    """

    backend: Backend
    coarse: int | None
    prior: Prior
    update: EachClass
    gauge: Gauge | None
    online: OnlineEM
    iterations: int
    tolerance: float
    learn_noise: bool
    learn_amplitude: bool
    learn_offset: bool
    learn_separation: bool
    executor: Executor | None = None
    copies: int = COPIES
    units: OwnUnits | None = None
    late: bool = False
    noise: Noise = "white"
    symmetry: int = 1

    @property
    def quarter(self) -> int:
        """A quarter of the iterations, 0 where there are fewer than four."""
        return self.iterations // QUARTER


def views_of(
    rotations: int | Views | None,
    box_size: Box,
    classes: int,
    symmetry: str = "C1",
    mirror: bool = False,
    subpixel: bool = False,
) -> Views:
    """The views of a run: what ``rotations`` says of one target, of either hand, between pixels, for each class.

    K angles seen modulo ``360 / n`` degrees, as symmetry C_n has it, are ``K / gcd(K, n)`` different ones.

    Raises:
        ParameterError: they have another box, classes of their own, or are rotations that leave the box.
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
    """Whether views of one row of pixels have its half turn, which is its mirror image, or see no difference."""
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
        # discs that touch diagonally differ by so much in row and in column
        min_separation = max(1, math.floor(diameter / math.sqrt(2.0)))
    if isinstance(min_separation, str):
        # half the box at first; the extent of the target decides later
        min_separation = (max(views.box_shape) + 1) // 2 if min_separation == "auto" else min_separation
    sigma, optics = _noise(source, noise_std, micrographs)
    begin = _LIKELIHOODS[likelihood].begin
    model = begin(views, sigma, source.shape, expected_count, min_separation, optics)
    # from the first iteration on: among copies that are alike a bright one wins the race, and leaves too few others to learn a spread from
    return model.with_amplitude_std(FIRST if amplitude_std == "auto" else float(amplitude_std))


def begin_offset(
    likelihood: Likelihood,
    source: Measurement,
    offset: float | Literal["auto"] | None,
    update: Update,
    given: bool,
) -> Likelihood:
    """The likelihood with the offset at the start: what is asked for, the median of the measurement where it is to be learned.

    Args:
        likelihood: at the start.
        source: the measurement.
        offset: as in :func:`mtdcore.recover`.
        update: the M-step.
        given: whether the likelihood is the user's, whose own offset then is the start.
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
    """The likelihood with the noise at the start: white, unless the measurement shows what no copies are, and nothing lies between it and them.

    Args:
        likelihood: with its offset.
        source: the measurement.
        noise: as in :func:`mtdcore.recover`.
        update: the M-step.
        backend: computes.
        given: whether the likelihood is the user's, whose own noise then is the start.

    Raises:
        ParameterError: a spectrum is asked for, and the micrographs are too small for one.
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
        return likelihood  # behind whitening and CTFs what looks slow may be the copies: first it is seen what these leave
    heard = heard_noise(source, likelihood, noise, backend)
    return likelihood if heard is None else likelihood.with_whitening(heard)


def noise_of(noise: Noise, update: Update, likelihood: Likelihood) -> Noise:
    """What "auto" means: the published model and method take the noise to be white."""
    published = not (likelihood.localises and update.learns_offset)
    return "white" if noise == "auto" and published else noise


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

    Starts are draws from the prior where there is one, cooled a little where the signal is strong: each copy would take to the pose that suits
    the first image, for good. Without, the update says: random pixels, which are cooled, or faint ones
    for :class:`WienerUpdate`, which are not: at the noise level of a high temperature its filter leaves the mean over rotations
    at best, an image that looks the same at all of them, which EM never leaves. Where the diameter is known several kinds race,
    and in a box that is no square, too: signals are crowded, and of random pixels, cooled, all starts end at the same wrong
    place (docs/signals.md).
    """
    kind = initial
    if kind is None:
        height, width = likelihood.views.box_shape
        some = diameter is not None or (height != width and update.start == "random")
        kind = "samples" if not is_flat(prior) else "several" if some else update.start
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
    order = order_of(likelihood.views)
    targets = [np.asarray(invariant(target, order)) for target in targets] if order > 1 else targets
    return EMState.begin(targets, likelihood, schedule, units)


def begin_plan(
    source: Measurement,
    likelihood: Likelihood,
    *,
    prior: Prior | None,
    prior_scale: Literal["auto"] | None,
    update: Update | None,
    gauge: Gauge | Literal["auto"] | None,
    coarse_rotations: int | Literal["auto"] | None,
    online: OnlineEM | None,
    iterations: int,
    tolerance: float,
    learn_noise: bool,
    learn_amplitude: bool,
    offset: float | Literal["auto"] | None,
    learn_separation: bool,
    diameter: float | None,
    noise: Noise,
    backend: str | Backend,
    executor: Executor | None,
) -> Plan:
    """The plan of a run; arguments as in :func:`mtdcore.recover`."""
    prior = prior or FlatPrior()
    update, order = update or default_update(prior, likelihood, diameter), order_of(likelihood.views)
    update = update if order == 1 else Symmetric(update, order)
    if gauge == "auto":
        gauge = default_gauge(prior, update, likelihood.views, diameter)
    online = online or OnlineEM()
    online.check_tiles(source.tile_count(likelihood.geometry))
    return Plan(
        get_backend(backend),
        coarse_views(coarse_rotations, likelihood.views),
        prior,
        EachClass(update if diameter is None else Supported(update, diameter)),
        gauge,
        online,
        iterations,
        tolerance,
        learn_noise,
        learn_amplitude,
        offset == "auto" and update.learns_offset,
        learn_separation,
        executor,
        units=own_units(prior, prior_scale, update, likelihood),
        late=is_flat(prior),
        noise=noise_of(noise, update, likelihood),
        symmetry=order,
    )


def own_units(
    prior: Prior, prior_scale: Literal["auto"] | None, update: Update, likelihood: Likelihood
) -> OwnUnits | None:
    """The units of a prior whose scale the run finds; None: the prior has those of the measurement.

    By default a scale is found where the prior has units of its own and the update tells them.
    """
    known = prior_scale is None and not (has_own_units(prior) and update.fits_scale)
    return None if is_flat(prior) or known else OwnUnits.of(prior, plain(*likelihood.views.box_shape))


def default_update(prior: Prior, likelihood: Likelihood, diameter: float | None = None) -> Update:
    """Denoising with a prior; without, a Wiener filter where micrographs have a transfer or the diameter is known, else the maximiser of Q."""
    if not is_flat(prior):
        return DenoisingUpdate()
    optics = likelihood.micrographs
    if optics is not None and optics.transfer is not None:
        return WienerUpdate()
    return ExactUpdate() if diameter is None else CompactUpdate(diameter)


def default_gauge(prior: Prior, update: Update, views: Views, diameter: float | None = None) -> Gauge | None:
    """As the update says; None: left as it is.

    Energy decides at right angles alone. Copies at other angles turn about the middle of the box, which fixes the frame, unless a
    known diameter cuts the target: then the object is kept in the middle of its disc. (At its rim a neighbour finds a place opposite.)
    The axis of a symmetry fixes the frame, too: the prior then turns the target and no more.
    """
    rotations, placed = in_plane(views), order_of(views) > 1
    if update.gauge == "centre" or (update.gauge == "energy" and diameter is not None):
        return None if placed else CentreGauge()
    if update.gauge == "energy" and rotations is not None and rotations.exact and not placed:
        return BetweenPixels(EnergyGauge()) if on_whole_pixels(views) != views else EnergyGauge()
    if update.gauge == "prior" and not is_flat(prior) and rotations is not None:
        between = rotations.exact and on_whole_pixels(views) != views
        gauge = PriorGauge.of(prior, rotations.around, rotations.box_size, may_be_mirrored(views), between)
        return replace(gauge, centre=None) if placed else gauge
    return None


def coarse_views(coarse: int | Literal["auto"] | None, views: Views) -> int | None:
    """How many views find the places of copies; None: all views are scored everywhere.

    Raises:
        ParameterError: ``coarse`` is not positive.
    """
    if coarse == "auto":
        whole, order = on_whole_pixels(views), order_of(views)
        count = -(-COARSE_STEP * math.ceil(math.pi * max(views.box_shape) / COARSE_STEP**2) // order)
        count = 2 * count if may_be_mirrored(views) else count
        count = min(count, whole.count // views.classes)
        return count if 2 * count * views.classes <= views.count else None
    if coarse is not None and coarse < 1:
        raise ParameterError(f'coarse_rotations must be a positive number, "auto" or None; got {coarse}.')
    return coarse


def _noise(
    source: Measurement, noise_std: float | Literal["auto"], micrographs: Micrographs | Literal["each"] | None
) -> tuple[float, Micrographs | None]:
    """Common noise level, and the optics with the levels of each micrograph; "auto" estimates both."""
    if micrographs is None:
        return estimate_noise_std(source) if noise_std == "auto" else _number(noise_std), None
    count = source.shape[0]
    optics = Micrographs(np.ones(count)) if isinstance(micrographs, str) else micrographs
    if noise_std != "auto":
        return _number(noise_std), optics
    levels = np.array([estimate_noise_std(one) for one in source.split(count)])
    return float(np.sqrt(np.mean(levels**2))), replace(optics, noise=levels)


def _number(noise_std: object) -> float:
    try:
        return float(noise_std)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ParameterError(f'noise_std must be a positive number, or "auto"; got {noise_std!r}.') from None
