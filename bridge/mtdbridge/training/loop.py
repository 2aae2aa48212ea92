"""The training loop: one for the three losses, resumable to the bit."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtdcore.errors import CheckpointError, InputError

from ..priors.networks import build_network
from ..priors.weights import ModelCard, save_weights
from . import losses
from . import state as training_state
from .draws import Batches, log_uniform, step_generator, uniform
from .options import Callback, Pace, TrainingOptions, TrainingProgress
from .validation import denoising_errors

_VALIDATION_IMAGES = 1000
_GRADIENT_NORM = 1.0
_VALIDATION_STREAM = 1 << 40  # a step number beyond those of any training


class Trainer:
    """One training: model, averaged weights, optimiser and history.

    Args:
        card: describes network, data and options; :meth:`card` adds the progress.
        options: of the training.
        train: (N, L, L) float32 CPU images.
        held_out: (M, L, L) images for validation, M >= 0.
        device: where the network is trained.
        output: weights file, written at every save; None: nothing is written.
    """

    def __init__(
        self,
        card: ModelCard,
        options: TrainingOptions,
        train: Tensor,
        held_out: Tensor,
        device: torch.device,
        output: Path | None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = build_network(card.network, card.box_size, **card.options)
        self.model = model.to(device)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        for parameter in self.model.parameters():
            if (
                parameter.dim() == 4
            ):  # convolutions are faster in this layout, which torch also gives the activations
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate, betas=(0.9, 0.99))
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self._card, self._options, self._device, self._output = card, options, device, output
        self._train, self._held_out = train, held_out[:_VALIDATION_IMAGES]
        self._batches = Batches(len(train), options.batch_size, options.seed)

    def card(self) -> ModelCard:
        """The card at the present step."""
        validations = [entry["validation"] for entry in self.history if "validation" in entry]
        progress = {
            "steps_done": self.step,
            "complete": self.step == self._options.steps,
            "images_seen": self.step * self._options.batch_size,
            "seconds": round(self.seconds, 1),
        }
        return replace(
            self._card,
            training={**self._card.training, **progress},
            metrics={"validation": validations[-1] if validations else {}, "history": self.history},
        )

    def run(self, pace: Pace, callback: Callback | None) -> None:
        """Train from the present step to the last one, or until the callback returns True."""
        started = reported = saved = time.monotonic()
        before, total, count = self.seconds, 0.0, 0
        while self.step < self._options.steps:
            total, count = total + self._advance(), count + 1
            last = self.step == self._options.steps
            asked = not last and pace.stopping is not None and pace.stopping()
            if not (last or asked) and self.step % pace.report_every:
                continue
            if not math.isfinite(total):
                raise InputError(f"the loss became {total} before step {self.step}: lower the learning rate.")
            self.seconds = before + time.monotonic() - started
            if asked:
                self.save()
                return
            now = time.monotonic()
            rate = count * self._options.batch_size / max(now - reported, 1e-9)
            checked = self.validate() if last or self.step % pace.validate_every == 0 else None
            progress = TrainingProgress(self.step, self._options.steps, total / count, checked, rate)
            self.history.append(
                {"step": self.step, "loss": progress.loss} | ({"validation": checked} if checked else {})
            )
            self.seconds = before + time.monotonic() - started  # includes the validation
            stop = callback is not None and callback(progress) is True
            if stop or last or now - saved > pace.save_seconds:
                self.save()
                saved = time.monotonic()
            if stop:
                return
            reported, total, count = time.monotonic(), 0.0, 0
        if self._output is not None:
            training_state.path_of(self._output).unlink(missing_ok=True)

    def save(self) -> None:
        """Write the averaged weights to the output, and the state that a resume needs beside it."""
        if self._output is not None:
            save_weights(self._output, self.average, self.card())
            path = training_state.path_of(self._output)
            training_state.save(path, self.model, self.average, self.optimizer, self.card())

    def restore(self, path: Path) -> None:
        """Continue where :meth:`save` left off; errors as in :func:`mtdbridge.training.state.load`."""
        card = training_state.load(path, self.model, self.average, self.optimizer, self._card)
        self.step, self.seconds = int(card.training["steps_done"]), float(card.training["seconds"])
        self.history = list(card.metrics["history"])
        before, schedules = int(card.training["steps"]), list(card.training.get("earlier_schedules", []))
        if before != self._options.steps:
            schedules.append({"steps": before, "until_step": self.step})
        if schedules:
            self._card.training["earlier_schedules"] = schedules
        if self.step > self._options.steps:
            raise CheckpointError(
                f"{path}: {self.step} steps are done already; got steps={self._options.steps}."
            )

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on at most 1000 held-out images, with the same noise in every validation."""
        generator = step_generator(self._options.seed, _VALIDATION_STREAM)
        if len(self._held_out) == 0:
            return {}
        if self._options.loss == "ism":
            return {"loss": float(self._loss(self.average, self._held_out, generator).detach())}
        return denoising_errors(self.average, self._held_out, self._card.levels, generator)

    def _advance(self) -> float:
        """One optimiser step; returns the loss."""
        options = self._options
        generator = step_generator(options.seed, self.step)
        clean = options.augmentation(self._train[self._batches(self.step)], generator)
        for group in self.optimizer.param_groups:
            group["lr"] = options.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = self._loss(self.model, clean, generator)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        decay = min(
            options.ema_decay, (1 + self.step) / (10 + self.step)
        )  # low decay at first, so that the initial weights drop out quickly
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return float(loss.detach())

    def _loss(self, model: nn.Module, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of one batch; the noise is drawn on the CPU and is the same for every device."""
        options, batch, device = self._options, len(clean), self._device
        images = clean.to(device)
        if options.loss == "ism":
            if not options.hutchinson:
                return losses.implicit_score_matching(model, images)
            signs = 2 * torch.randint(0, 2, clean.shape, generator=generator).to(clean.dtype) - 1
            return losses.implicit_score_matching(model, images, signs.to(device))
        noise = torch.randn(clean.shape, generator=generator).to(device)
        if options.loss == "dsm":
            times = uniform(batch, generator).to(device)
            return losses.denoising_score_matching(model, images, times, noise)
        level = log_uniform(batch, *options.levels, generator).to(device)
        return losses.preconditioned_denoising(model, images, level, noise, self._card.options["data_std"])
