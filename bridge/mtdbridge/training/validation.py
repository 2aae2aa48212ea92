"""Denoising error of a network on images it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors.blocks import PriorNetwork
from ..priors.parameterisation import LevelRange, denoise

VALIDATION_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


@torch.no_grad()
def denoising_errors(
    network: PriorNetwork,
    images: Tensor,
    trained: LevelRange,
    generator: torch.Generator,
    levels: Sequence[float] = VALIDATION_LEVELS,
    batch: int = 250,
) -> dict[str, float]:
    """Mean over the images of ``||D(x + s n; s) - x|| / ||x||`` for every level s.

    Args:
        network: any network with noise levels (not a plain score), on any device.
        images: (N, L, L) clean CPU images, or volumes.
        trained: levels that the network was trained on.
        generator: CPU generator of the noise.
        levels: noise levels in the units of the images.
        batch: images denoised at once.
    """
    device = next(network.parameters()).device
    errors = {}
    for level in levels:
        noisy = images + level * torch.randn(images.shape, generator=generator)
        batches = [noisy[start : start + batch].to(device) for start in range(0, len(noisy), batch)]
        clean = torch.cat(
            [denoise(network, network.parameterisation, y, level, trained).cpu() for y in batches]
        )
        distance = (clean - images).flatten(1).norm(dim=1)
        size = images.flatten(1).norm(dim=1).clamp_min(torch.finfo(images.dtype).tiny)
        errors[f"{level:g}"] = float((distance / size).mean())
    return errors
