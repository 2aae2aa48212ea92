"""In-plane rotations of the target as explicit linear maps with exact adjoints.

Right angles are permutations (``np.rot90``). Any other angle is a quarter turn followed by three
Fourier-domain shears (Unser, Thevenaz and Yaroslavsky, *Convolution-based interpolation for fast,
high-quality rotation of images*, 1995): each shear shifts rows by band-limited interpolation, so
the map is orthogonal up to the crop, white noise stays white after de-rotation, and the adjoint is the
same rotation backwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array, Lengths, pair, plain
from ..errors import ParameterError
from .normal import Diagonal, Normal, PerView
from .views import EVERY, Views, extended

Support = Literal["square", "disc"]


#: Every eighth place of a shear has its own exponential; the places between are products.
_STRIDE = 8


@dataclass(frozen=True)
class Rotations:
    """K equally spaced rotations ``R_k`` of an L x L image, angle ``2 pi k / (n K)`` counter-clockwise; :class:`Views`.

    For an image with symmetry C_n the angles cover the asymmetric unit, below ``2 pi / n``; n = 1: the full turn.

    For an image that is no square, a signal for instance, K is 1 or 2: the identity, and a turn by 180 degrees.

    Attributes:
        count: number of rotations K.
        box_size: side L of the image in pixels, or (height, width).
        support: "square" keeps every pixel of the box; "disc" keeps the inscribed disc, the largest set
            that no rotation moves out of the box (the target is multiplied by it before rotation). None:
            square when all rotations are right angles, disc otherwise.
        symmetry: order n of the symmetry of the target about the middle of the box.
    """

    count: int
    box_size: Lengths
    support: Support | None = None
    symmetry: int = 1

    def __post_init__(self) -> None:
        height, width = pair(self.box_size)
        if min(self.count, height, width, self.symmetry) < 1:
            raise ParameterError(
                f"rotations, box_size and symmetry must be positive; got {self.count} rotations of a box of {self.box_size} "
                f"with symmetry C{self.symmetry}."
            )
        object.__setattr__(
            self, "box_size", plain(height, width)
        )  # one way to write a square: equal views are equal
        if height != width and (self.around > 2 or self.support == "disc"):
            raise ParameterError(
                f"rotations other than by 180 degrees need a square box; got {self.around} angles in a full turn of a box of {height} x {width} "
                "pixels: give rotations=1 (or 2, for copies that are also turned round), symmetry C1 (or C2), or one side as box_size."
            )

    @property
    def around(self) -> int:
        """Number of angles in a full turn, ``n K``."""
        return self.symmetry * self.count

    @property
    def exact(self) -> bool:
        """Whether every rotation, also of the symmetry, is a permutation of the pixels."""
        return 4 % self.around == 0

    @property
    def box_shape(self) -> tuple[int, int]:
        """(L, L) pixels of a template."""
        return pair(self.box_size)

    @property
    def target_shape(self) -> tuple[int, ...]:
        """(L, L) pixels of the target."""
        return self.box_shape

    @property
    def classes(self) -> int:
        """One target."""
        return 1

    @property
    def log_weights(self) -> None:
        """All angles are equally likely."""
        return None

    @property
    def gain(self) -> float:
        """1: rotations keep the norm, except for cropped pixels."""
        return 1.0

    @property
    def angles(self) -> list[float]:
        """Angles in radians, counter-clockwise with row 0 on top."""
        return [2.0 * math.pi * k / self.around for k in range(self.count)]

    @property
    def _sectors(self) -> list[int]:
        """Quarter turns that map the first angles to all others: only the first angles are interpolated."""
        if 4 % self.symmetry:
            return [0]
        return [turn for turn in range(4 // self.symmetry) if turn * self.around % 4 == 0]

    @property
    def _first_sector(self) -> list[float]:
        return self.angles[: self.count // len(self._sectors)]

    def mask(self, like: Array) -> Array | None:
        """(L, L) support of the target in the library and dtype of ``like``; None for the square."""
        if self.support == "square" or (self.support is None and self.exact):
            return None
        xp = array_namespace(like)
        return xp.asarray(disc(self.box_shape[0]), dtype=like.dtype, device=device(like))

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """(L, L) image -> (K, L, L) rotated copies, or some of them."""
        self._check(target, self.target_shape)
        xp, mask = array_namespace(target), self.mask(target)
        first = rotate(target if mask is None else target * mask, self._first_sector)
        return xp.concat([_quarter_turns(first, turn) for turn in self._sectors], axis=0)[part, ...]

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """(K, L, L) -> (L, L): ``sum_k R_k^T stack_k``, the exact adjoint of :meth:`apply`."""
        stack = extended(stack, part, self.count)
        self._check(stack, (self.count, *self.box_shape))
        xp, mask, size = array_namespace(stack), self.mask(stack), len(self._first_sector)
        parts = [stack[s * size : (s + 1) * size, ...] for s in range(len(self._sectors))]
        back = [_quarter_turns(part, -turn) for part, turn in zip(parts, self._sectors, strict=True)]
        folded = sum(back[1:], back[0])
        total = xp.sum(rotate_back(folded, self._first_sector), axis=0)
        return total if mask is None else total * mask

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """``F -> sum_k R_k^T (coverage_k R_k F)``: one weight per pixel at right angles."""
        if self.exact:
            return Diagonal(self.adjoint(coverage, part))
        return PerView(self, extended(coverage, part, self.count))

    def framed(self, margin: Lengths) -> Rotations:
        """The same rotations of a larger image."""
        rows, columns = (n + 2 * m for n, m in zip(self.box_shape, pair(margin), strict=True))
        return replace(self, box_size=plain(rows, columns))

    def coarse(self, count: int, band: float | None = None) -> Rotations:
        """``count`` equally spaced rotations on the same support; the band is not used."""
        support = self.support or ("square" if self.exact else "disc")
        return replace(self, count=count, support=support)

    def turned(self, seed: int) -> Rotations:
        """The rotations themselves: their orientation is fixed."""
        return self

    def of_symmetry(self, order: int) -> Rotations:
        """The distinct rotations of a target with symmetry C_n: ``K / gcd(K, n)`` angles below ``2 pi / n``."""
        return replace(self, count=self.count // math.gcd(self.count, order), symmetry=order)

    def _check(self, array: Array, expected: tuple[int, ...]) -> None:
        if tuple(array.shape) != expected:
            raise ParameterError(
                f"expected an array of shape {expected} for {self.count} rotations; got {tuple(array.shape)}."
            )


def usual_rotations(shape: tuple[int, ...]) -> int:
    """Default number of rotations: 4 in a square box, 1 in any other."""
    return 4 if shape[-1] == shape[-2] else 1


def in_plane(views: Views) -> Rotations | None:
    """The in-plane rotations that composed views are made of; None: there are none, as in projections."""
    while not isinstance(views, Rotations):
        inner = getattr(views, "views", None)
        if inner is None:
            return None
        views = inner
    return views


def disc(box_size: int) -> np.ndarray:
    """(L, L) bool: pixels whose centre lies in the disc inscribed in the box."""
    offset = np.arange(box_size) - (box_size - 1) / 2
    return np.asarray(offset[:, None] ** 2 + offset[None, :] ** 2 <= (box_size / 2) ** 2)


def rotate(image: Array, angles: Sequence[float]) -> Array:
    """Rotate an (L, L) image by each angle (radians, counter-clockwise) about the centre of its box.

    Returns (K, L, L) of the library and dtype of ``image``. Multiples of 90 degrees equal ``np.rot90``
    exactly; content that leaves the box is cut off.
    """
    xp = array_namespace(image)
    turns, rests = _split(angles)
    turned = xp.stack([_quarter_turns(image, t) for t in turns])
    return _shear_rotate(turned, rests)


def rotate_back(stack: Array, angles: Sequence[float]) -> Array:
    """(K, L, L) -> (K, L, L): the adjoint of each rotation of :func:`rotate` applied to its own image."""
    xp = array_namespace(stack)
    turns, rests = _split(angles)
    sheared = _shear_rotate(stack, [-rest for rest in rests])
    return xp.stack([_quarter_turns(sheared[k, ...], -t) for k, t in enumerate(turns)])


def _split(angles: Sequence[float]) -> tuple[list[int], list[float]]:
    """Quarter turns and the rest in [-45, 45] degrees; the rest of a right angle is exactly 0."""
    turns = [round(angle / (math.pi / 2)) for angle in angles]
    rests = [angle - t * (math.pi / 2) for angle, t in zip(angles, turns, strict=True)]
    return turns, [0.0 if abs(rest) < 1e-12 else rest for rest in rests]


def _quarter_turns(image: Array, turns: int) -> Array:
    """``np.rot90`` of the last two axes in array-API terms."""
    xp = array_namespace(image)
    match turns % 4:
        case 1:
            return xp.flip(xp.matrix_transpose(image), axis=-2)
        case 2:
            return xp.flip(image, axis=(-2, -1))
        case 3:
            return xp.flip(xp.matrix_transpose(image), axis=-1)
    return image


def _shear_rotate(stack: Array, rests: Sequence[float]) -> Array:
    """Rotate image k by ``rests[k]``, |rest| <= 45 degrees, on a grid padded to 2L against wrap-around."""
    if not any(rests):
        return stack
    xp = array_namespace(stack)
    length = stack.shape[-1]
    before = length // 2
    inner = slice(before, before + length)
    offset = xp.arange(2 * length, dtype=xp.float64, device=device(stack)) - (before + (length - 1) / 2)

    def phases(slopes: Sequence[float], places: Array) -> Array:
        # exponentials take most of the time: as places are equally spaced, each is a product of two from short lists
        slope = xp.asarray(slopes, dtype=xp.float64, device=device(stack))[:, None]
        far = _phases(slope * places[::_STRIDE][None, :], 2 * length)
        near = _phases(slope * (places[: min(_STRIDE, places.shape[0])] - places[0])[None, :], 2 * length)
        every = xp.expand_dims(far, axis=2) * xp.expand_dims(near, axis=1)
        return xp.reshape(every, (len(slopes), -1, every.shape[-1]))[:, : places.shape[0], :]

    def widened(rows: Array) -> Array:
        wide = xp.zeros((*rows.shape[:-1], 2 * length), dtype=stack.dtype, device=device(stack))
        wide[..., inner] = rows
        return wide

    # rows beyond the box are zero before the first shear and cropped after the last: both shift only the rows of the box
    tangents, sines = [math.tan(rest / 2) for rest in rests], [-math.sin(rest) for rest in rests]
    along = phases(tangents, offset[inner])
    first = _shifted(widened(stack), along)
    second = _shifted(widened(xp.matrix_transpose(first)), phases(sines, offset))
    return _shifted(xp.matrix_transpose(second)[:, inner, :], along)[..., inner]


def shift_rows(stack: Array, shifts: Array) -> Array:
    """Band-limited circular shift of row r of image k by ``shifts[k, r]`` columns."""
    return _shifted(stack, _phases(shifts, stack.shape[-1]))


def _phases(shifts: Array, length: int) -> Array:
    """complex128 factors that shift rows by ``shifts`` columns, with a last axis of ``length // 2 + 1`` frequencies."""
    xp = array_namespace(shifts)
    # not rfftfreq, for which array_api_compat rejects CuPy's devices (ValueError: Unsupported device)
    frequency = xp.arange(length // 2 + 1, dtype=xp.float64, device=device(shifts)) * (1.0 / length)
    return xp.exp((-2j * math.pi) * xp.astype(shifts[..., None] * frequency, xp.complex128))


def _shifted(rows: Array, phases: Array) -> Array:
    xp = array_namespace(rows)
    spectrum = xp.fft.rfft(rows, axis=-1)
    return xp.fft.irfft(spectrum * xp.astype(phases, spectrum.dtype), n=rows.shape[-1], axis=-1)
