"""Base class of all networks, and the features of the noise level that condition them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .parameterisation import Parameterisation


class PriorNetwork(nn.Module):
    """A network with the meaning of its output and the options that rebuild its architecture.

    Attributes:
        parameterisation: what the output means.
        options: keyword arguments that build the same architecture, JSON-able.
        dimension: 2 for images, 3 for volumes.
        boxes: smallest and largest side of a box it was trained on; None: only the box size of its weights file.
    """

    parameterisation: ClassVar[Parameterisation]
    dimension: int = 2
    boxes: tuple[int, int] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options: dict[str, Any] = options


class LevelFeatures(nn.Module):
    """Cosine and sine features of the logarithm of the noise level."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        frequencies = torch.exp(torch.linspace(math.log(0.2), math.log(6.0), width // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """(B,) logarithms to (B, width) features in [-1, 1]."""
        phase = value[:, None] * self.frequencies
        return torch.cat((phase.cos(), phase.sin()), dim=1)
