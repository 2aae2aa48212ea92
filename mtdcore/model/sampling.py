"""Ancestral sampling with nothing but a denoiser: from a prior, or from a posterior (docs/model.md 5, 10)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from .priors import Prior, denoise, spread_of

#: Lowest level of a chain, where the denoiser's answer is taken as it is, and the highest of draws from a prior: in
#: units of the images' spread.
_LAST_LEVEL, _FIRST_LEVEL = 0.02, 10.0


def sample_prior(
    prior: Prior, count: int, box_size: int, *, level: float | None = None, steps: int = 24, seed: int = 0
) -> np.ndarray:
    """Images drawn from the prior by the reverse diffusion from white noise of standard deviation ``level``.

    Args:
        prior: the prior.
        count: number of images B.
        box_size: side L in pixels.
        level: start of the chain, well above the spread of the images; None: ten times that.
        steps: levels from there down to 0.02 spreads, spaced geometrically.
        seed: of the noise.

    Returns:
        (B, L, L) float64.
    """
    noise = np.random.default_rng(seed)
    level = _FIRST_LEVEL * spread_of(prior) if level is None else level
    start = level * noise.standard_normal((count, box_size, box_size))
    return sample_from(prior, start, level, steps=steps, noise=noise)


def sample_from(
    prior: Prior, images: np.ndarray, level: float, *, steps: int, noise: np.random.Generator
) -> np.ndarray:
    """Draws from the posterior of clean images given images with white noise of standard deviation ``level``.

    Each step draws from q(x_next | x, x_0) of the variance-exploding diffusion with x_0 the posterior mean
    (Ho, Jain and Abbeel 2020, eq. 7, in terms of additive noise).

    Args:
        prior: the prior.
        images: (B, L, L) float64 noisy images.
        level: their noise level.
        steps: levels, spaced geometrically down to 0.02 spreads of the prior.
        noise: source of randomness.

    Returns:
        (B, L, L) float64.
    """
    levels = np.geomspace(level, min(_LAST_LEVEL * spread_of(prior), level / 2), steps)
    for now, following in pairwise(levels):
        keep = (following / now) ** 2
        spread = following * math.sqrt(1.0 - keep)
        mean = denoise(prior, images, float(now))
        images = mean + keep * (images - mean) + spread * noise.standard_normal(images.shape)
    return np.asarray(denoise(prior, images, float(levels[-1])))
