"""Faster kernels for a training, which change its result by rounding only."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import torch
from torch import nn

from ..priors.multiscale import MultiscaleDenoiser
from .plans import TrainingPlan


def laid_out(model: MultiscaleDenoiser, plan: TrainingPlan) -> MultiscaleDenoiser:
    """The same network with its weights in the memory layout that trains faster; torch takes the layout of the activations from the weights."""
    channels_last = torch.channels_last if model.dimension == 2 else torch.channels_last_3d
    if not next(model.parameters()).is_cuda:
        return _with_layout(model, channels_last)
    times: list[tuple[float, torch.memory_format]] = []
    for layout in (torch.contiguous_format, channels_last):
        with suppress(RuntimeError):
            times.append((_seconds_of_a_step(_with_layout(model, layout), plan), layout))
    fastest = min(times, key=lambda pair: pair[0])[1] if times else torch.contiguous_format
    return _with_layout(model, fastest)


def adam(model: nn.Module, rate: float) -> torch.optim.Adam:
    """Adam, in one kernel per step where torch has one for these weights."""
    if next(model.parameters()).is_cuda:
        with suppress(RuntimeError, TypeError):
            return torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    return torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99))


def name_of(device: torch.device) -> str:
    """Name of the device in the model card."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _with_layout(model: MultiscaleDenoiser, layout: torch.memory_format) -> MultiscaleDenoiser:
    for parameter in model.parameters():
        if parameter.dim() == model.dimension + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


def _seconds_of_a_step(model: MultiscaleDenoiser, plan: TrainingPlan) -> float:
    """Time of one forward and backward pass on a batch of noise, on a GPU."""
    count, device = plan.count(plan.box_size), next(model.parameters()).device
    noisy = torch.randn((count,) + (plan.box_size,) * model.dimension, device=device)
    level, taken = torch.ones(count, device=device), math.inf
    for _ in range(4):
        torch.cuda.synchronize()
        begun = time.monotonic()
        with torch.autocast("cuda", torch.bfloat16, enabled=plan.precision == "bfloat16"):
            loss = model(noisy, level).square().mean()
        torch.autograd.backward(loss)
        torch.cuda.synchronize()
        taken = min(taken, time.monotonic() - begun)
        model.zero_grad(set_to_none=True)
    return taken
