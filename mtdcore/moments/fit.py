"""The target whose copies have the moments of a measurement, alone or with a prior (docs/model.md 16)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import shift
from scipy.optimize import minimize

from .._base.typing import plain
from ..errors import ParameterError
from ..model.priors import FlatPrior, Prior, centre_of, denoise, has_own_units, is_flat
from ..model.sampling import sample_prior
from ..model.views import Views
from ..mstep.scale import fitted_scale
from .objective import Misfit
from .sums import Moments

#: Number of random starts of the plain fit, of iterations after which the better half continues, and of iterations of the best start.
_STARTS, _FIRST, _ITERATIONS = 4, 50, 300

#: Standard deviation, in boxes, of the Gaussian window on random starts.
_WINDOW = 0.22

#: With a prior: number of levels of the denoiser, of iterations of the fit at each level, and share of the levels at which several starts race.
_LEVELS, _EACH, _RACE = 12, 20, 1 / 3

#: First level, in root mean square pixels of the prior's images; numbers of rotations of the plain fit and of draws from the prior that race.
_LEVEL, _TURNS, _DRAWS = 1.0, 4, 4

#: Number of steps that L-BFGS stores.
_MEMORY = 20


@dataclass(frozen=True)
class MomentFit:
    """Target and numbers fitted to the moments of a measurement.

    Attributes:
        target: of the shape that the views take, float64, in the units of the measurement. Its centre of mass is at the centre of
            the prior's images, or in the middle of the box without a prior; moments do not determine the position of a target in its box.
        copies: number of copies in the measurement.
        noise_std: standard deviation of the noise.
        offset: mean of the pixels without copies.
        nats: misfit, about half of ``size`` if the model is right.
        size: number of moments that were fitted.
        scale: units of the measurement in one unit of the prior; 1: the prior has the same units.
    """

    target: np.ndarray
    copies: float
    noise_std: float
    offset: float
    nats: float
    size: int
    scale: float = 1.0


def fit_moments(
    moments: Moments,
    views: Views,
    prior: Prior | None = None,
    *,
    initial: np.ndarray | None = None,
    starts: int | None = None,
    iterations: int = _ITERATIONS,
    seed: int = 0,
) -> MomentFit:
    """Least squares with inverse-variance weights in the target and the number of copies, by L-BFGS from several starts.

    With a prior the fit alternates with its denoiser (half-quadratic splitting: Venkatakrishnan, Bouman and Wohlberg 2013;
    Zhang et al. 2021). The noise level falls from that of the prior's images to that of the average of as many copies with known
    poses, which bounds every estimate from below.

    Args:
        moments: of the measurement.
        views: of one target.
        prior: of the target; None: flat. Its scale is fitted if the prior has units of its own.
        initial: start, an image of the shape that the views take; None: random starts.
        starts: number of random starts of the plain fit; None: 4.
        iterations: of the best start.
        seed: of the starts.

    Raises:
        ParameterError: several classes, views of another box, numbers that are not positive, or an image of a wrong shape.
    """
    if min(iterations, 1 if starts is None else starts) < 1:
        raise ParameterError(f"starts and iterations should be at least 1; got {starts} and {iterations}.")
    misfit, prior = Misfit(moments, views), prior or FlatPrior()
    images = _random(views, starts or _STARTS, seed) if initial is None else [_given(initial, views)]
    candidates = [_scaled(misfit, image) for image in images]
    steps = _FIRST
    while len(candidates) > 1:
        found = [_fitted(misfit, c, min(steps, iterations)) for c in candidates]
        candidates = _best(found, (len(found) + 1) // 2)
        steps *= 2
    best = _centred(_fitted(misfit, candidates[0], iterations), views, FlatPrior())
    if not is_flat(prior):
        best = _with_prior(misfit, best, prior, seed)
    target = best.target
    mean = best.copies / misfit.pixels * misfit.mass(target)
    noise = misfit.noise_variance - misfit.copies_variance(target, best.copies)
    return MomentFit(
        target,
        best.copies,
        math.sqrt(max(noise, 0.0)),
        moments.first - mean,
        best.nats,
        misfit.size,
        best.scale,
    )


@dataclass(frozen=True)
class _Candidate:
    """A candidate of the fit: image, number of copies, misfit and scale of the prior."""

    target: np.ndarray
    copies: float
    nats: float = math.inf
    scale: float = 1.0


def _best(candidates: Sequence[_Candidate], count: int) -> list[_Candidate]:
    return sorted(candidates, key=lambda one: one.nats)[:count]


def _random(views: Views, count: int, seed: int) -> list[np.ndarray]:
    """Random pixels under a window in the middle of the box."""
    rng, shape = np.random.default_rng(seed), views.target_shape
    down, across = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (_WINDOW * n)) ** 2) for n in shape)
    return [rng.uniform(size=shape) * np.outer(down, across) for _ in range(count)]


def _given(image: np.ndarray, views: Views) -> np.ndarray:
    if image.shape != views.target_shape or not np.isfinite(image).all() or not image.any():
        raise ParameterError(
            f"a start should be a finite image of shape {views.target_shape} that is not blank; got an array of shape {image.shape}."
        )
    return image


def _scaled(misfit: Misfit, image: np.ndarray) -> _Candidate:
    """An image with the scale and the number of copies that fit best: pairs determine ``copies * scale^2``, triples ``copies * scale^3``."""
    second, third = misfit.amplitudes(image)
    if not (math.isfinite(second) and second > 0.0):
        second = misfit.noise_variance * 1e-3 * misfit.pixels / max(float(np.square(image).sum()), 1e-300)
    copies = second**3 / third**2 if third else math.inf
    copies = min(max(copies, 1.0), misfit.most_copies)
    return _Candidate(math.copysign(math.sqrt(second / copies), third) * image, copies)


def _fitted(
    misfit: Misfit,
    start: _Candidate,
    iterations: int,
    near: np.ndarray | None = None,
    level: float = math.inf,
) -> _Candidate:
    """The candidate after ``iterations`` steps of L-BFGS on the misfit plus, if ``near`` is given, ``||F - near||^2 / (2 level^2)``."""
    unit = math.sqrt(float(np.mean(np.square(start.target)))) or 1.0
    shape = start.target.shape

    def value(free: np.ndarray) -> tuple[float, np.ndarray]:
        image, copies = unit * free[:-1].reshape(shape), math.exp(free[-1])
        nats, slope, of_copies = misfit(image, copies)
        if near is not None:
            nats += float(np.square(image - near).sum()) / (2.0 * level**2)
            slope = slope + (image - near) / level**2
        return nats, np.append(unit * slope.ravel(), copies * of_copies)

    found = minimize(
        value,
        np.append(start.target.ravel() / unit, math.log(start.copies)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] * start.target.size + [(0.0, math.log(misfit.most_copies))],
        options={"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": _MEMORY},
    )
    return replace(
        start, target=unit * found.x[:-1].reshape(shape), copies=math.exp(found.x[-1]), nats=float(found.fun)
    )


def _with_prior(misfit: Misfit, plain_fit: _Candidate, prior: Prior, seed: int) -> _Candidate:
    """The fit and the denoiser in turn. The misfit of the denoised images chooses the orientation and the best of several starts."""
    views = misfit.views
    box = plain(*views.box_shape)
    drawn, own = sample_prior(prior, _DRAWS, box, seed=seed), has_own_units(prior)
    norm = math.sqrt(float(np.mean(np.square(drawn).sum(axis=(1, 2)))))
    turns = np.asarray(views.apply(plain_fit.target))
    turned = [
        replace(plain_fit, target=turns[i * len(turns) // _TURNS]) for i in range(min(_TURNS, len(turns)))
    ]
    candidates = [_centred(one, views, prior) for one in turned] + [_scaled(misfit, image) for image in drawn]
    if own:
        candidates = [replace(c, scale=float(np.linalg.norm(c.target)) / norm or 1.0) for c in candidates]
    for step in range(_LEVELS):
        share = step / (_LEVELS - 1)
        if step == round(_RACE * _LEVELS):
            candidates = _best(candidates, 1)
        candidates = [_denoised(misfit, c, prior, own, norm, share) for c in candidates]
    (best,) = candidates
    return best


def _denoised(
    misfit: Misfit, candidate: _Candidate, prior: Prior, own: bool, norm: float, share: float
) -> _Candidate:
    """A candidate denoised, fitted near its denoised image, and denoised again; ``share`` of the levels are done."""
    least = math.sqrt(misfit.noise_variance / candidate.copies)
    highest = max(_LEVEL * candidate.scale * norm / math.sqrt(candidate.target.size), least)
    level = highest ** (1.0 - share) * least**share

    def clean(one: _Candidate) -> _Candidate:
        scale = fitted_scale(prior, one.target, level, one.scale, 1.5, 0.03) if own else one.scale
        image = scale * denoise(prior, one.target[None] / scale, level / scale)[0]
        return replace(one, target=np.asarray(image, np.float64), scale=scale)

    near = clean(candidate)
    found = clean(_fitted(misfit, near, _EACH, near.target, level))
    nats, _, _ = misfit(found.target, found.copies)
    return replace(found, nats=nats)


def _centred(candidate: _Candidate, views: Views, prior: Prior) -> _Candidate:
    """The candidate with the centre of mass of its energy at the centre of the prior's images, moved by whole pixels."""
    box = views.box_shape
    wanted = centre_of(prior, plain(*box)) or tuple((n - 1) / 2 for n in box)
    energy = np.square(candidate.target)
    places = np.meshgrid(*(np.arange(n) for n in box), indexing="ij")
    moves = [round(w - float((energy * p).sum() / energy.sum())) for w, p in zip(wanted, places, strict=True)]
    return replace(candidate, target=shift(candidate.target, moves, order=0))
