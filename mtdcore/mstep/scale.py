"""The scale of a prior: the units of the measurement in one unit of the prior's images (docs/model.md 8).

The images of a learned prior have units of their own. The density of ``y = alpha x + N(0, s^2)``, x drawn from the prior, is
``p(y | alpha) = alpha^-n p_t(y / alpha)`` with ``t = s / alpha`` and p_t the smoothed density of the prior. The heat equation gives
its derivative in terms of the denoiser D alone, with ``u = y / alpha``:

    d log p(y | alpha) / d log alpha = <D(u; t), u - D(u; t)> / t^2 - div D(u; t)

The first term is the pull of the data on the amplitude of the denoised image. The second term, the number of degrees of freedom
that the denoiser takes from y, is the expected pull of the noise in them. The best alpha balances the two.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array
from ..estep.statistics import Statistics
from ..model.priors import Prior, denoise

#: Number of random directions for the divergence (Hutchinson 1990), the same in every call, so that the slope is deterministic.
_PROBES = 2

#: Length of the steps along these directions, in noise levels: small enough for a nonlinear denoiser, large enough for float32.
_STEP = 0.1

#: Number of slopes evaluated in one search, after the first; first step of the search, in the logarithm of the scale.
_EVALUATIONS, _FIRST_STEP = 8, 0.1

#: Relative precision at which a search stops, in general and inside the loop of EM, where the next iteration continues the search.
_PRECISION, _PRECISION_OF_A_STEP = 0.005, 0.03


#: Largest factor by which one M-step changes the scale, as the average may come from wrong poses.
_REACH = 1.5


def observed_scale(prior: Prior, target: Array, statistics: Statistics, scale: float) -> float:
    """The scale after one E-step, fitted to the average from which a denoising M-step starts.

    The average is ``target + sigma^2 grad Q(target) / c`` at the level ``sigma / sqrt(c)``, c the bound of the normal operator
    (:class:`mtdcore.mstep.updates.DenoisingUpdate`).

    Args:
        prior: in units of its own.
        target: at which the statistics were computed, one class.
        statistics: of that class; same array library.
        scale: before the E-step; kept if the E-step found nothing.
    """
    if statistics.normal.bound <= 0.0:
        return scale
    average, level = statistics.aligned(target)
    return fitted_scale(prior, average, level, scale, _REACH, _PRECISION_OF_A_STEP)


def scale_slope(prior: Prior, image: Array, level: float, scale: float) -> float:
    """``d log p(image | alpha) / d log alpha`` at alpha = ``scale``, nats.

    Args:
        prior: in units of its own.
        image: (*target_shape) floating-point array of any library, in units of the measurement: a clean image and white noise.
        level: standard deviation s > 0 of that noise, in the same units.
        scale: alpha > 0.
    """
    xp, where = array_namespace(image), device(image)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(_PROBES, *image.shape))
    unit, reduced = image / scale, level / scale
    moved = xp.asarray(_STEP * reduced * signs, dtype=image.dtype, device=where)
    clean = denoise(prior, xp.concat([unit[None, ...], unit[None, ...] + moved]), reduced)
    pull = float(xp.sum(clean[0, ...] * (unit - clean[0, ...]))) / reduced**2
    # one-sided differences are enough: the second-order error of a nonlinear denoiser is odd in the random signs, and averages to 0
    change = clean[1:, ...] - clean[:1, ...]
    divergence = float(xp.sum(change * moved)) / ((_STEP * reduced) ** 2 * _PROBES)
    return pull - divergence


def fitted_scale(
    prior: Prior,
    image: Array,
    level: float,
    scale: float,
    reach: float = 2.0,
    precision: float = _PRECISION,
) -> float:
    """The scale nearest to ``scale`` at which the density of a noisy image is largest.

    The search goes uphill from ``scale`` in doubling steps until the slope changes its sign, then narrows the bracket by regula
    falsi (Illinois).

    Args:
        prior: in units of its own.
        image: as in :func:`scale_slope`.
        level: as in :func:`scale_slope`.
        scale: start of the search.
        reach: largest factor by which the result differs from the start.
        precision: relative distance of two candidates at which the search ends.

    Returns:
        alpha; ``scale`` if the slope is not finite.
    """
    start, left = math.log(scale), _EVALUATIONS
    slope = scale_slope(prior, image, level, scale)
    if not math.isfinite(slope) or slope == 0.0:
        return scale
    below = start  # the last point with an uphill slope
    way, limit, step = math.copysign(1.0, slope), math.log(reach), _FIRST_STEP
    while True:
        beyond = start + way * min(limit, abs(below - start) + step)
        other = scale_slope(prior, image, level, math.exp(beyond))
        left, step = left - 1, 2.0 * step
        if not math.isfinite(other):
            return math.exp(below)
        if slope * other <= 0.0:
            break
        if abs(beyond - start) >= limit or not left:
            return math.exp(beyond)
        below, slope = beyond, other
    while True:
        best = (below * other - beyond * slope) / (other - slope)
        if not left or min(abs(best - below), abs(best - beyond)) < precision:
            return math.exp(best)
        found, left = scale_slope(prior, image, level, math.exp(best)), left - 1
        if found == 0.0:
            return math.exp(best)
        if found * other > 0.0:  # the same end moved twice: halve the weight of the other end
            beyond, other, slope = best, found, slope / 2.0
        else:
            below, slope, beyond, other = beyond, other, best, found
