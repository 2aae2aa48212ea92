"""Projections as a microscope records them: its contrast transfer function, and what preparation does to a micrograph afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mtdcore.data.preparation.ctf import aberration_phase, wavelength

#: What microscopes have: kilovolt; Cs in angstrom; amplitude contrast of particles in ice, in the literature .07 to .1.
_VOLTAGES, _ABERRATION, _AMPLITUDE_CONTRAST = (200.0, 300.0), 2.7e7, (0.05, 0.15)

#: Width of the background that preparation subtracts, in sides of the box (``mtdcore.data.preparation``: much wider than a particle).
_BACKGROUND = (0.5, 2.0)


@dataclass(frozen=True)
class Imaging:
    """How a microscope records each image of a batch of B.

    Attributes:
        pixel: (B,) angstrom.
        defocus: (B,) angstrom, positive for underfocus.
        wave: (B,) wavelength of the electrons, angstrom.
        phase: (B,) phase of the amplitude contrast, radians.
        flipped: (B,) whether the phases are flipped afterwards.
        background: (B,) standard deviation of the subtracted Gaussian background, pixels; infinite where none is subtracted.
    """

    pixel: Tensor
    defocus: Tensor
    wave: Tensor
    phase: Tensor
    flipped: Tensor
    background: Tensor

    @classmethod
    def random(
        cls, pixel: Tensor, side: int, defocus: tuple[float, float], generator: torch.Generator
    ) -> Imaging:
        """Independent settings for images with these pixels in boxes of ``side``; half of them flipped, half without their background."""

        def uniform(limits: tuple[float, float]) -> Tensor:
            return limits[0] + (limits[1] - limits[0]) * torch.rand(len(pixel), generator=generator)

        def half() -> Tensor:
            return torch.rand(len(pixel), generator=generator) < 0.5

        waves = torch.tensor([wavelength(voltage) for voltage in _VOLTAGES])
        return cls(
            pixel,
            uniform(defocus),
            waves[half().int()],
            uniform(_AMPLITUDE_CONTRAST).asin(),
            half(),
            torch.where(half(), uniform(_BACKGROUND) * side, math.inf),
        )

    def gains(self, side: int, rows: Tensor, device: torch.device) -> Tensor:
        """Factors of the ``rfft2`` of these rows' images in boxes of ``side``: (b, side, side // 2 + 1) float32.

        Positive at low frequencies, so that a dense particle is bright.
        """
        pixel, defocus, wave, phase, flipped, width = (
            value[rows].to(device)[:, None, None]
            for value in (self.pixel, self.defocus, self.wave, self.phase, self.flipped, self.background)
        )
        axes = torch.fft.fftfreq(side, device=device), torch.fft.rfftfreq(side, device=device)
        squared = axes[0][:, None].square() + axes[1].square()
        contrast = torch.sin(aberration_phase(squared / pixel.square(), defocus, wave, _ABERRATION) + phase)
        kept = 1 - torch.exp(-2 * squared * (math.pi * width.clamp(max=1e6)).square())
        return torch.where(flipped, contrast.abs(), contrast) * torch.where(width.isinf(), 1.0, kept)
