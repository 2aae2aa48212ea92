"""The settings that decide the result of a training, and the arguments of its callback."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mtdcore.errors import ParameterError

from ..priors.parameterisation import VP_LEVELS, LevelRange
from .draws import Augmentation

Loss = Literal["edm", "dsm", "ism"]

#: The loss that fits each network.
LOSS_OF: dict[str, Loss] = {"denoiser": "edm", "unet": "dsm", "mlp": "ism"}


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides the result of a training, together with the images.

    Attributes:
        network: "denoiser", "unet" or "mlp".
        loss: "edm", "dsm" or "ism"; must fit the network.
        steps: optimiser steps; the cosine schedule ends at 0 there.
        batch_size: images per step.
        learning_rate: Adam's, after a linear warm-up of 1 % of the steps.
        ema_decay: decay of the averaged weights, which are the result.
        levels: lowest and highest noise level of the EDM loss, drawn log-uniformly; the other losses fix theirs.
        validation: number of images held out, the last ones.
        hutchinson: estimate the trace of the ISM loss with one random probe instead of exactly.
        precision: "float32", or "bfloat16" for mixed precision where the processor is faster with it.
        augmentation: random transforms of the images.
        seed: of the weights, the order, the noise and the augmentation.
    """

    network: str = "denoiser"
    loss: Loss = "edm"
    steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    ema_decay: float = 0.999
    levels: LevelRange = (0.02, 4.0)
    validation: int = 1000
    hutchinson: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def __post_init__(self) -> None:
        if LOSS_OF.get(self.network) != self.loss:
            raise ParameterError(
                f"expected one of {', '.join(f'{n} with {v}' for n, v in LOSS_OF.items())}; "
                f"got the network {self.network!r} with the loss {self.loss!r}."
            )
        if min(self.steps, self.batch_size) < 1 or self.validation < 0 or self.seed < 0:
            raise ParameterError(
                "steps and batch_size must be at least 1, validation and seed at least 0; got "
                f"{self.steps}, {self.batch_size}, {self.validation} and {self.seed}."
            )
        if not (0 < self.learning_rate < 1 and 0 <= self.ema_decay < 1):
            raise ParameterError(
                "learning_rate must lie in (0, 1) and ema_decay in [0, 1); "
                f"got {self.learning_rate} and {self.ema_decay}."
            )
        if not 0 < self.levels[0] < self.levels[1] < math.inf:
            raise ParameterError(f"levels must satisfy 0 < lowest < highest; got {self.levels}.")
        if self.precision not in ("float32", "bfloat16"):
            raise ParameterError(f"precision must be float32 or bfloat16; got {self.precision!r}.")

    @property
    def trained_levels(self) -> LevelRange:
        """Lowest and highest noise level at which the trained network may be called."""
        return {"edm": self.levels, "dsm": VP_LEVELS, "ism": (0.0, 0.0)}[self.loss]

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up over 1 % of the steps, then half a cosine down to 0."""
        warm = max(1, self.steps // 100)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class TrainingProgress:
    """Argument of the callback of :func:`train_prior`.

    Attributes:
        step: steps done.
        steps: steps asked for.
        loss: mean training loss since the last report.
        validation: relative denoising error per level of the averaged weights, or the loss for "ism"; None
            between validations.
        images_per_second: since the last report.
    """

    step: int
    steps: int
    loss: float
    validation: dict[str, float] | None
    images_per_second: float


#: Returning True stops the training after a save.
Callback = Callable[[TrainingProgress], bool | None]


@dataclass(frozen=True)
class Pace:
    """How often a training reports, validates and saves; this does not change its result.

    Attributes:
        report_every: steps between calls of the callback.
        validate_every: steps between validations; a multiple of ``report_every``.
        save_seconds: least time between saves.
        stopping: called after every step, since a step may take a second on a slow machine; returning True stops after a save.
    """

    report_every: int = 100
    validate_every: int = 1000
    save_seconds: float = 120.0
    stopping: Callable[[], bool] | None = None
