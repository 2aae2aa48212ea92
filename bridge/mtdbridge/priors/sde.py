"""The variance-preserving diffusion of the paper and its translation to additive noise (docs/model.md 5).

============  ==========================================================================
symbol        meaning
============  ==========================================================================
t             diffusion time in [0, 1]
B(t)          integral of beta(u) = 0.1 + 19.9 u from 0 to t
a = a(t)      exp(-B / 2), the factor in front of the clean image: x_t = a x_0 + sqrt(1 - a^2) n
s             level: standard deviation of white noise added to the clean image, y = x_t / a = x_0 + s n
============  ==========================================================================

All functions take and return tensors of any shape, elementwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA_MIN = 0.1
BETA_SLOPE = 19.9


def integrated_beta(time: Tensor) -> Tensor:
    """``B(t) = 0.1 t + 9.95 t^2``."""
    return BETA_MIN * time + 0.5 * BETA_SLOPE * time**2


def signal_factor(time: Tensor) -> Tensor:
    """``a(t) = exp(-B(t) / 2)``."""
    return torch.exp(-0.5 * integrated_beta(time))


def noise_factor(time: Tensor) -> Tensor:
    """``sqrt(1 - a(t)^2)``, the standard deviation of the noise in x_t."""
    return torch.sqrt(-torch.expm1(-integrated_beta(time)))


def level_at(time: Tensor) -> Tensor:
    """Level ``s = sqrt(exp(B(t)) - 1)`` of time t."""
    return torch.sqrt(torch.expm1(integrated_beta(time)))


def time_at(level: Tensor) -> Tensor:
    """Time ``t(s) = (-0.1 + sqrt(0.01 + 39.8 ln(1 + s^2))) / 19.9``, the inverse of :func:`level_at`.

    Evaluated as ``2 ln(1 + s^2) / (0.1 + sqrt(...))``, which loses no digits for small s.
    """
    log = torch.log1p(level**2)
    return 2 * log / (BETA_MIN + torch.sqrt(BETA_MIN**2 + 2 * BETA_SLOPE * log))


def perturb(clean: Tensor, time: Tensor, noise: Tensor) -> Tensor:
    """``x_t = a(t) x_0 + sqrt(1 - a(t)^2) n`` for images (B, L, L), times (B,) and unit noise (B, L, L)."""
    return signal_factor(time)[:, None, None] * clean + noise_factor(time)[:, None, None] * noise
