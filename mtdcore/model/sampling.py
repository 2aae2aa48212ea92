"""Ancestral sampling with a denoiser: from a prior, or from a posterior (docs/model.md 5, 10)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from .._base.typing import Lengths
from .priors import Prior, denoise, spread_of

#: Lowest level of a chain in spreads of the prior, at which the posterior mean is the sample.
_LAST_LEVEL = 0.02

#: First level of a chain in the same units: for images, and for volumes relative to the norm of one of root mean square 1.
_IMAGE_LEVEL, _VOLUME_LEVEL = 10.0, 1.5


def sample_prior(
    prior: Prior,
    count: int,
    box_size: Lengths,
    *,
    level: float | None = None,
    steps: int = 24,
    seed: int = 0,
    dimension: int = 2,
) -> np.ndarray:
    """Images or volumes drawn from the prior by the reverse diffusion from white noise of standard deviation ``level``.

    Args:
        prior: the prior.
        count: number B.
        box_size: side L in pixels; of images also (height, width).
        level: start of the chain in spreads of the prior (:func:`spread_of`), well above the spread of the samples in any direction;
            None: 10 for images; for volumes 1.5 times the norm of a volume of root mean square 1, enough to hide the mean of the prior.
        steps: number of levels from ``level`` down to 0.02 spreads, spaced geometrically; volumes need about twice as many.
        seed: seed of the noise.
        dimension: 2 for images, 3 for volumes.

    Returns:
        (B, L, L) or (B, L, L, L) float64.
    """
    shape = box_size if isinstance(box_size, tuple) else (box_size,) * dimension
    if level is None:
        level = _IMAGE_LEVEL if dimension == 2 else _VOLUME_LEVEL * math.sqrt(math.prod(shape))
    noise, level = np.random.default_rng(seed), level * spread_of(prior)
    start = level * noise.standard_normal((count, *shape))
    return sample_from(prior, start, level, steps=steps, noise=noise)


def sample_from(
    prior: Prior,
    images: np.ndarray,
    level: float,
    *,
    steps: int,
    noise: np.random.Generator,
    corrected: bool = False,
) -> np.ndarray:
    """Draws from the posterior of clean images given images with white noise of standard deviation ``level``.

    Each step draws from q(x_next | x, x_0) of the variance-exploding diffusion with x_0 the posterior mean
    (Ho, Jain and Abbeel 2020, eq. 7, in terms of additive noise). That is an Euler step in the precision 1 / s^2: with n levels the spread
    of the draws is too small by about 3 / n (130 levels: 2 to 3 %). Heun's method averages the posterior means at both ends of the step; its
    error is of second order.

    The result is the posterior mean at the last level s, which lacks the remaining covariance ``s^2 J`` (J the Jacobian of the denoiser). If
    noise of level s is added first, the result has the covariance ``s^2 J^2``, nearly the same: at a low level the eigenvalues of J are near
    0 or 1. Lower levels are not an alternative: networks were not trained on them.

    Args:
        prior: the prior.
        images: (B, L, L) float64 noisy images, or (B, L, L, L) volumes.
        level: noise level of the images.
        steps: number of levels, spaced geometrically down to 0.02 spreads of the prior.
        noise: source of randomness.
        corrected: Heun's method, two evaluations of the prior for each step, and noise before the last posterior mean.

    Returns:
        The same shape, float64.
    """
    levels = np.geomspace(level, min(_LAST_LEVEL * spread_of(prior), level / 2), steps)
    for now, following in pairwise(levels):
        keep = (following / now) ** 2
        spread = following * math.sqrt(1.0 - keep)
        mean = denoise(prior, images, float(now))
        images = mean + keep * (images - mean) + spread * noise.standard_normal(images.shape)
        if corrected:
            images = images + 0.5 * (1.0 - keep) * (denoise(prior, images, float(following)) - mean)
    if corrected:
        images = images + levels[-1] * noise.standard_normal(images.shape)
    return np.asarray(denoise(prior, images, float(levels[-1])))
