"""Sub-pixel shifts of images by band-limited interpolation: of one image, and as views (docs/model.md 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array
from ..errors import ParameterError
from .normal import Normal, PerView
from .rotations import shift_rows
from .views import EVERY, Composed, Views, extended


@dataclass(frozen=True)
class Shifted(Composed):
    """Views with sub-pixel shifts: each template at ``steps`` offsets of ``1 / steps`` pixel along each axis.

    Template ``t steps^2 + s`` is template t moved down and to the right by offset s; an axis of one pixel has one offset.
    Zeros move in; pixels that leave the box are cut off.

    Attributes:
        views: the views at whole pixels.
        steps: offsets per pixel along an axis; 2 means {0, 1/2}.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ParameterError(f"shifted views need at least one step per pixel; got {self.steps}.")

    @property
    def offsets(self) -> np.ndarray:
        """(S, 2) float64 rows (down, right) in pixels, (0, 0) first."""
        return _fractions(self.steps, self.box_shape)[0]

    @property
    def count(self) -> int:
        """The number of offsets times the number of views."""
        return len(self.offsets) * self.views.count

    @property
    def log_weights(self) -> np.ndarray | None:
        """The log weights of the views, repeated for each offset."""
        weights = self.views.log_weights
        return None if weights is None else np.repeat(weights, len(self.offsets))

    @property
    def exact(self) -> bool:
        """Only without offsets."""
        return self.views.exact and len(self.offsets) == 1

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        first, last, inside = self._around(part)
        seen = self.views.apply(target, slice(first, last))
        xp, (down, right) = array_namespace(seen), self._matrices(seen)
        moved = down @ seen[:, None, :, :] @ xp.matrix_transpose(right)
        return xp.reshape(moved, (-1, *self.box_shape))[inside, ...]

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        size, (first, last, inside) = len(self.offsets), self._around(part)
        stack = extended(stack, inside, (last - first) * size)
        xp, (down, right) = array_namespace(stack), self._matrices(stack)
        moved = xp.reshape(stack, (last - first, size, *self.box_shape))
        back = xp.sum(xp.matrix_transpose(down) @ moved @ right, axis=1)
        return self.views.adjoint(back, slice(first, last))

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """See :class:`Views`."""
        if self.exact:
            return self.views.normal(coverage, part)
        return PerView(self, extended(coverage, part, self.count))

    def coarse(self, count: int, band: float | None = None) -> Views | None:
        """Coarse views at whole pixels, which suffice to find places."""
        return self.views.coarse(count, band)

    def _matrices(self, stack: Array) -> tuple[Array, Array]:
        """(S, h, h) and (S, w, w): each offset along rows and along columns, in the library and dtype of a stack."""
        xp, (_, *made) = array_namespace(stack), _fractions(self.steps, self.box_shape)
        down, right = (xp.asarray(m, dtype=stack.dtype, device=device(stack)) for m in made)
        return down, right

    def _around(self, part: slice) -> tuple[int, int, slice]:
        """First and last of the views that a part covers, and the slice of the part among their shifted templates."""
        size = len(self.offsets)
        start, stop, _ = part.indices(self.count)
        first, last = start // size, -(-stop // size)
        return first, last, slice(start - first * size, stop - first * size)


@lru_cache(maxsize=16)
def _fractions(steps: int, box_shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets (S, 2) at ``steps`` per pixel, and their matrices (S, h, h) and (S, w, w); cached, because each iteration needs them many times."""
    lines = (np.arange(steps if n > 1 else 1) / steps for n in box_shape)
    offsets = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    down, right = (shift_matrices(n, offsets[:, axis]) for axis, n in enumerate(box_shape))
    for kept in (offsets, down, right):
        kept.flags.writeable = False
    return offsets, down, right


def translate(image: Array, shift: tuple[float, float]) -> Array:
    """(L, L) image moved down and to the right by any number of pixels below L, band-limited; zeros move in; also (h, w)."""
    xp = array_namespace(image)
    length = image.shape[-1]
    if image.shape[-2] != length:
        made = [shift_matrices(n, np.array([step]))[0] for n, step in zip(image.shape, shift, strict=True)]
        down, right = (xp.asarray(m, dtype=image.dtype, device=device(image)) for m in made)
        return down @ image @ xp.matrix_transpose(right)
    before = length // 2
    padded = xp.zeros((1, 2 * length, 2 * length), dtype=image.dtype, device=device(image))
    padded[0, before : before + length, before : before + length] = image
    for step in shift:  # rows first: each pass moves the last axis and swaps the two
        moved = xp.full((1, 2 * length), step, dtype=xp.float64, device=device(image))
        padded = shift_rows(xp.matrix_transpose(padded), moved)
    return padded[0, before : before + length, before : before + length]


def shift_matrices(length: int, steps: np.ndarray) -> np.ndarray:
    """(N, length, length) float64: moves of a line of pixels by any steps, zeros moving in; the transpose is the adjoint.

    The phase ``e^(-2 pi i f step)`` on a grid padded to twice the length against wrap-around, cut to the line: a Toeplitz
    matrix. At the highest frequency, which has no sign, only the real part of the phase is used.
    """
    wide = 2 * length if length > 1 else 1
    phase = np.exp(-2j * math.pi * np.asarray(steps)[:, None] * np.fft.rfftfreq(wide))
    if wide % 2 == 0:
        phase[:, -1] = phase[:, -1].real
    kernel = np.fft.irfft(phase, n=wide, axis=1)
    lag = np.arange(length)
    return np.asarray(kernel[:, (lag[:, None] - lag) % wide])


def moved(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, h, w) images, each moved down and to the right by its own row of ``offsets``, (N, 2) in pixels; zeros move in."""
    down, right = (shift_matrices(n, offsets[:, axis]) for axis, n in enumerate(images.shape[-2:]))
    return np.asarray(down @ images @ right.swapaxes(1, 2))
