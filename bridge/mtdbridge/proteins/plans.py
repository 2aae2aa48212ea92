"""The settings that decide the result of a training on structures, and those of the two shipped priors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mtdcore.errors import ParameterError

from .batches import DrawingOptions


@dataclass(frozen=True)
class TrainingPlan:
    """A training on drawings.

    Attributes:
        drawing: the distribution of the drawings.
        boxes: smallest and largest side; every whole number between is drawn equally often.
        box_size: the side that the weights file names.
        channels: of the network, see :class:`mtdbridge.priors.multiscale.MultiscaleDenoiser`.
        pixels: pixels in a batch, padding included.
        steps: largest number of optimiser steps; None: as many as ``seconds`` allow.
        seconds: wall-clock time of the whole training, validation included; None: as long as ``steps`` take.
        learning_rate: Adam's highest, after a warm-up over 2 % of the training; half a cosine then ends at 0.
        ema_decay: decay of the averaged weights, which are the result.
        levels: lowest and highest noise level, in root mean squares of a drawing.
        level_median: median of the log-normal distribution of the levels.
        level_spread: its standard deviation, nats.
        precision: "bfloat16" (mixed) or "float32".
        seed: of weights, drawings and noise.
    """

    drawing: DrawingOptions = field(default_factory=DrawingOptions)
    boxes: tuple[int, int] = (24, 48)
    box_size: int = 32
    channels: tuple[int, ...] = (32, 64, 80, 96)
    pixels: int = 1 << 20
    steps: int | None = None
    seconds: float | None = 170.0
    learning_rate: float = 2e-3
    ema_decay: float = 0.999
    levels: tuple[float, float] = (0.02, 8.0)
    level_median: float = 0.5
    level_spread: float = 1.4
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None and self.seconds is None) or min(self.steps or 1, self.seconds or 1) <= 0:
            raise ParameterError(
                f"expected a positive number of steps or seconds; got {self.steps} and {self.seconds}."
            )
        if not (4 <= self.boxes[0] <= self.box_size <= self.boxes[1]):
            raise ParameterError(
                f"expected 4 <= smallest <= box_size <= largest; got {self.boxes}, {self.box_size}."
            )
        if (
            not 0 < self.levels[0] < self.levels[1] < math.inf
            or min(self.level_median, self.level_spread) <= 0
        ):
            raise ParameterError(f"levels must satisfy 0 < lowest < highest; got {self.levels}.")
        if not (0 < self.learning_rate < 1 and 0 <= self.ema_decay < 1):
            raise ParameterError(
                f"expected learning_rate in (0, 1), ema_decay in [0, 1); got {self.learning_rate}, {self.ema_decay}."
            )
        if self.precision not in ("bfloat16", "float32"):
            raise ParameterError(f"precision must be float32 or bfloat16; got {self.precision!r}.")

    def count(self, side: int) -> int:
        """Drawings per batch for boxes of ``side`` pixels; the same for all sides of one padded size."""
        padded = side + -side % (1 << (len(self.channels) - 1))
        return max(1, self.pixels // int(padded**self.drawing.dimension))

    def done(self, step: int, seconds: float) -> float:
        """Progress in [0, 1] after ``step`` steps and ``seconds`` seconds."""
        by_step = 0.0 if self.steps is None else step / self.steps
        by_clock = 0.0 if self.seconds is None else seconds / self.seconds
        return min(1.0, max(by_step, by_clock))

    def rate(self, done: float) -> float:
        """Learning rate at a progress in [0, 1]."""
        warm = 0.02
        if done < warm:
            return self.learning_rate * max(done, 0.05 * warm) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) log-normal noise levels, clipped to ``levels``; on the CPU."""
        draws = torch.randn(count, generator=generator) * self.level_spread + math.log(self.level_median)
        return draws.exp().clamp(*self.levels)


#: The trainings behind ``load_prior("proteins-2d")`` and ``load_prior("proteins-3d")``.
PLANS = {
    "proteins-2d": TrainingPlan(drawing=DrawingOptions(microscope=0.5)),
    "proteins-3d": TrainingPlan(
        drawing=DrawingOptions(dimension=3),
        boxes=(16, 32),
        box_size=24,
        channels=(24, 48, 64, 80),
        seconds=230.0,
        learning_rate=1.5e-3,
        levels=(0.03, 20.0),
        level_median=0.7,
        level_spread=1.5,
    ),
}
