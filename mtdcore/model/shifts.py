"""Sub-pixel shifts of images by band-limited interpolation: of one image, and as views (docs/model.md 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from .._base.numerics.conversion import like
from .._base.typing import Array
from ..errors import ParameterError
from .normal import Normal, PerView
from .rotations import shift_rows
from .views import EVERY, Composed, Views, extended


@dataclass(frozen=True)
class Shifted(Composed):
    """Views whose copies lie between pixels: each template at ``steps`` offsets of ``1 / steps`` pixel along each axis.

    Template ``t steps^2 + s`` is template t moved down and to the right by offset s; an axis of one pixel has one offset.
    Zeros move in, what leaves the box is cut off.

    Attributes:
        views: at whole pixels.
        steps: offsets per pixel along an axis; 2 means {0, 1/2}.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ParameterError(f"shifted views need at least one step per pixel; got {self.steps}.")

    @property
    def offsets(self) -> np.ndarray:
        """(S, 2) float64 rows (down, right) in pixels, (0, 0) first."""
        rows, columns = (np.arange(self.steps if n > 1 else 1) / self.steps for n in self.box_shape)
        return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def count(self) -> int:
        """The number of offsets times the number of views."""
        return len(self.offsets) * self.views.count

    @property
    def log_weights(self) -> np.ndarray | None:
        """Those of the views, at each offset."""
        weights = self.views.log_weights
        return None if weights is None else np.repeat(weights, len(self.offsets))

    @property
    def exact(self) -> bool:
        """Only without offsets."""
        return self.views.exact and len(self.offsets) == 1

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        offsets, (first, last, inside) = self.offsets, self._around(part)
        seen = self.views.apply(target, slice(first, last))
        xp, shape = array_namespace(seen), self.box_shape
        moved = _moved(xp.repeat(seen, len(offsets), axis=0), np.tile(offsets, (last - first, 1)))
        return xp.reshape(moved, (-1, *shape))[inside, ...]

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        offsets, (first, last, inside) = self.offsets, self._around(part)
        size = (last - first) * len(offsets)
        stack = extended(stack, inside, size)
        xp, shape = array_namespace(stack), self.box_shape
        back = _moved(stack, np.tile(-offsets, (last - first, 1)))
        folded = xp.sum(xp.reshape(back, (last - first, len(offsets), *shape)), axis=1)
        return self.views.adjoint(folded, slice(first, last))

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """See :class:`Views`."""
        if self.exact:
            return self.views.normal(coverage, part)
        return PerView(self, extended(coverage, part, self.count))

    def coarse(self, count: int, band: float | None = None) -> Views | None:
        """Whole pixels are enough to find the places."""
        return self.views.coarse(count, band)

    def _around(self, part: slice) -> tuple[int, int, slice]:
        """First and last of the views that a part touches, and where the part lies among their shifted templates."""
        size = len(self.offsets)
        start, stop, _ = part.indices(self.count)
        first, last = start // size, -(-stop // size)
        return first, last, slice(start - first * size, stop - first * size)


def translate(image: Array, shift: tuple[float, float]) -> Array:
    """(L, L) image moved down and to the right by any number of pixels below L, band-limited; zeros move in; also (h, w)."""
    xp = array_namespace(image)
    length = image.shape[-1]
    if image.shape[-2] != length:
        return _moved(image[None, ...], np.array([shift]))[0, ...]
    before = length // 2
    padded = xp.zeros((1, 2 * length, 2 * length), dtype=image.dtype, device=device(image))
    padded[0, before : before + length, before : before + length] = image
    for step in shift:  # rows first: each pass moves the last axis and swaps the two
        moved = xp.full((1, 2 * length), step, dtype=xp.float64, device=device(image))
        padded = shift_rows(xp.matrix_transpose(padded), moved)
    return padded[0, before : before + length, before : before + length]


def _moved(stack: Array, offsets: np.ndarray) -> Array:
    """Image n of an (N, h, w) stack moved by ``offsets[n]``, on a grid padded to twice the sides against wrap-around.

    A shift is the phase ``e^(-2 pi i f . offset)``; at the highest frequency of an even grid its real part alone, so
    that the opposite offset is the exact adjoint.
    """
    xp = array_namespace(stack)
    height, width = stack.shape[-2:]
    high, wide = (2 * n if n > 1 else 1 for n in (height, width))
    padded = xp.zeros((stack.shape[0], high, wide), dtype=stack.dtype, device=device(stack))
    padded[:, :height, :width] = stack
    rows, columns = np.fft.fftfreq(high), np.fft.rfftfreq(wide)
    down = np.exp(-2j * math.pi * offsets[:, 0, None] * rows)
    if high % 2 == 0:
        down[:, high // 2] = down[:, high // 2].real
    right = np.exp(-2j * math.pi * offsets[:, 1, None] * columns)
    if wide % 2 == 0:
        right[:, -1] = right[:, -1].real
    spectrum = xp.fft.rfftn(padded, axes=(1, 2))
    phase = like(down[:, :, None] * right[:, None, :], spectrum)
    spectrum = spectrum * xp.astype(phase, spectrum.dtype)
    return xp.fft.irfftn(spectrum, s=(high, wide), axes=(1, 2))[:, :height, :width]
