"""Random densities and projections of a set of structures, drawn during a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtdcore.errors import InputError, ParameterError

from .drawing import draw, inside_ball, random_rotations
from .microscope import Imaging
from .structures import Structures

_MOST_VALUES = 1 << 27  # complex values of the largest intermediate array: 1 GB


@dataclass(frozen=True)
class DrawingOptions:
    """The distribution of the drawings.

    Attributes:
        dimension: 2 for projections, 3 for densities.
        fill: diameter of the object (twice the largest distance from its centre) over the side of the box.
        band: band limit in pixels, see :func:`mtdbridge.proteins.drawing.transfer`.
        falloff: decay of the spectrum inside the band.
        pixel_size: smallest pixel in angstrom; structures too small for it are left out.
        resolution: smallest band limit in angstrom: the points stand for groups of atoms.
        jitter: largest distance of the centre from the centre of the box, over the side of the box.
        spread: standard deviation of the logarithm of the amplitude.
        mirror: mirror half of the objects, since projections do not determine the hand.
        microscope: share of the projections that are seen through a microscope (:class:`mtdbridge.proteins.microscope.Imaging`).
        defocus: of the microscope, angstrom.
    """

    dimension: Literal[2, 3] = 2
    fill: tuple[float, float] = (0.45, 0.75)
    band: tuple[float, float] = (2.0, 4.0)
    falloff: tuple[float, float] = (0.0, 3.0)
    pixel_size: float = 2.0
    resolution: float = 5.0
    jitter: float = 0.08
    spread: float = 0.1
    mirror: bool = True
    microscope: float = 0.0
    defocus: tuple[float, float] = (5e3, 35e3)

    def __post_init__(self) -> None:
        if self.dimension not in (2, 3):
            raise ParameterError(f"dimension must be 2 or 3; got {self.dimension}.")
        if not 0 < self.fill[0] <= self.fill[1] <= 1:
            raise ParameterError(f"fill must satisfy 0 < lowest <= highest <= 1; got {self.fill}.")
        if not 2 <= self.band[0] <= self.band[1] < math.inf:
            raise ParameterError(f"band must satisfy 2 <= lowest <= highest; got {self.band}.")
        if not 0 <= self.falloff[0] <= self.falloff[1] < math.inf:
            raise ParameterError(f"falloff must satisfy 0 <= lowest <= highest; got {self.falloff}.")
        if min(self.pixel_size, self.resolution, self.jitter, self.spread) < 0:
            raise ParameterError("pixel_size, resolution, jitter and spread must not be negative.")
        if not 0 <= self.microscope <= (1 if self.dimension == 2 else 0):
            raise ParameterError(
                f"microscope must be from 0 to 1 for projections, 0 for densities; got {self.microscope}."
            )
        if not 0 < self.defocus[0] <= self.defocus[1] < math.inf:
            raise ParameterError(f"defocus must satisfy 0 < lowest <= highest; got {self.defocus}.")


class ProteinBatches:
    """Draws batches from structures.

    Amplitude: every drawing is divided by its root mean square over the box, so that ``||x||^2`` is the number of
    pixels and a noise level s is an SNR of 1 / s^2; ``spread`` then varies it. The contrast is positive.
    Densities are zero outside the ball inscribed in the box.

    Args:
        structures: to draw from, with equal probability.
        options: the distribution.
        device: where the drawings are made; the random numbers come from the CPU and are the same for every device.
    """

    def __init__(
        self, structures: Structures, options: DrawingOptions, device: str | torch.device = "cpu"
    ) -> None:
        self.options = options
        self.device = torch.device(device)
        self._points = torch.from_numpy(structures.points).to(self.device)
        self._weights = torch.from_numpy(structures.weights).to(self.device)
        self._first = torch.from_numpy(structures.offset[:-1].copy())
        self._sizes = torch.from_numpy(structures.sizes)
        self._radii = torch.from_numpy(structures.radii)

    def usable(self, side: int) -> Tensor:
        """Indices of the structures large enough to fill a box of ``side`` pixels.

        Raises:
            InputError: there are none.
        """
        least = self.options.fill[0] * side * self.options.pixel_size / 2
        chosen = torch.nonzero(self._radii >= least)[:, 0]
        if len(chosen) == 0:
            raise InputError(
                f"expected structures of at least {least:.0f} angstrom in radius for boxes of {side} pixels; the "
                f"largest of {len(self._radii)} has {float(self._radii.max()):.0f}."
            )
        return chosen

    def __call__(
        self, side: int, count: int, generator: torch.Generator, structures: Tensor | None = None
    ) -> Tensor:
        """``count`` random drawings in boxes of ``side`` pixels.

        Args:
            side: L.
            count: B.
            generator: CPU generator.
            structures: (B,) indices; None: drawn from :meth:`usable`.

        Returns:
            (B, L, L) or (B, L, L, L) float32 on the device.
        """
        if structures is None:
            usable = self.usable(side)
            structures = usable[torch.randint(len(usable), (count,), generator=generator)]
        options, dimension = self.options, self.options.dimension
        radii = self._radii[structures]
        largest = (2 * radii / (options.pixel_size * side)).clamp(*options.fill)
        fill = options.fill[0] + (largest - options.fill[0]) * torch.rand(count, generator=generator)
        pixel = 2 * radii / (fill * side)
        band = _uniform(options.band, count, generator).maximum(options.resolution / pixel)
        falloff = _uniform(options.falloff, count, generator)
        turns = random_rotations(count, generator)
        if options.mirror:
            turns = (
                turns * torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)[:, None, None]
            )
        shift = torch.nn.functional.normalize(torch.randn(count, dimension, generator=generator), dim=1)
        shift *= options.jitter * side * torch.rand(count, 1, generator=generator) ** (1 / dimension)
        amplitude = torch.exp(options.spread * torch.randn(count, generator=generator))
        turns = turns[:, -dimension:] / pixel[:, None, None]
        seen, imaging = torch.zeros(count, dtype=torch.bool), None
        if options.microscope:
            seen = torch.rand(count, generator=generator) < options.microscope
            imaging = Imaging.random(pixel, side, options.defocus, generator)

        drawn = torch.empty((count,) + (side,) * dimension, device=self.device)
        for rows in self._groups(self._sizes[structures], side, seen):
            points, weights = self._padded(structures[rows])
            turn, move, limit, decay = (v[rows].to(self.device) for v in (turns, shift, band, falloff))
            places = points @ turn.transpose(1, 2) + move[:, None]
            # the fringes of a defocused image leave the box: they must not come back on its other side
            margin = side // 2 if imaging and seen[rows[0]] else 0
            gain = imaging.gains(side + 2 * margin, rows, self.device) if imaging and margin else None
            wide = draw(places, weights, side + 2 * margin, limit, decay, gain)
            inner = (slice(None),) + (slice(margin, margin + side),) * dimension
            drawn[rows.to(self.device)] = wide[inner]
        if dimension == 3:
            drawn *= inside_ball(side, self.device)
        rms = drawn.flatten(1).square().mean(1).sqrt()
        scale = amplitude.to(self.device) / rms
        return drawn * scale.view((-1,) + (1,) * dimension)

    def _groups(self, sizes: Tensor, side: int, seen: Tensor) -> list[Tensor]:
        """Rows in groups of similar numbers of points, all seen through a microscope or none, each small enough for ``_MOST_VALUES``."""
        per_point = side ** (self.options.dimension - 1)
        powers = torch.log2(sizes).ceil().int()
        groups: list[Tensor] = []
        for power, through in sorted(set(zip(powers.tolist(), seen.tolist(), strict=True))):
            rows = torch.nonzero((powers == power) & (seen == through))[:, 0]
            groups += torch.split(
                rows, max(1, _MOST_VALUES // (2**power * per_point * (2 if through else 1)))
            )
        return groups

    def _padded(self, structures: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, N, 3) and weights (B, N) of these structures; weight 0 where one has fewer points."""
        longest = int(self._sizes[structures].max())
        sizes, first = (v[structures].to(self.device) for v in (self._sizes, self._first))
        index = torch.arange(longest, device=self.device)
        inside = index < sizes[:, None]
        rows = first[:, None] + index * inside
        return self._points[rows], self._weights[rows] * inside


def validation_drawings(batches: ProteinBatches, side: int, count: int, seed: int) -> Tensor:
    """(count, ...) drawings on the CPU, spread evenly over the usable structures; the same for the same seed."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, side]).generate_state(1)[0]))
    usable = batches.usable(side)
    chosen = usable[torch.arange(count) * len(usable) // count] if count < len(usable) else usable
    chosen = chosen.repeat(math.ceil(count / len(chosen)))[:count]
    return batches(side, count, generator, chosen).cpu()


def _uniform(limits: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * torch.rand(count, generator=generator)
