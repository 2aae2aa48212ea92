"""A tile with the scores of its templates, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ...._base.typing import Array
from ....data.tiles import Tile
from ....model.likelihood import Likelihood
from ..library import ALL, checked
from ..precision import needed_precision

#: Arrays of the size of the scores that exist at once: spectra (two), scores, and temporary results.
COPIES = 6


class Library(Protocol):
    """The part of :class:`.backend.ArrayBackend` that the sums use."""

    xp: Array
    precision: Any
    device: str | None
    max_memory: int

    def asarray(self, array: Array) -> Array:
        """A float64 array of the library."""
        ...

    def to_host(self, array: Array) -> np.ndarray:
        """A NumPy array of the same values."""
        ...

    def moved(self, array: np.ndarray, dtype: str = "float64") -> Array:
        """A copy of a host array in the library, of this dtype."""
        ...


class EStep:
    """Templates and likelihood of one E-step.

    Args:
        backend: gives the library, the precision and the memory.
        templates: (t, L, L) array of its library.
        likelihood: of all templates.
        part: the t templates among them.
    """

    def __init__(self, backend: Library, templates: Array, likelihood: Likelihood, part: slice = ALL) -> None:
        self.backend, self.likelihood, xp = backend, likelihood, backend.xp
        self.templates = xp.astype(checked(templates, likelihood, xp, part), xp.float64)
        self.norm = math.sqrt(float(xp.max(xp.sum(self.templates**2, axis=(1, 2)))))
        self.bias, self.part = likelihood.template_bias[part], part


class Scored:
    """Pixels of a tile, and templates divided by sigma^2, in the precision that the tile needs."""

    def __init__(self, step: EStep, tile: Tile) -> None:
        self.backend, self.tile, self.bias, self.part = step.backend, tile, step.bias, step.part
        self.xp, variance = step.backend.xp, step.likelihood.noise_std**2
        self.precision = needed_precision(
            step.backend.precision, step.norm, step.likelihood.noise_std, [tile]
        )
        self.dtype = getattr(self.xp, self.precision)
        self.templates = self.xp.astype(step.templates / variance, self.dtype)
        self.energies = self.xp.astype(0.5 * step.templates**2 / variance, self.dtype)
        self.valid = None if tile.valid is None or tile.valid.all() else np.asarray(tile.valid)
        self.values = tile.values if self.valid is None else np.where(self.valid, tile.values, 0.0)

    def chunks(self, score: Callable[[slice], Array], pixels: int) -> Chunks:
        """Scores of the templates, in chunks that fit in memory.

        Args:
            score: computes the scores of some templates.
            pixels: number of pixels of the torus of one template.
        """
        itemsize = np.dtype(self.precision).itemsize
        size = max(1, self.backend.max_memory // (COPIES * itemsize * pixels))
        return Chunks(score, len(self.bias), size)

    def prior(self, level: float, part: slice) -> Array:
        """(t, 1, 1) log prior of the poses of some templates."""
        return self.backend.moved(level + self.bias[part], self.precision)[:, None, None]

    def sum64(self, array: Array) -> float:
        """Sum in float64."""
        return float(self.xp.sum(array, dtype=self.xp.float64))

    def masses(self, weights: Array, axes: tuple[int, ...]) -> np.ndarray:
        """Sums over these axes in float64, on the host."""
        return self.backend.to_host(self.xp.sum(weights, axis=axes, dtype=self.xp.float64))

    def joined(self, pieces: Sequence[Array]) -> Array:
        """Frames of all templates in float64."""
        return self.xp.astype(self.xp.concat(pieces), self.xp.float64)


class Chunks:
    """Scores of templates, chunk by chunk: kept if one chunk holds them all, otherwise computed at each iteration."""

    def __init__(self, score: Callable[[slice], Array], count: int, size: int) -> None:
        self._score = score
        self._parts = [slice(i, min(i + size, count)) for i in range(0, count, size)]
        self._only = score(self._parts[0]) if len(self._parts) == 1 else None

    def __iter__(self) -> Iterator[tuple[slice, Array]]:
        for part in self._parts:
            yield part, self._score(part) if self._only is None else self._only
