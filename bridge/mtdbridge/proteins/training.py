"""Training of a denoiser on drawings of structures, within a given wall-clock time."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtdcore._base.files import write_whole
from mtdcore.errors import InputError

from ..priors.multiscale import MultiscaleDenoiser
from ..priors.weights import ModelCard, load_weights, save_weights
from ..training.losses import preconditioned_denoising
from ..training.validation import denoising_errors
from .batches import ProteinBatches, validation_drawings
from .plans import TrainingPlan
from .speed import adam, laid_out, name_of
from .structures import Structures

VALIDATION_LEVELS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
_VALIDATION_SIDES = {2: (24, 28, 36, 48), 3: (16, 24, 32)}
_VALIDATION_COUNT = {2: 117, 3: 39}
_DRAWN_AHEAD = 4
_CHECK_EVERY = 20
_GRADIENT_NORM = 1.0

#: Called with the newest entry of the history; returning True stops the training after a save.
Report = Callable[[dict[str, Any]], bool | None]


def _begin_with(model: MultiscaleDenoiser, start: Path) -> None:
    """Take the weights of a file whose network is the same."""
    try:
        model.load_state_dict(load_weights(start)[0].state_dict())
    except RuntimeError as error:
        raise InputError(
            f"{start}: expected weights of the network that is trained, for {'volumes' if model.dimension == 3 else 'images'} and with its "
            "channels; got those of another one: choose other weights, or none."
        ) from error


class ProteinTraining:
    """One training: network, averaged weights, optimiser, history.

    Args:
        structures: with a part "train"; "validation", if present, gives the validation figures; "test" is never used.
        plan: settings of the training.
        device: where it is trained.
        output: weights file (.safetensors, float16), written at every save beside a .json of the history and a
            .full.safetensors in float32; None: nothing is written.
        start: weights to start from; None: from scratch.
        source: name of the structures in the card.
        report_seconds: least time between validations and saves.
        validation_count: validation drawings per side; None: 117 images, 39 volumes.
    """

    def __init__(
        self,
        structures: Structures,
        plan: TrainingPlan,
        *,
        device: str = "cpu",
        output: Path | None = None,
        start: Path | None = None,
        source: str = "",
        report_seconds: float = 20.0,
        validation_count: int | None = None,
    ) -> None:
        self.plan, self._output, self._pace = plan, output, report_seconds
        self._device = torch.device(device)
        train = structures.only("train")
        self._batches = ProteinBatches(train, plan.drawing, self._device)
        dimension = plan.drawing.dimension
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            model = MultiscaleDenoiser(plan.box_size, dimension, plan.boxes, channels=plan.channels)
        if start is not None:
            _begin_with(model, start)
        self.model = laid_out(model.to(self._device), plan)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self._optimizer = adam(self.model, plan.learning_rate)
        self._random = torch.Generator().manual_seed(plan.seed)
        self._noise = torch.Generator(self._device).manual_seed(plan.seed + 1)
        self._held_out = self._validation(structures, validation_count)
        self.step, self.drawings, self.seconds, self._slower = 0, 0, 0.0, 1.0
        self.history: list[dict[str, Any]] = []
        self._card = ModelCard(
            "multiscale",
            model.options,
            plan.box_size,
            plan.levels,
            data={
                "source": source,
                "sha256": train.sha256(),
                "count": len(train),
                "validation_count": int((structures.part == 1).sum()),
                "scale": "root mean square 1 over the box",
            },
            training={
                **asdict(plan),
                "device": name_of(self._device),
                "torch": torch.__version__,
                "start": None if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
            },
        )

    def run(self, report: Report | None = None) -> None:
        """Train to the end of the plan, or until ``report`` returns True."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=self._device.type == "cuda"):
            self._run(report)

    def _run(self, report: Report | None) -> None:
        started = checked = time.monotonic()
        stop = self._note(math.nan, started, report)
        reserve, losses, good = self._clock(started), torch.zeros((), device=self._device), None
        supply = self._supply()
        count, mean = 0, math.nan
        while not stop and self.plan.done(self.step, self._clock(started) + reserve) < 1:
            losses += self._advance(next(supply), self._clock(started) + reserve)
            count += 1
            if self.step % _CHECK_EVERY and self.plan.done(self.step, self._clock(started) + reserve) < 1:
                continue
            mean, losses, count = float(losses) / count, torch.zeros_like(losses), 0
            good = self._guarded(mean, good)
            if time.monotonic() - checked > self._pace:
                begun = time.monotonic()
                stop = self._note(mean, started, report)
                checked, reserve = time.monotonic(), time.monotonic() - begun
        self._note(mean, started, report)

    def card(self) -> ModelCard:
        """The card at the present step."""
        progress = {
            "steps_done": self.step,
            "images_seen": self.drawings,
            "seconds_done": round(self.seconds, 1),
            "complete": self.plan.done(self.step, self.seconds) >= 0.98,
        }
        validations = [entry["validation"] for entry in self.history if entry.get("validation")]
        return replace(
            self._card,
            training={**self._card.training, **progress},
            metrics={"validation": validations[-1] if validations else {}, "history": self.history},
        )

    def validate(self) -> dict[str, dict[str, float]]:
        """Relative denoising error of the averaged weights for every side and level, with the same noise in every validation."""
        figures = {}
        with torch.backends.cudnn.flags(enabled=True, benchmark=False):
            for side, clean in self._held_out.items():
                generator = torch.Generator().manual_seed(side)
                errors = denoising_errors(
                    self.average, clean, self.plan.levels, generator, VALIDATION_LEVELS, batch=64
                )
                figures[str(side)] = {level: round(error, 5) for level, error in errors.items()}
        return figures

    def save(self) -> None:
        """Averaged weights in float16 and float32, and the history as JSON."""
        if self._output is None:
            return
        card = self.card()
        save_weights(self._output.with_suffix(".full.safetensors"), self.average, card)
        save_weights(self._output, copy.deepcopy(self.average).half(), card)
        curves = {"made_by": "mtdbridge", "training": card.training, "data": card.data, **card.metrics}
        text = json.dumps(curves, indent=1, default=str)
        write_whole(self._output.with_suffix(".json"), lambda file: file.write(text.encode()))

    def _note(self, loss: float, started: float, report: Report | None) -> bool:
        """Validate, save and report."""
        self.seconds = self._clock(started)
        entry = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "drawings": self.drawings,
            "loss": round(loss, 6) if math.isfinite(loss) else None,
            "validation": self.validate(),
        }
        self.history.append(entry)
        self.save()
        return report is not None and report(entry) is True

    def _clock(self, started: float) -> float:
        return time.monotonic() - started

    def _supply(self) -> Iterator[Tensor]:
        """Batches of drawings, all of one box size within a batch; several batches are drawn at once."""
        low, high = self.plan.boxes
        while True:
            side = int(torch.randint(low, high + 1, (), generator=self._random))
            count = self.plan.count(side)
            drawn = self._batches(side, count * _DRAWN_AHEAD, self._random)
            yield from torch.split(drawn, count)

    def _advance(self, clean: Tensor, seconds: float) -> Tensor:
        """One optimiser step; returns the loss."""
        plan, count = self.plan, len(clean)
        done = plan.done(self.step, seconds)
        for group in self._optimizer.param_groups:
            group["lr"] = plan.rate(done) * self._slower
        level = plan.draw_levels(count, self._random).to(self._device)
        noise = torch.randn(clean.shape, generator=self._noise, device=self._device)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            loss = preconditioned_denoising(self.model, clean, level, noise, self.model.data_std)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self.step, self.drawings = self.step + 1, self.drawings + count
        decay = min(plan.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        return loss.detach()

    def _guarded(self, loss: float, good: dict[str, Any] | None) -> dict[str, Any] | None:
        """The last state with a finite loss; after a non-finite loss that state is restored and the learning rate halved."""
        if math.isfinite(loss):
            return {
                "model": copy.deepcopy(self.model.state_dict()),
                "average": copy.deepcopy(self.average.state_dict()),
            }
        if good is None or self._slower < 0.1:
            raise InputError(f"the loss became {loss} before step {self.step}: lower the learning rate.")
        self._slower /= 2
        self.model.load_state_dict(good["model"])
        self.average.load_state_dict(good["average"])
        self._optimizer = adam(self.model, self.plan.learning_rate)
        return good

    def _validation(self, structures: Structures, count: int | None) -> dict[int, Tensor]:
        """Drawings of the validation part without spread of the amplitude, per side."""
        if not (structures.part == 1).any():
            return {}
        drawing = replace(self.plan.drawing, spread=0.0)
        batches = ProteinBatches(structures.only("validation"), drawing, self._device)
        low, high = self.plan.boxes
        sides = [n for n in _VALIDATION_SIDES[drawing.dimension] if low <= n <= high] or [self.plan.box_size]
        count = count or _VALIDATION_COUNT[drawing.dimension]
        return {side: validation_drawings(batches, side, count, self.plan.seed) for side in sides}
