"""Band-limited densities and projections of weighted points, evaluated in Fourier space.

Conventions: a volume V is indexed (z, y, x), an image (y, x), and the centre of a box of side L is the point (L - 1) / 2
on every axis. A rotation matrix R acts on (z, y, x) column vectors; a projection integrates along z. The image of a
structure under R is thus the projection of the volume of the points ``R p``: in Fourier space, the central slice of that volume.

One point of weight w becomes ``w`` times a kernel of unit sum whose spectrum is :func:`transfer`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Where the edge of :func:`transfer` begins, relative to the band limit.
_EDGE = 0.8


def transfer(frequency: Tensor, band: Tensor, falloff: Tensor) -> Tensor:
    """Spectrum of the kernel of one point: ``exp(-falloff (f band)^2)`` with a cosine edge that ends at ``1 / band``.

    A Gaussian blob of standard deviation s pixels is ``falloff = 2 (pi s / band)^2``, except at the edge.

    Args:
        frequency: f >= 0, cycles per pixel.
        band: band limit in pixels, at least 2; nothing is left at or above f = 1 / band.
        falloff: decay of the Gaussian factor, 0 or more.

    Returns:
        Values in [0, 1], 1 at f = 0; the arguments broadcast.
    """
    reduced = frequency * band
    edge = ((reduced - _EDGE) / (1 - _EDGE)).clamp(0, 1)
    return torch.exp(-falloff * reduced**2) * 0.5 * (1 + torch.cos(math.pi * edge))


def draw(
    points: Tensor, weights: Tensor, side: int, band: Tensor, falloff: Tensor, gain: Tensor | None = None
) -> Tensor:
    """Band-limited density of every point cloud of a batch, periodic in its box.

    Args:
        points: (B, N, d) float32 positions in pixels from the centre of the box, d = 2 (y, x) or 3 (z, y, x).
        weights: (B, N); 0 for points that are only padding.
        side: side L of the box in pixels.
        band: (B,) band limit in pixels, at least 2.
        falloff: (B,) of :func:`transfer`.
        gain: further real factors of the spectrum, (B, L, L // 2 + 1) for images; None: 1.

    Returns:
        (B, L, L) or (B, L, L, L) float32; the pixels of each sum up to its weights.
    """
    dimension = points.shape[-1]
    full = torch.fft.fftfreq(side, device=points.device)
    half = torch.fft.rfftfreq(side, device=points.device)
    places = points + (side - 1) / 2
    left = _waves(places[..., 0], full) * weights[..., None]
    if dimension == 3:
        left = (left[..., :, None] * _waves(places[..., 1], full)[..., None, :]).flatten(2)
    spectrum = left.transpose(1, 2) @ _waves(places[..., -1], half)
    axes = [full] * (dimension - 1) + [half]
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    shape = (-1,) + (1,) * dimension
    spectrum = spectrum.view(-1, *frequency.shape) * transfer(
        frequency, band.view(shape), falloff.view(shape)
    )
    if gain is not None:
        spectrum = spectrum * gain
    density: Tensor = torch.fft.irfftn(spectrum, s=(side,) * dimension, dim=tuple(range(1, dimension + 1)))
    return density


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, 3) float32 rotations, uniform on SO(3), from normalised quaternions."""
    w, x, y, z = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def inside_ball(side: int, device: torch.device | None = None) -> Tensor:
    """(L, L, L) boolean: the voxels within L / 2 of the centre."""
    axis = (torch.arange(side, device=device) - (side - 1) / 2).square()
    return axis[:, None, None] + axis[:, None] + axis <= (side / 2) ** 2


def _waves(places: Tensor, frequency: Tensor) -> Tensor:
    """``exp(-2 pi i f x)``: (B, N) places and (F,) frequencies to (B, N, F) complex."""
    phase = places[..., None] * (-2 * math.pi * frequency)
    return torch.complex(phase.cos(), phase.sin())
