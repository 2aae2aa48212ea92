"""One page of policy: every "auto" and None of :func:`mtdcore.recover`, resolved into a :class:`Plan`.

Constants that are policy rather than mathematics, with the bench that shows them:

=======================  ========  ===================================================================================
constant                 value     reason
=======================  ========  ===================================================================================
``SAMPLES``              16        draws from the prior that race: at SNR .03 eight draws lose one digit in ten (low_snr.py)
``QUARTER``              4         the race ends, and the gauge is due, at each quarter of the iterations (ablation.py)
``COPIES``               100       copies that are enough to find the centre of the target (continuous.py)
``COARSE_STEP``          4         pixels between neighbouring coarse angles at the edge of the box (angles.py)
``FILLED``               .5        share of the field under boxes up to which the offset is learned: each iteration leaves this share
                                   of the offset's error, and boxes that overlap count pixels twice (test_extent.py)
``FEW``                  6         starts without a prior that run to the end: of blobs, early evidence prefers narrow ones, which
                                   end at half the nats of the right ones (docs/accuracy.md)
``ROUNDS``               10        the noise is estimated from the residual after each tenth of the iterations (noise.py)
``NOISE_UNTIL``          .8        share of the iterations in which it is estimated; the others converge (noise.py)
``KEPT``                 .25       share of the evidence that a filter must leave: pink noise and stripes of .3 sigma leave .5 to .9 (noise.py);
                                   pictures that were smoothed before leave .04, as their residual resembles the copies
``mstep.SEARCH_SHARE``   .6        share of the iterations that search; the others converge (ablation.py)
``base.FLOOR``           .5        share of its start that the expected count keeps while the target is meaningless (ablation.py)
=======================  ========  ===================================================================================
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal

from ..._base.typing import plain
from ...data import Measurement
from ...errors import ParameterError
from ...estep.backends import Backend, get_backend
from ...model.likelihood import Likelihood
from ...model.poses import may_be_mirrored, on_whole_pixels
from ...model.priors import FlatPrior, Prior, has_own_units, is_flat
from ...model.rotations import in_plane
from ...model.symmetry import order_of
from ...model.views import Views
from ...mstep.classes import EachClass
from ...mstep.noise import Noise
from ...mstep.support import Supported
from ...mstep.symmetry import Symmetric
from ...mstep.updates import DenoisingUpdate, ExactUpdate, Update
from ...mstep.wiener import CompactUpdate, WienerUpdate
from ..gauge.centre import BetweenPixels, CentreGauge
from ..gauge.energy import EnergyGauge
from ..gauge.prior import PriorGauge
from ..gauge.scale import OwnUnits
from ..gauge.seen import Gauge
from ..online.batches import OnlineEM

QUARTER = 4
COPIES = 100
COARSE_STEP = 4
FILLED = 0.5
FEW = 6
KEPT = 0.25
ROUNDS, NOISE_UNTIL = 10, 0.8


@dataclass(frozen=True)
class Plan:
    """What a run does, with every default resolved.

    Attributes:
        backend: computes.
        coarse: number of views of each class that search for copies; None: all views are scored everywhere.
        prior: the prior.
        units: those of the prior, if its scale is learned; None: the prior has the units of the measurement.
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
        quarter: iterations of a race, and between two choices of the gauge.
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


def noise_of(noise: Noise, update: Update, likelihood: Likelihood) -> Noise:
    """The noise model that "auto" stands for: white in the published model and method."""
    published = not (likelihood.localises and update.learns_offset)
    return "white" if noise == "auto" and published else noise


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
        late=is_flat(prior) or diameter is not None,
        noise=noise_of(noise, update, likelihood),
        symmetry=order,
    )


def own_units(
    prior: Prior, prior_scale: Literal["auto"] | None, update: Update, likelihood: Likelihood
) -> OwnUnits | None:
    """The units of a prior whose scale the run finds; None: the prior has those of the measurement.

    By default the scale is learned if the prior has units of its own and the update fits a scale.
    """
    known = prior_scale is None and not (has_own_units(prior) and update.fits_scale)
    return None if is_flat(prior) or known else OwnUnits.of(prior, plain(*likelihood.views.box_shape))


def default_update(prior: Prior, likelihood: Likelihood, diameter: float | None = None) -> Update:
    """Denoising with a prior; without a prior, a Wiener filter if micrographs have a transfer or the diameter is known, else the maximiser of Q."""
    if not is_flat(prior):
        return DenoisingUpdate()
    optics = likelihood.micrographs
    if optics is not None and optics.transfer is not None:
        return WienerUpdate()
    return ExactUpdate() if diameter is None else CompactUpdate(diameter)


def default_gauge(prior: Prior, update: Update, views: Views, diameter: float | None = None) -> Gauge | None:
    """The gauge that the update names; None: the frame is left as it is.

    For updates without a prior the box of most energy is chosen, or the inscribed disc if copies lie at any angle. An object of known diameter is
    kept in the middle of its disc, because an object at the rim leaves room for a neighbour opposite. The axis of a symmetry fixes the position: the
    prior then only rotates the target.
    """
    rotations, placed = in_plane(views), order_of(views) > 1
    if update.gauge == "centre" or (update.gauge == "energy" and diameter is not None):
        return None if placed else CentreGauge()
    if update.gauge == "energy" and rotations is not None and not placed:
        fullest = EnergyGauge(turning=not rotations.exact)
        return BetweenPixels(fullest) if rotations.exact and on_whole_pixels(views) != views else fullest
    if update.gauge == "prior" and not is_flat(prior) and rotations is not None:
        between = rotations.exact and on_whole_pixels(views) != views
        gauge = PriorGauge.of(prior, rotations.around, rotations.box_size, may_be_mirrored(views), between)
        return replace(gauge, centre=None) if placed else gauge
    return None


def coarse_views(coarse: int | Literal["auto"] | None, views: Views) -> int | None:
    """Number of views that search for copies; None: all views are scored everywhere.

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
