"""Starting volumes: a blob with smooth noise, in the units of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ...data import Measurement
from ...data.noise import default_expected_count, excess_energy
from ...errors import ParameterError
from ...model.likelihood.amplitudes import FIRST
from ...model.volumes.grids import ball, low_passed, radii
from ...model.volumes.projections import Projections
from .iteration import Iteration, Setting
from .noise import NoiseModel
from .state import VolumeCandidate, VolumeState

#: Standard deviation of the blob in boxes, and of the logarithm of its roughness.
_WIDTH, _ROUGH = 0.17, 0.7

#: Number of views over which the energy of a start is averaged.
_VIEWS = 60

#: Least energy of the copies that a start assumes, as a share of the energy of the noise.
_LEAST_EXCESS = 1e-3


@dataclass(frozen=True)
class VolumeStart:
    """The start of a run, for any noise.

    Attributes:
        setting: of the run.
        source: the measurement.
        expected_count: copies; None: as many as cover a tenth of the measurement.
        initial: (L, L, L) or (S, L, L, L) volumes at the scale of the measurement; None: rough blobs.
        starts: number of rough blobs.
    """

    setting: Setting
    source: Measurement
    expected_count: float | None
    initial: np.ndarray | None
    starts: int

    def iteration(self, noise_model: NoiseModel) -> Iteration:
        """The iterations of a run in this noise."""
        return Iteration(self.setting, noise_model.through(self.source), noise_model)

    def state(self, step: Iteration) -> VolumeState:
        """Starts in the data's units: the excess energy of the measurement over noise, divided by the largest number of copies that fit.

        With fewer copies the start is too weak, and grows. A start that is too strong fits nowhere, and vanishes in a crowded field.

        Raises:
            ParameterError: a given start is not a finite cube of the box.
        """
        given, plan, noise_model, shape = self.setting, step.plan, step.noise_model, self.source.shape
        sigma = noise_model.noise_std if given.noise_std is None else given.noise_std
        count = self.expected_count or default_expected_count(shape, plan.box_size**2)
        noise = math.prod(shape) * sigma**2
        excess = excess_energy(step.source, sigma * math.sqrt(noise_model.share))
        energy = max(excess, _LEAST_EXCESS * noise) / (math.prod(shape) / given.separation**2)
        volumes = self._blobs(energy) if self.initial is None else self._given(self.initial, noise_model)
        unlike, heat = given.micrographs, energy / (plan.nats * sigma**2)
        if unlike is not None:
            heat *= float(np.mean(unlike.weights))  # the mean over the micrographs
            unlike = replace(unlike, noise=sigma * unlike.noise_ratio, count=count * unlike.count_share)
        own = unlike if given.each else None
        # from the first iteration on: with equal amplitudes a start that fits bright copies wins, and too few others remain to learn a spread
        spread = FIRST if given.amplitude_std is None else given.amplitude_std
        starts = (VolumeCandidate(v, sigma, count, amplitude_std=spread, micrographs=own) for v in volumes)
        return VolumeState(tuple(starts), count, max(1.0, heat))

    def _blobs(self, energy: float) -> list[np.ndarray]:
        plan = self.setting.plan
        return [
            rough_blob(plan.box_size, plan.first_band, energy, np.random.default_rng([plan.seed, i]))
            for i in range(self.starts)
        ]

    def _given(self, initial: np.ndarray, noise_model: NoiseModel) -> list[np.ndarray]:
        side = self.setting.plan.box_size
        if initial.ndim not in (3, 4) or initial.shape[-3:] != (side,) * 3 or not np.isfinite(initial).all():
            raise ParameterError(
                f"a start should be a finite cube of {side} voxels a side; got an array of shape {initial.shape}."
            )
        return [
            noise_model.seen(v, self.setting.plan.last_band) for v in initial.reshape(-1, side, side, side)
        ]


def rough_blob(box_size: int, band: float, energy: float, rng: np.random.Generator) -> np.ndarray:
    """``exp(-r^2 / 2 (.17 L)^2) exp(.7 z)``, z white noise low-passed and scaled to unit deviation.

    Args:
        box_size: L in voxels.
        band: limit of the roughness in cycles per voxel; at least 1.6 periods per box.
        energy: mean squared norm of the projections.
        rng: of z.

    Returns:
        (L, L, L) float64.
    """
    blob = np.exp(-(radii(box_size) ** 2) / (2.0 * (_WIDTH * box_size) ** 2))
    rough = low_passed(rng.standard_normal((box_size,) * 3), max(band, 1.6 / box_size))
    return scaled_to(blob * np.exp(_ROUGH * rough / rough.std()) * ball(box_size), energy)


def scaled_to(volume: np.ndarray, energy: float) -> np.ndarray:
    """The volume times the number that gives its projections this mean squared norm."""
    images = Projections(len(volume), _VIEWS).apply(volume)
    return volume * math.sqrt(energy / float(np.mean(np.sum(images**2, axis=(1, 2)))))
