"""Convergence of chains of draws (split R-hat) and their effective sample size.

Sources: Gelman, Carlin, Stern, Dunson, Vehtari and Rubin, *Bayesian Data Analysis*, 3rd edition (2013), section 11.4; Vehtari, Gelman, Simpson,
Carpenter and Bürkner, *Rank-normalization, folding, and localization: an improved R-hat* (2021), sections 3.1 and 3.2; here without ranks.
"""

from __future__ import annotations

import numpy as np

from ...errors import ParameterError

#: R-hat up to which chains count as met, in the mean over the pixels. (Vehtari et al. ask 1.01 of each number, and 400 independent draws.)
MET = 1.05


def split_r_hat(draws: np.ndarray) -> np.ndarray:
    """Split R-hat of each number: the spread of all draws over that within half a chain; 1 where chains have met, see :data:`MET`.

    Args:
        draws: (C, N, ...) draws of C chains, at least 4 of each.

    Returns:
        (...) float64.

    Raises:
        ParameterError: fewer draws.
    """
    halves = _halves(draws)
    within, total = _variances(halves)
    return np.asarray(np.sqrt(total / within))


def effective_size(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of each number: independent draws that would estimate its mean as precisely.

    Autocorrelations pooled over all split chains, summed up to the last positive pair (Geyer's initial monotone sequence, 1992).

    Args:
        draws: as :func:`split_r_hat` takes them.

    Returns:
        (...) float64.

    Raises:
        ParameterError: fewer draws.
    """
    halves = _halves(draws)
    chains, length = halves.shape[:2]
    within, total = _variances(halves)
    centred = halves - halves.mean(axis=1, keepdims=True)
    lags = [
        (centred[:, lag:] * centred[:, : length - lag]).sum(axis=1).mean(axis=0) / (length - 1)
        for lag in range(length)
    ]
    correlations = 1.0 - (within - np.asarray(lags)) / total
    correlations[0] = 1.0
    even = length // 2 * 2
    pairs = correlations[0:even:2] + correlations[1:even:2]
    known = np.logical_and.accumulate(pairs > 0.0, axis=0)
    falling = np.minimum.accumulate(pairs, axis=0)
    time = 2.0 * np.where(known, falling, 0.0).sum(axis=0) - 1.0
    return np.asarray(chains * length / np.maximum(time, 1.0 / np.log10(chains * length)))


def _halves(draws: np.ndarray) -> np.ndarray:
    """(2 C, N // 2, ...) first and second half of each chain, without the middle one of an odd number of draws."""
    length = draws.shape[1]
    if length < 4:
        raise ParameterError(f"convergence shows in at least 4 draws of a chain; got {length}.")
    half = length // 2
    return np.concatenate([draws[:, :half], draws[:, length - half :]])


def _variances(chains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean variance within a chain, and the total variance, estimated from it and the variance of the chain means."""
    length = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    between = chains.mean(axis=1).var(axis=0, ddof=1)
    return within, (length - 1) / length * within + between
