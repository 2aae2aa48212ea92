"""Normal operators ``N: F -> sum_t A_t^T (c_t A_t F)``: the quadratic part of the statistics of an E-step.

Normal operators add, as statistics do; they bound their eigenvalues, for step lengths; and each solves
``N F = right``. Views make them (:meth:`mtdcore.model.views.Views.normal`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from array_api_compat import array_namespace

from .._base.numerics.conjugate_gradients import conjugate_gradients
from .._base.numerics.fourier import radial_filter
from .._base.typing import Array

#: Share of the largest weight below which a pixel counts as unseen: it would be a quotient of rounding errors.
_UNSEEN = 1e-6

#: Damping of :meth:`Spectral.solve`, as a share of the bound: frequencies that hardly pass the transfer move slowly; without
#: damping, noise there would be divided by rounding errors.
_DAMPING = 1e-2


class LinearMaps(Protocol):
    """The views of an operator; :class:`mtdcore.model.views.Views`."""

    @property
    def gain(self) -> float:
        """Largest squared norm of a view."""
        ...

    def apply(self, target: Array) -> Array:
        """Templates of a target."""
        ...

    def adjoint(self, stack: Array) -> Array:
        """The exact adjoint of :meth:`apply`."""
        ...


class Normal(Protocol):
    """A symmetric, non-negative operator on targets."""

    @property
    def bound(self) -> float:
        """Upper bound of the eigenvalues. In the window model without masks: the number of copies times the gain of the views."""
        ...

    @property
    def exact(self) -> bool:
        """Whether the operator is a weight for each pixel of the target."""
        ...

    @property
    def spread(self) -> float:
        """Approximate ratio of the largest eigenvalue to the mean one, as far as a filter causes it; a larger ratio needs more steps."""
        ...

    def __call__(self, target: Array) -> Array:
        """``N F``, of the shape of the target."""
        ...

    def __add__(self, other: Self) -> Self:
        """The operator of the data of both; operators of one kind add."""
        ...

    def scaled(self, factor: float) -> Self:
        """The operator times a number."""
        ...

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """The same operator with converted arrays."""
        ...

    def solve(self, right: Array, start: Array) -> Array:
        """``F`` with ``N F = right``; unseen components keep the values of ``start``."""
        ...

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """Number of copies weighted by the squared transfer, at each frequency; for radial filters.

        Args:
            frequencies: (n,) cycles per pixel, 0 to 1/2.

        Returns:
            (n,) float64.
        """
        ...


@dataclass(frozen=True)
class Diagonal:
    """A weight for each pixel of the target: views that permute pixels.

    Attributes:
        weights: float64 of the shape of the target.
    """

    weights: Array

    exact = True
    spread = 1.0

    @property
    def bound(self) -> float:
        """The largest weight."""
        return float(array_namespace(self.weights).max(self.weights))

    def __call__(self, target: Array) -> Array:
        """See :class:`Normal`."""
        return self.weights * target

    def __add__(self, other: Self) -> Self:
        return type(self)(self.weights + other.weights)

    def scaled(self, factor: float) -> Self:
        """See :class:`Normal`."""
        return type(self)(self.weights * factor)

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """See :class:`Normal`."""
        return type(self)(convert(self.weights))

    def solve(self, right: Array, start: Array) -> Array:
        """Divide by the weights."""
        xp = array_namespace(right)
        seen = self.weights > _UNSEEN * xp.max(self.weights)
        return xp.where(seen, right / xp.where(seen, self.weights, xp.ones_like(self.weights)), start)

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """See :class:`Normal`."""
        return np.full(len(frequencies), self.bound)


@dataclass(frozen=True)
class PerView:
    """A weight for each pixel of each template: views that interpolate.

    Attributes:
        views: the views.
        coverage: (T, h, w) float64.
    """

    views: LinearMaps
    coverage: Array

    exact = False

    @property
    def spread(self) -> float:
        """See :class:`Normal`."""
        return 1.0

    @property
    def bound(self) -> float:
        """The largest weights of the templates, summed, times the gain of the views."""
        xp = array_namespace(self.coverage)
        return self.views.gain * float(xp.sum(xp.max(self.coverage, axis=(1, 2))))

    def __call__(self, target: Array) -> Array:
        """See :class:`Normal`."""
        return self.views.adjoint(self.coverage * self.views.apply(target))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.views, self.coverage + other.coverage)

    def scaled(self, factor: float) -> Self:
        """See :class:`Normal`."""
        return type(self)(self.views, self.coverage * factor)

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """See :class:`Normal`."""
        return type(self)(self.views, convert(self.coverage))

    def solve(self, right: Array, start: Array) -> Array:
        """Conjugate gradients."""
        return conjugate_gradients(self, right, start)

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """See :class:`Normal`."""
        return np.full(len(frequencies), self.bound)


@dataclass(frozen=True)
class Spectral:
    """A weight for each frequency of each template: micrographs with a transfer H_m.

    Attributes:
        views: the views, without transfer.
        spectrum: (T, R) NumPy float64, ``sum_m c_mt H_m^2`` at R frequencies evenly spaced from 0 to 1/2.
    """

    views: LinearMaps
    spectrum: np.ndarray

    exact = False
    spread = 1.0

    @property
    def bound(self) -> float:
        """The largest weights of the templates, summed, times the gain of the views."""
        return self.views.gain * float(self.spectrum.max(axis=1).sum())

    def __call__(self, target: Array) -> Array:
        """See :class:`Normal`."""
        return self.views.adjoint(radial_filter(self.views.apply(target), self.spectrum))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.views, self.spectrum + other.spectrum)

    def scaled(self, factor: float) -> Self:
        """See :class:`Normal`."""
        return type(self)(self.views, self.spectrum * factor)

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """The operator itself: its spectrum always is a host array."""
        return self

    def solve(self, right: Array, start: Array) -> Array:
        """Damped conjugate gradients."""
        return conjugate_gradients(self, right, start, damping=_DAMPING * self.bound)

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """See :class:`Normal`."""
        seen = self.spectrum.sum(axis=0)
        return np.asarray(np.interp(frequencies, np.linspace(0.0, 0.5, len(seen)), seen))


@dataclass(frozen=True)
class Blocks:
    """One operator for each class.

    Attributes:
        blocks: of the classes.
    """

    blocks: tuple[Normal, ...]

    @property
    def bound(self) -> float:
        """The largest of the classes."""
        return max(block.bound for block in self.blocks)

    @property
    def exact(self) -> bool:
        """See :class:`Normal`."""
        return all(block.exact for block in self.blocks)

    @property
    def spread(self) -> float:
        """The largest of the classes."""
        return max(block.spread for block in self.blocks)

    def __call__(self, target: Array) -> Array:
        """See :class:`Normal`."""
        xp = array_namespace(target)
        return xp.stack([block(target[c, ...]) for c, block in enumerate(self.blocks)])

    def __add__(self, other: Self) -> Self:
        return type(self)(tuple(a + b for a, b in zip(self.blocks, other.blocks, strict=True)))

    def scaled(self, factor: float) -> Self:
        """See :class:`Normal`."""
        return type(self)(tuple(block.scaled(factor) for block in self.blocks))

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """See :class:`Normal`."""
        return type(self)(tuple(block.moved(convert) for block in self.blocks))

    def solve(self, right: Array, start: Array) -> Array:
        """Solve class by class."""
        xp = array_namespace(right)
        solved = [block.solve(right[c, ...], start[c, ...]) for c, block in enumerate(self.blocks)]
        return xp.stack(solved)

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """The sum over the classes."""
        return np.asarray(np.sum([block.copies(frequencies) for block in self.blocks], axis=0))
