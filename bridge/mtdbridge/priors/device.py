"""Torch devices by name."""

from __future__ import annotations

import torch

from mtdcore.errors import DeviceError


def torch_device(name: str) -> torch.device:
    """The device ``name`` ("cpu", "cuda", "cuda:1", ...), after a first allocation on it.

    Raises:
        DeviceError: torch cannot use it here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts when it was built without CUDA
        reason = str(error).splitlines()[0]
        raise DeviceError(f"the device {name!r} is not usable by torch here: {reason}.") from error
    return device
