"""The sums of a backend over tiles, template by template (docs/model.md 3 and 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._base.typing import Array, Lengths, pair, plain
from ..errors import ParameterError
from ..model.likelihood import Likelihood

#: Names of the scalar sums of an E-step.
SCALARS = (
    "log_likelihood",
    "energy",
    "total",
    "expected_count",
    "empty_mass",
    "sites",
    "pixels",
    "amplitude_sum",
    "amplitude_squares",
)

#: The fields that ``+`` adds.
SUMMED = ("backprojection", "coverage", "class_mass", *SCALARS)


@dataclass(frozen=True)
class TemplateSums:
    """Sums of one E-step for each of T templates, additive over tiles.

    Attributes:
        backprojection: (T, B, B) float64 of the backend's library, B = box_size + 2 margin (of a box that is no square, along
            each axis); sum of measurement pixels in the frame of each template, weighted by the posterior times the amplitude of each copy.
        coverage: (T, B, B) float64, posterior mass on each of these pixels, times the squared amplitude of each copy.
        class_mass: (C,) NumPy float64, posterior mass of the non-empty poses of each class.
        log_likelihood: nats. Patch model: log p(valid pixels | F). Window model: evidence against "no copies".
        energy: sum of the squared valid pixels.
        total: sum of the valid pixels.
        expected_count: posterior expected number of copies (patch model: mean coverage of a pixel inside the box).
        empty_mass: posterior mass of the empty poses (patch model; 0 in the window model).
        sites: patches (patch model) or corners (window model) that were scored.
        pixels: valid pixels that ``energy`` and ``total`` sum over.
        noise_std: noise level at which the posterior was computed.
        box_size: side L of the templates, or (height, width).
        amplitude_sum: sum of the posterior mean amplitudes of the copies; ``expected_count`` where all are 1.
        amplitude_squares: sum of the posterior mean squared amplitudes.
    """

    backprojection: Array
    coverage: Array
    class_mass: np.ndarray
    log_likelihood: float
    energy: float
    total: float
    expected_count: float
    empty_mass: float
    sites: float
    pixels: float
    noise_std: float
    box_size: Lengths
    amplitude_sum: float
    amplitude_squares: float

    @classmethod
    def zeros(cls, templates: int, likelihood: Likelihood, xp: Any = np) -> TemplateSums:
        """The neutral element of ``+`` for a number of templates of a likelihood, in the array library ``xp``."""
        box_size, noise_std = plain(*likelihood.views.box_shape), likelihood.noise_std
        shape = (templates, *likelihood.frame_shape)
        empty, mass = xp.zeros(shape, dtype=xp.float64), np.zeros(likelihood.classes)
        return cls(empty, empty, mass, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, noise_std, box_size, 0.0, 0.0)

    def __add__(self, other: TemplateSums) -> TemplateSums:
        if not isinstance(other, TemplateSums):
            return NotImplemented
        mine, theirs = ((tuple(s.backprojection.shape), s.box_size, s.noise_std) for s in (self, other))
        if mine != theirs:
            raise ParameterError(
                "sums add only when templates, box_size, margin and noise_std agree; got "
                f"{mine[0]} at noise {mine[2]} and {theirs[0]} at {theirs[2]}."
            )
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in SUMMED})

    @property
    def margin(self) -> Lengths:
        """Pixels kept around the box on each side."""
        rows, columns = (
            int(side - n) // 2
            for side, n in zip(self.backprojection.shape[-2:], pair(self.box_size), strict=True)
        )
        return plain(rows, columns)

    def cropped(self) -> TemplateSums:
        """The same sums without the margin."""
        if self.margin == 0:
            return self
        (above, beside), (height, width) = pair(self.margin), pair(self.box_size)
        inner = (slice(None), slice(above, above + height), slice(beside, beside + width))
        return replace(self, backprojection=self.backprojection[inner], coverage=self.coverage[inner])

    def moved(self, convert: Callable[[Array], Array]) -> TemplateSums:
        """The same sums with converted arrays, for example by ``Backend.to_host``."""
        return replace(self, backprojection=convert(self.backprojection), coverage=convert(self.coverage))


def by_class(mass: np.ndarray, likelihood: Likelihood, part: slice = slice(None)) -> np.ndarray:
    """(C,) float64 sums over the templates of each class, from (t,) numbers of a part of the templates."""
    whole = np.zeros(likelihood.templates)
    whole[part] = mass
    sums: np.ndarray = whole.reshape(likelihood.classes, -1).sum(axis=1)
    return sums
