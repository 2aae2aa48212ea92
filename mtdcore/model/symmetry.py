"""Symmetry of a target, and copies that are mirrored (docs/model.md 2).

A target of symmetry C_n is invariant under the n rotations ``S_j`` by ``2 pi j / n``; their mean
``P = (1/n) sum_j S_j`` projects on the invariant images. The rotations are permutations if n divides 4, otherwise interpolations as in
:class:`mtdcore.model.rotations.Rotations`. The axis is the middle of the box: between four pixels if its
side is even, on a pixel if it is odd.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from array_api_compat import array_namespace

from .._base.numerics.conjugate_gradients import conjugate_gradients
from .._base.typing import Array, plain
from ..errors import ParameterError
from .normal import Blocks, Diagonal, Normal, PerView
from .rotations import Rotations, in_plane
from .views import EVERY, Composed, Views, extended


def symmetry_order(symmetry: object) -> int:
    """Order n of the symmetry "Cn" of an image.

    Raises:
        ParameterError: it is no such name.
    """
    found = re.fullmatch(r"[Cc]([1-9]\d{0,3})", str(symmetry))
    if found is None:
        raise ParameterError(
            f'symmetry of an image must be "C1", "C2", "C3", ...; got {symmetry!r}: volumes have more groups, and copies that may be '
            "mirrored are asked for by mirror=True."
        )
    return int(found[1])


def order_of(views: Views) -> int:
    """Order n of the symmetry C_n of the targets of views; 1: none."""
    rotations = in_plane(views)
    return 1 if rotations is None else rotations.symmetry


def invariant(images: Array, order: int) -> Array:
    """``P F``: each of the (L, L) or (C, L, L) images averaged over its n rotations."""
    if order == 1:
        return images
    return _each(images, lambda image: _mean(Rotations(order, plain(*image.shape)).apply(image)))


def invariant_adjoint(images: Array, order: int) -> Array:
    """``P^T``, the exact adjoint of :func:`invariant`; by interpolation it differs slightly from P."""
    if order == 1:
        return images

    def back(image: Array) -> Array:
        xp, rotations = array_namespace(image), Rotations(order, plain(*image.shape))
        return rotations.adjoint(xp.broadcast_to(image, (order, *image.shape)) + 0.0) / order

    return _each(images, back)


def invariant_normal(normal: Normal, order: int) -> Normal:
    """``P^T N P`` on invariant images; a :class:`Diagonal` if N is one and P permutes pixels."""
    if order == 1:
        return normal
    if isinstance(normal, Blocks):
        return Blocks(tuple(invariant_normal(block, order) for block in normal.blocks))
    if isinstance(normal, Diagonal) and Rotations(order, 1).exact:
        return Diagonal(invariant(normal.weights, order))
    return OfInvariant(normal, order)


@dataclass(frozen=True)
class OfInvariant:
    """The normal operator of the invariant part of a target: ``F -> P^T N P F``; a :class:`mtdcore.model.normal.Normal`.

    Attributes:
        normal: N.
        order: n of C_n.
    """

    normal: Normal
    order: int

    exact = False

    @property
    def bound(self) -> float:
        """The bound of N: averaging over rotations does not increase the norm of an image."""
        return self.normal.bound

    @property
    def spread(self) -> float:
        """The spread of N."""
        return self.normal.spread

    def __call__(self, target: Array) -> Array:
        """See :class:`Normal`."""
        return invariant_adjoint(self.normal(invariant(target, self.order)), self.order)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.normal + other.normal, self.order)

    def scaled(self, factor: float) -> Self:
        """See :class:`Normal`."""
        return type(self)(self.normal.scaled(factor), self.order)

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """See :class:`Normal`."""
        return type(self)(self.normal.moved(convert), self.order)

    def solve(self, right: Array, start: Array) -> Array:
        """Conjugate gradients."""
        return conjugate_gradients(self, right, start)

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """See :class:`Normal`."""
        return self.normal.copies(frequencies)


@dataclass(frozen=True)
class Mirrored(Composed):
    """Views of a target, then the same views of its mirror image: copies of both hands, equally likely.

    The mirror image has its columns in reverse order: ``A_{T+t} F = A_t (flip F)``.

    Attributes:
        views: the views of one hand.
    """

    def __post_init__(self) -> None:
        if self.views.classes != 1 or len(self.views.target_shape) != 2:
            raise ParameterError(
                f"mirrored views need the views of one image; those given take targets of shape {self.views.target_shape}."
            )

    @property
    def count(self) -> int:
        """Twice the number of views."""
        return 2 * self.views.count

    @property
    def log_weights(self) -> np.ndarray | None:
        """The log weights of the views, repeated for either hand."""
        weights = self.views.log_weights
        return None if weights is None else np.tile(weights, 2)

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        xp, (plain, mirrored) = array_namespace(target), self._hands(part)
        found = []
        if plain.start < plain.stop:
            found.append(self.views.apply(target, plain))
        if mirrored.start < mirrored.stop:
            found.append(self.views.apply(_flipped(target), mirrored))
        return found[0] if len(found) == 1 else xp.concat(found)

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        stack, size = extended(stack, part, self.count), self.views.count
        return self.views.adjoint(stack[:size, ...]) + _flipped(self.views.adjoint(stack[size:, ...]))

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """See :class:`Views`."""
        coverage, size = extended(coverage, part, self.count), self.views.count
        if self.views.exact:
            parts = [self.views.normal(c) for c in (coverage[:size, ...], coverage[size:, ...])]
            if all(isinstance(one, Diagonal) for one in parts):
                plain, mirrored = (one.weights for one in parts)  # type: ignore[attr-defined]
                return Diagonal(plain + _flipped(mirrored))
        return PerView(self, coverage)

    def coarse(self, count: int, band: float | None = None) -> Views | None:
        """A coarse set with half of ``count`` views for either hand."""
        coarse = self.views.coarse(-(-count // 2), band)
        return None if coarse is None else Mirrored(coarse)

    def _hands(self, part: slice) -> tuple[slice, slice]:
        """The views of a part that show the target, and those that show its mirror image."""
        start, stop, _ = part.indices(self.count)
        size = self.views.count
        return slice(min(start, size), min(stop, size)), slice(max(start - size, 0), max(stop - size, 0))


def _flipped(image: Array) -> Array:
    return array_namespace(image).flip(image, axis=-1)


def _mean(stack: Array) -> Array:
    return array_namespace(stack).mean(stack, axis=0)


def _each(images: Array, change: Callable[[Array], Array]) -> Array:
    """Apply ``change`` to an (L, L) image, or to each of a (C, L, L) stack."""
    if images.ndim == 2:
        return change(images)
    return array_namespace(images).stack([change(images[c, ...]) for c in range(images.shape[0])])
