"""Uncertainty of the target: draws from its posterior, and the share of it that the data determine.

Both start from the posterior-aligned average y, whose noise is white with standard deviation ``s = sigma / sqrt(p)`` in
the window model (docs/model.md 8): a denoising problem at one known level. The uncertainty of noise level, number of
copies and poses is not included, so intervals are too narrow if poses are uncertain; :func:`unbiased_average` accounts
for the poses in the mean over all pixels, :func:`.chains.posterior_chains` for poses and numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._base.numerics.convergence import effective_size, split_r_hat
from .._base.typing import Array
from ..data import MeasurementLike, open_measurement
from ..em.state import Recovery
from ..errors import InputError, ParameterError
from ..estep.backends import Backend, get_backend
from ..estep.posteriors import posteriors
from ..model.priors import Prior, denoise
from ..model.sampling import sample_from
from ..model.symmetry import order_of

#: Half the step of the difference quotient, in units of the noise level: small beside the noise, large beside rounding.
_STEP = 0.05


@dataclass(frozen=True, eq=False)
class PosteriorSamples:
    """Draws from the posterior of the target.

    Attributes:
        images: (N, L, L) float64, one chain after the other.
        chains: number of chains of the draws; draws of :func:`posterior_samples` are independent.
    """

    images: np.ndarray
    chains: int = 1

    @property
    def mean(self) -> np.ndarray:
        """(L, L) posterior mean."""
        return np.asarray(self.images.mean(axis=0))

    @property
    def std(self) -> np.ndarray:
        """(L, L) posterior standard deviation of every pixel."""
        return np.asarray(self.images.std(axis=0, ddof=1))

    @property
    def r_hat(self) -> np.ndarray:
        """(L, L) split R-hat of every pixel (:mod:`mtdcore._base.numerics.convergence`); above about 1.05 the chains should be longer."""
        return split_r_hat(self._by_chain)

    @property
    def effective_size(self) -> np.ndarray:
        """(L, L) effective number of independent draws for the mean of a pixel (:mod:`mtdcore._base.numerics.convergence`)."""
        return effective_size(self._by_chain)

    @property
    def _by_chain(self) -> np.ndarray:
        return np.reshape(self.images, (self.chains, -1, *self.images.shape[1:]))

    def interval(self, probability: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """(L, L) lower and upper bounds that hold each pixel with this posterior probability, equal tails.

        The bounds hold a further draw with this probability (Weibull's quantiles: the k-th of n draws stands for ``k / (n + 1)``). Other
        quantiles are too narrow: from 100 draws they hold 88 % instead of 90 %.

        Raises:
            ParameterError: a probability outside (0, 1).
        """
        if not 0.0 < probability < 1.0:
            raise ParameterError(f"the probability should lie strictly between 0 and 1; got {probability}.")
        tail = (1.0 - probability) / 2.0
        low, high = np.quantile(self.images, [tail, 1.0 - tail], axis=0, method="weibull")
        return low, high

    def coverage(self, truth: np.ndarray, probability: float = 0.9) -> float:
        """Share of the pixels of the (L, L) truth inside :meth:`interval`; in the frame of the images."""
        low, high = self.interval(probability)
        return float(np.mean((low <= truth) & (truth <= high)))


def average_level(recovery: Recovery) -> float:
    """Noise level ``sigma / sqrt(n p)`` of the aligned average, in the units of the measurement; symmetry C_n counts copies n times.

    Patch model: at the mean coverage of a pixel; the noise is larger at the edge of the box.

    Raises:
        InputError: the recovery found no copies to average.
    """
    if not recovery.expected_count > 0.0:
        raise InputError(
            f"an average needs copies; the recovery expects {recovery.expected_count:g}: there is nothing to be sure of."
        )
    copies = recovery.statistics.amplitude_squares
    return recovery.noise_std / math.sqrt(order_of(recovery.likelihood.views) * copies)


def unbiased_average(
    measurement: MeasurementLike, recovery: Recovery, backend: str | Backend = "auto"
) -> tuple[np.ndarray, float]:
    """The aligned average without the bias towards the target that aligned it, and its noise level.

    If poses are uncertain, part of the posterior mass lies on noise that resembles the target, and averages to the
    target. The share of the information that remains, ``a = sum w^2 / sum w`` over all poses (Louis 1982, at pixels
    where the target is flat; if amplitudes differ, of ``(w m)^2`` and ``w q``), corrects this: ``F + (y - F) / a`` with noise
    ``sigma / sqrt(a p)``. Draws given this average have the right spread where those given y (a = 1) are too narrow.

    Args:
        measurement: of the recovery.
        recovery: the result, of the window model with one class.
        backend: a backend or its name; "auto": the first CUDA device, or the CPU.

    Returns:
        (L, L) float64 average and its level, for :func:`posterior_samples`.

    Raises:
        ParameterError: another model, or micrographs that are not alike.
        InputError: the recovery found no copies.
    """
    model, target = recovery.likelihood, recovery.target
    if not model.localises or target.ndim != 2:
        raise ParameterError(
            "an unbiased average needs a recovery of one target by the window model; "
            f"got {type(model).__name__} and targets of shape {target.shape}."
        )
    if model.micrographs is not None:
        raise ParameterError(
            "an unbiased average needs micrographs that are alike; the recovery tells them apart."
        )
    level = average_level(recovery)
    mass = squares = 0.0
    source, engine = open_measurement(measurement), get_backend(backend)
    for _, found in posteriors(source, target, model, engine, moment=1):
        weights = np.asarray(found, dtype=np.float64)
        mass += float(weights.sum())
        squares += float(np.square(weights).sum())
    if model.amplitudes is not None:
        every = posteriors(source, target, model, engine, moment=2)
        mass = sum(float(found.sum(dtype=np.float64)) for _, found in every)
    share = squares / mass
    return target + (recovery.aligned_average - target) / share, level / math.sqrt(share)


def posterior_samples(
    average: np.ndarray,
    level: float,
    prior: Prior,
    count: int = 100,
    seed: int = 0,
    *,
    steps: int = 64,
    batch: int = 64,
) -> PosteriorSamples:
    """Draw targets from the posterior given the aligned average: reverse diffusion from its own noise level.

    Args:
        average: (L, L) aligned average, ``Recovery.aligned_average``.
        level: its noise level, :func:`average_level`.
        prior: the prior it was recovered with, in NumPy.
        count: number of draws, at least 2.
        seed: of the draws.
        steps: levels of the reverse diffusion, two evaluations of the prior each; with few the draws spread too little,
            by half a per cent at most with 64 and by up to 2 % with 32.
        batch: number of images per evaluation of the prior.

    Raises:
        ParameterError: fewer than two draws or steps.
    """
    if count < 2 or steps < 2 or batch < 1:
        raise ParameterError(
            "a posterior spread needs at least 2 draws and 2 steps, in batches of at least 1; "
            f"got {count}, {steps} and {batch}."
        )
    noise = np.random.default_rng(seed)
    draws = [
        sample_from(prior, _repeated(average, size), level, steps=steps, noise=noise, corrected=True)
        for size in _batches(count, batch)
    ]
    return PosteriorSamples(np.concatenate(draws))


def data_share(average: np.ndarray, level: float, prior: Prior, probes: int = 16, seed: int = 0) -> float:
    """Share of the target that comes from the data: their precision over that of data and prior together.

    It is the mean diagonal of the denoiser's Jacobian at the aligned average, which is ``tau^2 / (tau^2 + s^2)`` for a
    Gaussian prior of variance tau^2, 1 without a prior, and 0 if the target would be the same for any data.
    Hutchinson's estimate: random signs v, ``v . J v`` by central differences.

    Args:
        average: (L, L) aligned average, ``Recovery.aligned_average``.
        level: its noise level, :func:`average_level`.
        prior: the prior it was recovered with, in NumPy.
        probes: number of random vectors; the standard error falls as its square root.
        seed: of the probes.

    Raises:
        ParameterError: no probes.
    """
    if probes < 1:
        raise ParameterError(f"the share is estimated from at least 1 probe; got {probes}.")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(probes, *average.shape))
    step = _STEP * level
    ahead, behind = (denoise(prior, average + way * step * signs, level) for way in (1.0, -1.0))
    return float(np.mean(signs * (ahead - behind)) / (2.0 * step))


def _repeated(image: Array, count: int) -> np.ndarray:
    return np.repeat(np.asarray(image)[None], count, axis=0)


def _batches(count: int, size: int) -> list[int]:
    """Sizes of consecutive batches that add up to ``count``."""
    return [min(size, count - start) for start in range(0, count, size)]
