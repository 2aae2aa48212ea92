"""Images drawn from a prior: the quickest way to see what it has learned."""

from __future__ import annotations

import numpy as np

from .images import Images
from .torch_prior import TorchPrior


def generate(prior: TorchPrior, count: int, *, steps: int = 60, seed: int = 0) -> Images:
    """Draw images from the prior.

    With noise levels, the probability-flow equation ``dy/ds = -s score(y, s)`` is followed from white noise at the
    highest level down to the lowest, in geometric steps of Heun's method (Karras et al. 2022, algorithm 1). A
    plain score network is sampled by Langevin dynamics instead, ``20 steps`` steps of size 0.05, started at unit noise
    around 0: slow to mix between distant modes.

    Args:
        prior: a trained prior.
        count: number of images.
        steps: noise levels on the way down.
        seed: of the noise.

    Returns:
        (count, L, L) float32, not clipped.

    """
    generator = np.random.default_rng(seed)
    shape = (count, prior.box_size, prior.box_size)
    images = generator.standard_normal(shape, dtype=np.float32)
    low, high = prior.levels
    if high == 0:
        for _ in range(20 * steps):
            kick = generator.standard_normal(shape, dtype=np.float32)
            images = images + 0.05 * prior.score(images, 0.0) + np.float32(0.1**0.5) * kick
        return images
    images *= np.float32(high)
    levels = np.geomspace(high, low, steps)
    for level, following in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        slope = -level * prior.score(images, level)
        guess = images + (following - level) * slope
        slope = 0.5 * (slope - following * prior.score(guess, following))
        images = images + (following - level) * slope
    return np.asarray(images + low**2 * prior.score(images, low), dtype=np.float32)
