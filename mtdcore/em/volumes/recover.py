"""The recovery of a volume: its start, its iterations, and a second start if the noise proves not to be white."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ...data import MeasurementLike, open_measurement
from ...estep.backends import Backend, get_backend
from ...estep.backends.placed import placed
from ...estep.expectation import check_box_fits
from ...estep.volumes.expectation import volume_cut
from ...model.filters.optics import Micrographs, check_number
from ...model.priors import Prior
from ...model.volumes.projections import Projections
from ..online.batches import OnlineEM
from ..plan.levels import first_levels
from .arguments import check_state, check_volume_arguments, planned
from .iteration import Setting, window_model
from .noise import VolumeNoise, first_noise_model, suspected
from .plan import VolumePlan, default_separation
from .recovery import VolumeRecovery
from .starts import VolumeStart
from .state import VolumeState

#: Number of parts of the measurement, of which an iteration reads one; fewer if the measurement has fewer tiles.
_PARTS = 8

#: Nats below which an iteration is blank, and the share of a run in blank iterations at temperature 1 after which the run stops.
_BLANK, _PATIENCE = 5.0, 0.25


def recover_volume(
    measurement: MeasurementLike,
    *,
    mask: np.ndarray | None = None,
    box_size: int,
    symmetry: str = "C1",
    noise_std: float | Literal["auto"] = "auto",
    noise: VolumeNoise = "auto",
    diameter: float | None = None,
    min_separation: int | None = None,
    expected_count: float | None = None,
    amplitude_std: float | Literal["auto"] = 0.0,
    micrographs: Micrographs | None = None,
    each: bool = False,
    prior: Prior | None = None,
    initial: ArrayLike | None = None,
    starts: int = 1,
    iterations: int = 120,
    views: int = 1200,
    band: float | None = None,
    subpixel: bool = False,
    parts: int | None = None,
    seed: int | None = None,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
    plan: VolumePlan | None = None,
    callback: Callable[[VolumeState], bool | None] | None = None,
    state: VolumeState | None = None,
) -> VolumeRecovery:
    """Recover a volume from a measurement of its projections, without picking them (docs/model.md 14).

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes; particles bright.
        mask: bool, true where a pixel may be used, see :func:`mtdcore.open_measurement`.
        box_size: L in pixels.
        symmetry: point group; it is imposed late, on the axes that the volume shows.
        noise_std: of a pixel; "auto": estimated, then updated by every M-step.
        noise: "white"; or "auto": if quiet parts of the measurement are not white, and the residual after the copies is not white once the run
            has cooled, the run starts again behind a radial filter (not with a prior, nor with a given ``noise_std``); or the noise that an
            earlier run found.
        diameter: of the particle in pixels; None: the box.
        min_separation: smallest distance of two corners in pixels; None: diameter / sqrt 2, or three quarters of the box.
        expected_count: start for the number of copies; None: a tenth of the area.
        amplitude_std: standard deviation of the amplitudes of copies about 1, their mean; 0: all are alike; "auto": learned.
        micrographs: known differences between micrographs (docs/model.md 14): noise levels and numbers of copies relative to one another, and
            transfers, which are then corrected in the volume; None: no differences are known.
        each: whether every micrograph has a noise level (unless ``noise_std`` is given) and a number of copies of its own to be learned.
        prior: learned prior over volumes of this box; None: a Gaussian prior estimated from the data.
        initial: (L, L, L) start at the scale of the measurement, or (S, L, L, L); None: rough blobs.
        starts: number of rough blobs; half way only the start of most evidence continues.
        iterations: number of iterations.
        views: number of views in the end.
        band: frequency limit in the end, cycles per pixel; None: the limit that suits the box.
        subpixel: whether half pixels are scored where copies are found, for copies that lie between pixels.
        parts: number of parts of the measurement; an iteration reads one of them, the last iterations all. None: eight, or as many as there are tiles.
        seed: of starts, views and parts; None: 0, or that of the plan.
        backend: a backend or its name (:func:`mtdcore.get_backend`); "auto": the first CUDA device, or the CPU. The E-steps and the prior run in
            its array library, on its device and in its precision; templates and the rest of an M-step run on the host.
        executor: runs parts of an E-step elsewhere, with the same bits.
        plan: plan of the iterations, instead of ``symmetry``, ``iterations``, ``views``, ``band`` and ``subpixel``.
        callback: called after every iteration; returning True stops the run.
        state: a state that a callback received: the run continues from it with the same bits.

    Raises:
        ParameterError: a parameter is outside its domain, or would be overruled by the plan.
        InputError: the measurement is smaller than the box, or has no usable pixels.
    """
    check_volume_arguments(
        box_size=box_size,
        noise_std=noise_std,
        noise=noise,
        diameter=diameter,
        min_separation=min_separation,
        expected_count=expected_count,
        amplitude_std=amplitude_std,
        prior=prior,
        micrographs=micrographs,
        each=each,
        subpixel=subpixel,
        starts=starts,
        callback=callback,
    )
    asked = {"symmetry": symmetry, "iterations": iterations, "views": views, "band": band}
    plan = planned(plan, box_size, seed, **asked, subpixel=subpixel)
    source, engine = open_measurement(measurement, mask), get_backend(backend)
    check_box_fits(source, Projections(box_size, 1))
    separation = default_separation(box_size, diameter) if min_separation is None else min_separation
    tiles = source.tile_count(volume_cut(window_model(box_size, 1.0, 1.0, separation)))
    online = OnlineEM(parts=min(_PARTS, tiles) if parts is None else parts, last=0, seed=plan.seed)
    online.check_tiles(tiles)
    if micrographs is not None:
        check_number(micrographs, source.shape[0])
    own: Micrographs | Literal["each"] = "each" if micrographs is None else micrographs
    level, unlike = first_levels(source, noise_std, own if each else None)
    unlike = unlike if each else micrographs
    setting = Setting(
        plan,
        online,
        separation,
        unlike,
        each,
        diameter,
        None if prior is None else placed(prior, engine),
        None if noise_std == "auto" else float(noise_std),
        None if amplitude_std == "auto" else float(amplitude_std),
        engine,
        executor,
    )
    given = None if initial is None else np.asarray(initial, np.float64)
    start = VolumeStart(setting, source, expected_count, given, starts)
    noise_model = first_noise_model(source, noise, level)
    doubtful = noise == "auto" and noise_std == "auto" and prior is None
    suspicion = (
        suspected(source, noise_model, box_size, plan.last_band, diameter, unlike) if doubtful else None
    )
    if suspicion is not None and state is not None and state.filtered:
        noise_model = suspicion.noise_model
    step = start.iteration(noise_model)
    state = start.state(step) if state is None else state
    check_state(state, each)
    stopped: Literal["iterations", "callback", "blank"] = "iterations"
    while state.iteration < plan.iterations:
        if suspicion is not None and not state.filtered and state.iteration == plan.cooled:
            left = step.left_over(state.best, state.iteration)
            if suspicion.confirmed(left, box_size, plan.band(state.iteration)):
                step = start.iteration(suspicion.noise_model)
                state = replace(start.state(step), filtered=True)
        if _is_blank(state, plan):
            stopped = "blank"
            break
        state = step(state)
        if callback is not None and callback(state):
            stopped = "callback"
            break
    best = state.best
    final = step.statistics(step.source, best, plan.search(plan.iterations), 1.0)
    return VolumeRecovery(
        replace(state, candidates=(best,)),
        final,
        plan,
        step.noise_model,
        separation,
        stopped,
        step.micrographs_of(best),
    )


def _is_blank(state: VolumeState, plan: VolumePlan) -> bool:
    """Whether the latest iterations found nothing at temperature 1, as in pure noise, where local search saves no time."""
    last = state.history[-max(1, round(_PATIENCE * plan.iterations)) :]
    enough = len(last) >= _PATIENCE * plan.iterations
    return enough and all(one.temperature == 1.0 and one.evidence < _BLANK for one in last)
