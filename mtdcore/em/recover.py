"""The main entry: from a measurement to the target of its copies."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .._base.typing import plain
from ..data import MeasurementLike, open_measurement
from ..errors import ParameterError
from ..estep.backends import Backend, get_backend
from ..estep.backends.placed import placed
from ..estep.expectation import check_box_fits
from ..model.filters.optics import Micrographs
from ..model.likelihood import Likelihood
from ..model.priors import FlatPrior, Prior, ScaledPrior
from ..model.views import Views
from ..moments.fit import MomentFit, fit_moments
from ..moments.measure import measure_moments
from ..mstep.noise import Noise
from ..mstep.updates import Update
from .checks.arguments import (
    Method,
    asks_for_moments,
    check_agreement,
    check_amplitude_std,
    check_arguments,
    check_diameter,
    check_subpixel,
)
from .checks.doubts import doubt
from .framing import Framing
from .gauge.seen import Gauge
from .loop import Iteration, run
from .online.batches import OnlineEM
from .plan.beginning import Box, begin_likelihood, begin_noise, begin_offset, begin_state, box_shape, views_of
from .plan.defaults import begin_plan, default_update
from .plan.starts import Start
from .state import EMState, Recovery


def recover(
    measurement: MeasurementLike,
    *,
    mask: np.ndarray | None = None,
    box_size: Box,
    rotations: int | Views | None = None,
    coarse_rotations: int | Literal["auto"] | None = "auto",
    noise_std: float | Literal["auto"] = "auto",
    noise: Noise = "auto",
    offset: float | Literal["auto"] | None = "auto",
    prior: Prior | None = None,
    prior_scale: float | Literal["auto"] | None = None,
    likelihood: Literal["window", "patch"] | Likelihood = "window",
    min_separation: int | Literal["auto"] | None = None,
    diameter: float | None = None,
    expected_count: float | None = None,
    classes: int = 1,
    symmetry: str = "C1",
    mirror: bool = False,
    subpixel: bool = False,
    amplitude_std: float | Literal["auto"] = 0.0,
    micrographs: Micrographs | Literal["each"] | None = None,
    update: Update | None = None,
    method: Method = "em",
    initial: ArrayLike | Start | None = None,
    starts: int | None = None,
    gauge: Gauge | Literal["auto"] | None = "auto",
    iterations: int = 60,
    tolerance: float = 1e-5,
    temperature: float | Literal["auto"] | None = None,
    online: OnlineEM | None = None,
    backend: str | Backend = "auto",
    seed: int = 0,
    executor: Executor | None = None,
    callback: Callable[[EMState], bool | None] | None = None,
    state: EMState | None = None,
) -> Recovery:
    """Recover the target image from a measurement, without picking its copies.

    Args:
        measurement: anything :func:`open_measurement` takes; the mask of a ``numpy.ma`` array is kept.
        mask: bool, true where a pixel may be used, see :func:`open_measurement`.
        box_size: side L of the box in pixels, or (height, width): (1, w) for a motif of w samples in a signal, (channels, w) in a signal of
            several channels, which the box then fills.
        rotations: views of the target, or a number K of equally spaced in-plane rotations. For copies at any angle K is about pi L:
            neighbouring angles then differ by one pixel at the edge of the box. None: 4, or 1 in a box that is not square, which allows 1 or 2 only.
        coarse_rotations: window model: number of angles that search for copies; all K are scored only where a copy is
            likely (:mod:`mtdcore.estep.local`); None: all K are scored everywhere; "auto": about pi L / 4 if K is at least twice that.
        noise_std: standard deviation of the noise in the units of the measurement; "auto": estimated, then
            updated by every M-step.
        noise: "white"; "spectrum": a 2-D spectrum is learned with the target, so that stripes count, and measurement and templates are
            whitened with it (docs/model.md 15); "auto": white, unless the residual after the copies departs from white by more than chance;
            a slow background is removed (white for :class:`GradientAscent` and the patch model, as published). The result states what was found.
        offset: mean of the pixels without copies, in the units of the measurement; "auto": the median, updated by
            every M-step after the first quarter of the iterations (0 for :class:`GradientAscent`, the published method); None: 0, or that of a likelihood object.
        prior: prior over targets; None: flat.
        prior_scale: units of the measurement in one unit of the prior's images; "auto": found for each class by the
            likelihood (:mod:`mtdcore.mstep.scale`); None: "auto" if the prior has units of its own, as learned priors have,
            and the update denoises, else 1.
        likelihood: "window" (docs/model.md 7), "patch" (docs/model.md 3, uniform pose prior as in the paper), or a
            likelihood object of this box and these rotations, whose tied parameters are the start; it then decides
            noise, count and separation.
        min_separation: smallest distance of two corners in pixels (window model); None: box_size; "auto": half the box at
            first, then the closest distance at which copies of the size of the target do not overlap.
        diameter: of the target in pixels, if it is known, as that of a particle is. It restricts the target to a soft disc in the middle of the
            box and the dark fringe around it, and sets the minimum separation (``diameter / sqrt(2)``, unless that is a number) and the widths of the starts.
        expected_count: start for the number of copies (window model); None: a tenth of the area.
        classes: number C of targets that copies may show; the result then holds (C, L, L) images and their weights.
        symmetry: "Cn" of the target about the middle of its box (between pixels if the side is even, on a pixel if it is odd): the
            M-step projects on the images that are invariant under rotation by ``360 / n`` degrees, and of K angles the
            ``K / gcd(K, n)`` that differ are scored. Exact if n divides 4, by interpolation otherwise.
        mirror: whether copies may be mirrored, as particles that lie on either face are; the prior, or the start, decides which of
            two mirror images is the target.
        subpixel: window model: copies lie between pixels. The search is on whole pixels, and half pixels are scored as
            well where a copy is likely; ``coarse_rotations=None`` scores all everywhere.
        amplitude_std: window model: standard deviation of the amplitudes of the copies, whose mean is 1; "auto": .3 at first, learned once
            the race is over and the temperature is 1; 0: copies are alike. A likelihood object keeps its own value, which is the start for "auto".
        micrographs: differences between the micrographs: their own noise levels and numbers of copies, estimated and
            updated as the common ones are, and their transfer. "each": only that levels and numbers differ; None: micrographs are alike.
        update: the M-step; None: :class:`DenoisingUpdate` with a prior; without, :class:`WienerUpdate` if micrographs have
            a transfer, :class:`CompactUpdate` with a ``diameter``, else :class:`ExactUpdate`.
        method: "em"; "moments": the target whose copies have the moments of the measurement up to the third order (docs/model.md 16), in one pass and
            without poses, for well separated copies; an E-step at that target gives the rest of the result. ``iterations`` and related arguments
            are not used.
        initial: start or starts: an (L, L) image, an (S, L, L) stack (with C classes (C, L, L) or (S, C, L, L)), "random" (uniform pixels, so
            weak that a copy is worth two nats at the first temperature), "faint" (the same at temperature 1), "blob" (a faint
            bright Gaussian blob, several of different widths), "samples" (drawn from the prior), "several" (blobs, a ring and faint ones, and with a prior as many
            draws from it), "moments" (the target, count and noise level of ``method="moments"``), "uniform" (U[0, 1] per pixel whatever the
            units, as published); None: several with a ``diameter``; samples with a prior; several instead of random ones in a box that is not square;
            faint for :class:`WienerUpdate`, uniform for :class:`GradientAscent`, else random.
        starts: number of random starts. With a prior and no ``diameter`` the evidence eliminates all but one during the first quarter of the
            iterations; otherwise up to six run to the end, and a larger number is reduced to six by half of the iterations.
            None: 16 samples, 6 of several kinds (12 with a prior), 4 random ones (of moments, too), or one of any other kind.
        gauge: how the frame of the target is chosen, at each quarter of the iterations and on convergence
            (docs/model.md 9); "auto": by the prior for denoising updates, in the middle of the box for
            :class:`WienerUpdate`, the frame of most energy for :class:`ExactUpdate`, else None: left as it is.
        iterations: largest number of iterations.
        tolerance: stop when ``||F_next - F||`` falls below so many noise levels and the gauge is settled.
        temperature: run at noise variance ``T sigma^2``, T falling geometrically from this to 1 over the first
            60 % of the iterations; "auto": the start at about 10 nats per copy (docs/model.md 8); None: "auto"
            for random and uniform starts of the window model, which need it if the signal is strong, and for samples, at 50
            nats per copy; 1 otherwise.
        online: mini-batch EM: an iteration reads a part of the measurement. None: an iteration reads all of it.
        backend: a backend or its name; "auto": the first CUDA device, or the CPU.
        seed: of the random starts.
        executor: runs the E-step in parts elsewhere, see :func:`e_step`.
        callback: called after every iteration; returning True stops the run.
        state: a state that a callback received: the run continues from it with the same bits.

    Raises:
        ParameterError: a parameter is outside its domain.
        InputError: the measurement is smaller than the box or has no usable pixels.
    """
    check_arguments(
        rotations=rotations,
        prior=prior,
        update=update,
        micrographs=micrographs,
        min_separation=min_separation,
        coarse_rotations=coarse_rotations,
        starts=starts,
        seed=seed,
        iterations=iterations,
        tolerance=tolerance,
        temperature=temperature,
        noise=noise,
        callback=callback,
    )
    check_diameter(diameter, box_shape(box_size))
    check_subpixel(subpixel, likelihood)
    check_amplitude_std(amplitude_std, likelihood)
    source = open_measurement(measurement, mask)
    engine = get_backend(backend)
    prior = placed(prior or FlatPrior(), engine)
    if update is not None:
        check_agreement(prior, update)
    if isinstance(prior_scale, int | float):
        prior, prior_scale = ScaledPrior(prior, float(prior_scale)), None
    elif prior_scale not in (None, "auto"):
        raise ParameterError(f'prior_scale must be a positive number, "auto" or None; got {prior_scale!r}.')
    if state is None:
        views = views_of(rotations, box_size, classes, symmetry, mirror, subpixel)
        check_box_fits(source, views)
        fit: MomentFit | None = None
        count, level = expected_count, noise_std
        if asks_for_moments(method, initial, micrographs):
            box = plain(*views.box_shape)
            moments = measure_moments(source, box, backend=engine, executor=executor)
            image = None if initial is None or isinstance(initial, str) else np.asarray(initial, np.float64)
            fit = fit_moments(moments, views, prior, initial=image, starts=starts, seed=seed)
            initial, starts, count = fit.target, None, count or fit.copies
            level = (fit.noise_std or level) if level == "auto" else level
        begun = begin_likelihood(
            likelihood, source, views, level, min_separation, count, micrographs, diameter, amplitude_std
        )
        update = update or default_update(prior, begun, diameter)
        given = not isinstance(likelihood, str)
        seen = (
            fit.offset
            if fit is not None and offset == "auto" and update.learns_offset and not given
            else offset
        )
        begun = begin_offset(begun, source, seen, update, given)
        begun = begin_noise(begun, source, noise, update, engine, given)
        state = begin_state(
            begun,
            source,
            prior,
            prior_scale,
            update,
            initial,
            starts,
            temperature,
            iterations,
            seed,
            diameter,
        )
    check_box_fits(source, state.likelihood.views)
    plan = begin_plan(
        source,
        state.likelihood,
        prior=prior,
        prior_scale=prior_scale,
        update=update,
        gauge=gauge,
        coarse_rotations=coarse_rotations,
        online=online,
        iterations=0 if method == "moments" else iterations,
        tolerance=tolerance,
        learn_noise=noise_std == "auto",
        learn_amplitude=amplitude_std == "auto",
        offset=offset,
        learn_separation=min_separation == "auto" and isinstance(likelihood, str) and diameter is None,
        diameter=diameter,
        noise=noise,
        backend=engine,
        executor=executor,
    )
    recovery = run(plan, source, state, callback)
    framing = Framing(plan, source, Iteration(plan, source).statistics)
    doubt(recovery, source, noise_std != "auto", diameter, framing)
    return recovery
