"""Deterministic annealing of the noise level (docs/model.md 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..data import Measurement
from ..data.noise import default_expected_count, excess_energy
from ..errors import ParameterError
from ..model.likelihood import Likelihood
from ..mstep.updates import SEARCH_SHARE

#: Nats per copy, ``||F||^2 / (sigma^2 T)``, at the first temperature: of other automatic starts, and of draws from the prior, which resemble the
#: target more than random pixels do. At a box of 28, draws start at temperature 1 from SNR .06 down (bench/accuracy/subpixel.py).
START_NATS, SAMPLE_NATS = 10.0, 50.0


@dataclass(frozen=True)
class Temperature:
    """T falls geometrically from ``start`` to 1 over the first ``span`` iterations."""

    start: float
    span: int

    def at(self, iteration: int) -> float:
        """Temperature of an iteration counted from 0; exactly 1 from ``span`` on."""
        if iteration >= self.span:
            return 1.0
        return math.exp(math.log(self.start) * (1.0 - iteration / self.span))

    @classmethod
    def begin(
        cls,
        temperature: float | Literal["auto"],
        iterations: int,
        likelihood: Likelihood,
        measurement: Measurement,
        nats: float = START_NATS,
    ) -> Temperature:
        """The schedule of a run; "auto" estimates the energy per copy from the excess energy of the measurement, and starts at ``nats`` nats per copy."""
        span = round(SEARCH_SHARE * iterations)
        if temperature == "auto":
            box_pixels = math.prod(likelihood.views.box_shape)
            count = likelihood.copies or default_expected_count(measurement.shape, box_pixels)
            level = likelihood.whitened(measurement)
            energy = excess_energy(level, likelihood.noise_std) / count
            return cls(max(1.0, energy / (nats * likelihood.noise_std**2)), span)
        if not (math.isfinite(temperature) and temperature >= 1.0):
            raise ParameterError(f'temperature must be a number of at least 1, or "auto"; got {temperature}.')
        return cls(float(temperature), span)
