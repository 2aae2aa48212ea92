"""The window E-step through our own transforms, two templates at a time (docs/gpu.md).

Two templates are the real and the imaginary part of one image, so every transform is complex. Each kernel fuses the transform
of the lines of one axis with the steps before and after it: spectra of products, gains and weights need no passes over memory of
their own. A map is written and read four times in all, half as often as with a library's transforms.
"""

from __future__ import annotations

import math

import numpy as np

from ....._base.typing import Array
from ..kernels import LINE_LENGTHS, Kernels
from ..models import Items, WindowModel
from .sums import Sums, with_classes

#: Pixels of a library's transforms that take as long as one of ours (an H200, docs/gpu.md): half, so as to be sure.
_WORTH = 2.0


def suitable_torus(least: tuple[int, int], other: tuple[int, int]) -> tuple[int, int] | None:
    """The smallest torus that the kernels support for tiles that need ``least``; None: there is none, or ``other`` is as fast.

    Args:
        least: smallest sufficient shape.
        other: shape for the transforms of a library.
    """
    sides = [next((n for n in LINE_LENGTHS if n >= side), None) for side in least]
    rows, columns = sides
    if rows is None or columns is None or rows * columns > _WORTH * math.prod(other):
        return None
    return rows, columns


class PairsPath:
    """Statistics of tiles without invalid pixels, copies alike in amplitude; see :class:`Path`."""

    def __init__(
        self, kernels: Kernels, templates: Array, model: WindowModel, torus: tuple[int, int]
    ) -> None:
        self._kernels, self._model, self.torus = kernels, model, torus
        likelihood, xp = model.likelihood, kernels.xp
        count, length = len(templates), likelihood.box_size
        self._count, self._pairs = count, -(-count // 2)
        even = xp.zeros((2 * self._pairs, length, length), dtype=np.float64)
        even[:count] = templates / (likelihood.noise_std**2 * math.prod(torus))
        images = xp.zeros((self._pairs, *torus), dtype=kernels.complex)
        images[:, :length, :length] = even[0::2] - 1j * even[1::2]
        self._spectra = xp.fft.fft2(images)
        energy = (templates**2).sum(axis=(1, 2)) / (2.0 * likelihood.noise_std**2)
        # with an odd number of templates, the last pair has only one
        self._level = xp.full(2 * self._pairs, -1e30, dtype=kernels.real)
        self._level[:count] = (xp.asarray(likelihood.template_bias) - energy).astype(kernels.real)
        self._log_prior = likelihood.log_activity - math.log(count)
        margin = likelihood.margins[1]
        lags = np.arange(-margin, length + margin)
        self._rows, self._columns = (xp.asarray(lags % n) for n in torus)
        # gains; pixels and their spectrum, odds, sums along rows, competition
        self.bytes_per_item = math.prod(torus) * kernels.complex.itemsize * (self._pairs + 4)

    def sums(self, items: Items) -> Sums:
        """See :meth:`Path.sums`."""
        assert items.corners is not None
        assert items.valid is None
        kernels, likelihood, corners = self._kernels, self._model.likelihood, items.corners
        xp = kernels.xp
        pixels = xp.fft.fft2(items.pixels.astype(kernels.complex))
        planes = xp.empty((self._pairs, len(items), *self.torus), dtype=kernels.complex)
        kernels.correlate_lines(pixels, self._spectra, corners, planes)
        odds = kernels.odds_lines(planes, self._level, corners, self._log_prior)
        normaliser, found = kernels.compete(odds, corners, likelihood.log_activity, likelihood.separation)
        kernels.weigh_lines(planes, normaliser, corners, self._log_prior)
        sums, mass = kernels.backproject_lines(planes, pixels, corners)
        del planes
        mass = mass.sum(axis=0)[: self._count]
        seen = self._frames(sums)
        frames = xp.stack((seen, xp.ones_like(seen) * mass[:, None, None]))
        return Sums(frames, with_classes(found.sum(axis=(0, 1)), mass, likelihood))

    def _frames(self, sums: Array) -> Array:
        """(K, B, B) float64 back-projections from spectra (G, P, N1, N2) of partial sums."""
        xp = self._kernels.xp
        maps = xp.fft.ifft2(sums)[..., self._rows[:, None], self._columns].astype(np.complex128).sum(axis=0)
        return xp.stack((maps.real, -maps.imag), axis=1).reshape(-1, *maps.shape[1:])[: self._count]
