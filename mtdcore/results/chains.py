"""Chains of draws from the posterior of the target with unknown poses, offset and numbers (docs/trust.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import MeasurementLike, open_measurement
from ..em.checks.doubts import undoubted
from ..em.recover import recover
from ..em.state import EMState, Recovery
from ..errors import ParameterError
from ..mstep.langevin import LangevinUpdate
from .uncertainty import PosteriorSamples, average_level


def posterior_chains(
    measurement: MeasurementLike,
    recovery: Recovery,
    /,
    chains: int = 4,
    draws: int = 25,
    thin: int = 4,
    seed: int = 0,
    levels: int = 32,
    **options: Any,
) -> PosteriorSamples:
    """Draws from the posterior of the target given the measurement, poses integrated out, with any likelihood.

    Each chain repeats the recovery from its result, with Langevin steps instead of M-steps (:class:`mtdcore.mstep.langevin.LangevinUpdate`). The numbers
    of the likelihood are updated in every iteration as in the run, so that their uncertainty widens the draws as well. The frame stays, and a chain does
    not leave a wrong optimum. A quarter of the iterations comes before the first draw. If the poses withhold the share 1 - a of the information, the
    correlation time of a chain is about 1 / a iterations: :attr:`PosteriorSamples.r_hat` and :attr:`PosteriorSamples.effective_size` show whether the
    chains were long enough.

    Args:
        measurement: what was recovered from.
        recovery: the result, of one image.
        chains: number of chains.
        draws: of each chain.
        thin: iterations from one draw to the next; ``chains * draws * thin * 4 / 3`` E-steps in all.
        seed: of the deviations.
        levels: of the reverse diffusion of one deviation; the prior is evaluated about twice as often.
        options: keyword arguments that :func:`mtdcore.recover` was called with, without ``seed``.

    Returns:
        (chains * draws, L, L) images, one chain after the other, in the units of the measurement.

    Raises:
        ParameterError: several classes, fewer than one chain, 4 draws or one iteration.
        InputError: the recovery found no copies.
    """
    if recovery.target.ndim != 2:
        raise ParameterError(
            f"chains walk among images of one target; got targets of shape {recovery.target.shape}: recover one class."
        )
    if chains < 1 or draws < 4 or thin < 1:
        raise ParameterError(
            f"chains should be at least 1, of at least 4 draws that are at least 1 iteration apart; got {chains}, {draws} and {thin}."
        )
    average_level(recovery)  # there are copies
    source = open_measurement(measurement, options.pop("mask", None))
    callback, kept = options.pop("callback", None), draws * thin
    iterations = -(-4 * kept // 3)
    images: list[np.ndarray] = []

    def keep(state: EMState) -> bool:
        left = iterations - state.iteration
        if left < kept and left % thin == 0:
            images.append(state.target)
        return callback is not None and bool(callback(state))

    fixed = {
        "likelihood": recovery.likelihood,
        "method": "em",
        "noise": "white",  # the filter of the recovery stays
        "initial": recovery.target,
        "starts": None,
        "micrographs": None,
        "gauge": None,
        "temperature": None,
        "tolerance": 0.0,
        "online": None,
        "iterations": iterations,
        "callback": keep,
    }
    for chain in range(chains):
        update = LangevinUpdate((seed, chain), levels)
        with undoubted():
            recover(source, **{**options, **fixed, "update": update})
    return PosteriorSamples(np.stack(images), chains)
