"""Views: the linear map from a target to its templates (docs/model.md 2).

Everything the engine needs of a target is T template images and an adjoint: ``A_t: target -> (h, w)``. In-plane
rotations, sub-pixel shifts, optics, classes and projections of a volume are views, and they compose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array, Lengths
from ..errors import ParameterError
from .normal import Blocks, Normal

EVERY = slice(None)


@runtime_checkable
class Views(Protocol):
    """T linear maps ``A_t`` from a target to templates, frozen and picklable."""

    @property
    def count(self) -> int:
        """Number of templates T."""
        ...

    @property
    def classes(self) -> int:
        """Number of targets stacked in one: C for :class:`Classes`, otherwise 1."""
        ...

    @property
    def box_shape(self) -> tuple[int, int]:
        """(h, w) of a template in pixels."""
        ...

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of a target: (h, w) of an image, (L, L, L) of a volume, with C in front for C classes."""
        ...

    @property
    def log_weights(self) -> np.ndarray | None:
        """(T,) float64 nats: log prior of each template minus that of equally likely templates; None: all are equally likely."""
        ...

    @property
    def exact(self) -> bool:
        """Whether every view permutes the pixels of the target, so that the exact M-step is a division."""
        ...

    @property
    def gain(self) -> float:
        """Largest eigenvalue of ``A_t^T A_t`` over t: bounds the step length of gradient and proximal M-steps."""
        ...

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """Templates of a target.

        Args:
            target: ``target_shape``, floating point of any array library.
            part: which of the T templates.

        Returns:
            (t, h, w) of the same library and dtype.
        """
        ...

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """``sum_t A_t^T stack_t`` over the same part: the exact adjoint of :meth:`apply`, (t, h, w) -> target."""
        ...

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """The operator ``F -> sum_t A_t^T (coverage_t A_t F)``.

        Args:
            coverage: (t, h, w) float64, posterior mass on each pixel of each template.
            part: which of the T templates.
        """
        ...

    def framed(self, margin: Lengths) -> Views:
        """The same views with ``margin``, or (along rows, along columns), more pixels on each side of target and box."""
        ...

    def coarse(self, count: int, band: float | None = None) -> Views | None:
        """About ``count`` views that represent all of them in a coarse search; None where that has no meaning.

        Args:
            count: number of views of each class.
            band: highest frequency, cycles per pixel, that the coarse templates keep; None: all.
        """
        ...

    def turned(self, seed: int) -> Views:
        """The same set turned at random, if its orientation is arbitrary (projections); itself otherwise."""
        ...


@dataclass(frozen=True)
class Composed:
    """Views made of other views; everything that a subclass does not override is passed on to these.

    Attributes:
        views: the other views.
    """

    views: Views

    @property
    def count(self) -> int:
        """See :class:`Views`."""
        return self.views.count

    @property
    def classes(self) -> int:
        """See :class:`Views`."""
        return self.views.classes

    @property
    def box_shape(self) -> tuple[int, int]:
        """See :class:`Views`."""
        return self.views.box_shape

    @property
    def target_shape(self) -> tuple[int, ...]:
        """See :class:`Views`."""
        return self.views.target_shape

    @property
    def log_weights(self) -> np.ndarray | None:
        """See :class:`Views`."""
        return self.views.log_weights

    @property
    def exact(self) -> bool:
        """See :class:`Views`."""
        return self.views.exact

    @property
    def gain(self) -> float:
        """See :class:`Views`."""
        return self.views.gain

    def framed(self, margin: Lengths) -> Self:
        """See :class:`Views`."""
        return replace(self, views=self.views.framed(margin))

    def coarse(self, count: int, band: float | None = None) -> Views | None:
        """See :class:`Views`."""
        coarse = self.views.coarse(count, band)
        return None if coarse is None else cast(Views, replace(self, views=coarse))

    def turned(self, seed: int) -> Self:
        """See :class:`Views`."""
        return replace(self, views=self.views.turned(seed))


@dataclass(frozen=True)
class Classes(Composed):
    """The same views of each of C targets. The target is the (C, ...) stack of these; templates are ordered class by class.

    Attributes:
        views: the views of one target.
        number: number of targets C.
    """

    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ParameterError(f"classes must be a positive number; got {self.number}.")
        if self.views.classes != 1:
            raise ParameterError("classes of classes are no views: wrap the views of one target.")

    @property
    def count(self) -> int:
        """C times the number of views of one target."""
        return self.number * self.views.count

    @property
    def classes(self) -> int:
        """C."""
        return self.number

    @property
    def target_shape(self) -> tuple[int, ...]:
        """(C, *shape of one target)."""
        return (self.number, *self.views.target_shape)

    @property
    def log_weights(self) -> np.ndarray | None:
        """See :class:`Views`; the shares of the classes belong to the likelihood."""
        weights = self.views.log_weights
        return None if weights is None else np.tile(weights, self.number)

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """(C, ...) targets -> (t, h, w) templates, class by class."""
        xp = array_namespace(target)
        return xp.concat([self.views.apply(target[c, ...], inner) for c, inner, _ in self._parts(part)])

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """(t, h, w) -> (C, ...); classes outside the part get zeros."""
        xp = array_namespace(stack)
        found = {c: self.views.adjoint(stack[at, ...], inner) for c, inner, at in self._parts(part)}
        blank = xp.zeros_like(next(iter(found.values())))
        return xp.stack([found.get(c, blank) for c in range(self.number)])

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """Block diagonal: one operator for each class."""
        found = {c: self.views.normal(coverage[at, ...], inner) for c, inner, at in self._parts(part)}
        blank = next(iter(found.values())).scaled(0.0)
        return Blocks(tuple(found.get(c, blank) for c in range(self.number)))

    def _parts(self, part: slice) -> list[tuple[int, slice, slice]]:
        """(class, slice of its views, slice of the part) of every class that a part covers."""
        start, stop, step = part.indices(self.count)
        if step != 1:
            raise ParameterError(f"a part of the views should be a slice without a step; got {part}.")
        size, found = self.views.count, []
        for c in range(start // size, -(-stop // size)):
            first, last = max(start, c * size), min(stop, (c + 1) * size)
            found.append((c, slice(first - c * size, last - c * size), slice(first - start, last - start)))
        return found


def extended(stack: Array, part: slice, count: int) -> Array:
    """A (t, h, w) stack for a part of the views, extended by zeros to all ``count`` views."""
    start, stop, _ = part.indices(count)
    if stop - start == count:
        return stack
    xp, shape = array_namespace(stack), tuple(stack.shape[1:])
    before, after = (
        xp.zeros((n, *shape), dtype=stack.dtype, device=device(stack)) for n in (start, count - stop)
    )
    return xp.concat([before, stack, after])
