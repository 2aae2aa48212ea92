"""The three training losses of docs/model.md 5 as plain functions: every random draw is an argument.

Each returns a scalar, the mean over the batch of the loss *per image* (:func:`implicit_score_matching`) or
*per pixel* (the two denoising losses, so that their size does not depend on the box).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..priors import sde


def implicit_score_matching(
    score: Callable[[Tensor], Tensor], images: Tensor, probes: Tensor | None = None
) -> Tensor:
    """Hyvarinen's loss, equation (5): ``E [ ||s(x)||^2 / 2 + tr(grad s(x)) ]``.

    Args:
        score: the network, (B, L, L) -> (B, L, L), one image independent of the others.
        images: (B, L, L) samples of the density.
        probes: None for the exact trace, L^2 backward passes batched into one; otherwise (B, L, L) random signs,
            and the trace is Hutchinson's unbiased estimate ``v^T grad s v``.
    """
    inputs = images.detach().requires_grad_(True)
    flat = score(inputs).flatten(1)
    if probes is None:
        pixels = flat.shape[1]
        basis = torch.eye(pixels, dtype=flat.dtype, device=flat.device)
        rows = basis[:, None, :].expand(pixels, flat.shape[0], pixels)
        (jacobian,) = torch.autograd.grad(flat, inputs, rows, is_grads_batched=True, create_graph=True)
        trace = jacobian.flatten(2).diagonal(dim1=0, dim2=2).sum(-1)
    else:
        (product,) = torch.autograd.grad(flat, inputs, probes.flatten(1), create_graph=True)
        trace = (product * probes).flatten(1).sum(1)
    return (0.5 * flat.square().sum(1) + trace).mean()


def denoising_score_matching(
    score: Callable[[Tensor, Tensor], Tensor], images: Tensor, time: Tensor, noise: Tensor
) -> Tensor:
    """Equation (7) with ``lambda(t) = 1 - exp(-B(t))``, per pixel.

    The target is ``grad log p(x_t | x_0) = -n / sqrt(lambda)``, so lambda times the squared error is
    ``(sqrt(lambda) s + n)^2``, without a division by a small number near t = 0.

    Args:
        score: the network, called with x_t (B, L, L) and t (B,).
        images: (B, L, L) clean images.
        time: (B,) in [0, 1].
        noise: (B, L, L) unit normal.
    """
    predicted = score(sde.perturb(images, time, noise), time)
    return (sde.noise_factor(time)[:, None, None] * predicted + noise).square().mean()


def preconditioned_denoising(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    level: Tensor,
    noise: Tensor,
    data_std: float,
) -> Tensor:
    """EDM loss, per pixel: squared error of ``D(x + s n; s)`` times ``(s^2 + data_std^2) / (s data_std)^2``.

    The weight gives all levels the same loss at the start of training (Karras et al. 2022, table 1).

    Args:
        denoiser: the network, called with noisy images (B, L, L) or volumes (B, L, L, L) and levels (B,).
        images: clean images or volumes.
        level: (B,) noise standard deviations s > 0.
        noise: unit normal, as many as there are pixels.
        data_std: standard deviation of the pixels of the data.
    """
    spread = level.view((-1,) + (1,) * (images.dim() - 1))
    weight = 1 / data_std**2 + 1 / spread**2
    error = (denoiser(images + spread * noise, level) - images).square()
    return (weight * error).mean()
