"""The meanings of a network's output, each translated into the score of the smoothed density (docs/model.md 5).

=============  =============================  ==================================================
name           network                        score of *image + N(0, s^2)* at y
=============  =============================  ==================================================
score          ``net(x)``                     ``net(y)``: level 0 only
vp-score       ``net(x_t, t)``                ``a net(a y, t(s))``
epsilon        ``net(x_t, t)``, the noise     ``-a net(a y, t(s)) / sqrt(1 - a^2)``
denoiser       ``net(y, s)``                  ``(net(y, s) - y) / s^2``
=============  =============================  ==================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from mtdcore.errors import ParameterError

from . import sde

Parameterisation = Literal["score", "vp-score", "epsilon", "denoiser"]
LevelRange = tuple[float, float]

#: The paper trains on t in (0, 1] and evaluates at t = 0.01, the smallest time at which the network is called.
VP_LEVELS: LevelRange = (
    sde.level_at(torch.tensor(0.01, dtype=torch.float64)).item(),
    sde.level_at(torch.tensor(1.0, dtype=torch.float64)).item(),
)


def check_parameterisation(name: str, levels: LevelRange) -> None:
    """Refuse unknown names and level ranges that make no sense for them.

    Raises:
        ParameterError: the name is unknown, or the levels do not fit it.
    """
    if name not in get_args(Parameterisation):
        expected = ", ".join(get_args(Parameterisation))
        raise ParameterError(f"parameterisation must be one of {expected}; got {name!r}.")
    low, high = levels
    if name == "score":
        if (low, high) != (0.0, 0.0):
            raise ParameterError(f"a plain score network knows level 0 only; got the levels {levels}.")
    elif not (0 < low < high and math.isfinite(high)):
        raise ParameterError(f"levels must satisfy 0 < lowest < highest; got {levels}.")


def smoothed_score(
    network: Callable[..., Tensor],
    parameterisation: Parameterisation,
    images: Tensor,
    level: float,
    levels: LevelRange,
) -> Tensor:
    """Score of the density smoothed to ``level``; the network is called at levels within ``levels`` only.

    Below the range the score of the lowest level is returned. Above it, the images are shrunk first to
    ``y' = y (s_high / s)^2``. The log-likelihoods of the clean image given y' at s_high and given y at s have the same
    linear term, and small quadratic terms, so ``D(y; s) ~ D(y'; s_high)``.

    Args:
        network: the model; called on the batch at once.
        parameterisation: what its output means.
        images: (B, L, L).
        level: s >= 0 in the units of the images.
        levels: lowest and highest level the network was trained on.

    Returns:
        (B, L, L), dtype of ``images``.

    Raises:
        ParameterError: a plain score network is asked at a level above 0.
    """
    if parameterisation == "score":
        if level > 0:
            raise ParameterError(
                f"this prior is a plain score network, which knows level 0 only; it was asked at {level:g}: "
                "use GradientAscent with prior_level=0, or a denoiser."
            )
        out: Tensor = network(images)
        return out
    low, high = levels
    if level > high:
        shrink = (high / level) ** 2
        inner = smoothed_score(network, parameterisation, images * shrink, high, levels)
        return (images * shrink + high**2 * inner - images) / level**2
    batch = torch.full((images.shape[0],), max(level, low), dtype=images.dtype, device=images.device)
    if parameterisation == "denoiser":
        denoised: Tensor = network(images, batch)
        return (denoised - images) / max(level, low) ** 2
    time = sde.time_at(batch)
    signal = sde.signal_factor(time)[:, None, None]
    predicted: Tensor = network(signal * images, time)
    if parameterisation == "epsilon":
        predicted = -predicted / sde.noise_factor(time)[:, None, None]
    return signal * predicted


def denoise(
    network: Callable[..., Tensor],
    parameterisation: Parameterisation,
    images: Tensor,
    level: float,
    levels: LevelRange,
) -> Tensor:
    """Posterior mean of the clean images by Tweedie's formula; arguments as in :func:`smoothed_score`."""
    return images + level**2 * smoothed_score(network, parameterisation, images, level, levels)
