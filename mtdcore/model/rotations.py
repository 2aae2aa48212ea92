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
from dataclasses import dataclass
from typing import Literal

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array
from ..errors import ParameterError

Support = Literal["square", "disc"]


@dataclass(frozen=True)
class RotationSet:
    """K equally spaced rotations ``R_k`` of an L x L image, angle ``2 pi k / K`` counter-clockwise.

    Attributes:
        count: number of rotations K.
        box_size: side L of the image in pixels.
        support: "square" keeps every pixel of the box; "disc" keeps the inscribed disc, the largest set
            that no rotation moves out of the box (the target is multiplied by it before rotation). None:
            square when all rotations are right angles, disc otherwise.
    """

    count: int
    box_size: int
    support: Support | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.box_size < 1:
            raise ParameterError(
                f"rotations and box_size must be positive; got {self.count} rotations of a box of {self.box_size}."
            )

    @property
    def exact(self) -> bool:
        """Whether every rotation is a permutation of the pixels."""
        return 4 % self.count == 0

    @property
    def angles(self) -> list[float]:
        """Angles in radians, counter-clockwise with row 0 on top."""
        return [2.0 * math.pi * k / self.count for k in range(self.count)]

    @property
    def _sectors(self) -> list[int]:
        """Quarter turns that repeat the first angles: interpolation is done for those alone."""
        return [turn for turn in range(4) if turn * self.count % 4 == 0]

    @property
    def _first_sector(self) -> list[float]:
        return self.angles[: self.count // len(self._sectors)]

    def mask(self, like: Array) -> Array | None:
        """(L, L) support of the target in the library and dtype of ``like``; None for the square."""
        if self.support == "square" or (self.support is None and self.exact):
            return None
        xp = array_namespace(like)
        return xp.asarray(disc(self.box_size), dtype=like.dtype, device=device(like))

    def apply(self, image: Array) -> Array:
        """(L, L) image -> (K, L, L) rotated copies."""
        self._check(image, 2)
        xp, mask = array_namespace(image), self.mask(image)
        first = rotate(image if mask is None else image * mask, self._first_sector)
        return xp.concat([_quarter_turns(first, turn) for turn in self._sectors], axis=0)

    def adjoint(self, stack: Array) -> Array:
        """(K, L, L) -> (L, L): ``sum_k R_k^T stack_k``, the exact adjoint of :meth:`apply`."""
        self._check(stack, 3)
        xp = array_namespace(stack)
        count = len(self._first_sector)
        parts = [stack[s * count : (s + 1) * count, ...] for s in range(len(self._sectors))]
        back = [_quarter_turns(part, -turn) for part, turn in zip(parts, self._sectors, strict=True)]
        folded = sum(back[1:], back[0])
        total = xp.sum(rotate_back(folded, self._first_sector), axis=0)
        mask = self.mask(stack)
        return total if mask is None else total * mask

    def _check(self, array: Array, ndim: int) -> None:
        side = (self.box_size, self.box_size)
        expected = side if ndim == 2 else (self.count, *side)
        if tuple(array.shape) != expected:
            raise ParameterError(
                f"expected an array of shape {expected} for {self.count} rotations; got {tuple(array.shape)}."
            )


def templates(targets: Array, rotations: RotationSet) -> Array:
    """(L, L) target or (C, L, L) targets -> (C K, L, L) rotated copies, class by class."""
    if targets.ndim == 2:
        return rotations.apply(targets)
    xp = array_namespace(targets)
    return xp.concat([rotations.apply(targets[c, ...]) for c in range(targets.shape[0])])


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


def translate(image: Array, shift: tuple[float, float]) -> Array:
    """(L, L) image moved down and to the right by any number of pixels below L, band-limited; zeros move in."""
    xp = array_namespace(image)
    length = image.shape[-1]
    before = length // 2
    padded = xp.zeros((1, 2 * length, 2 * length), dtype=image.dtype, device=device(image))
    padded[0, before : before + length, before : before + length] = image
    for step in shift:  # rows first: each pass moves the last axis and swaps the two
        moved = xp.full((1, 2 * length), step, dtype=xp.float64, device=device(image))
        padded = _shift_rows(xp.matrix_transpose(padded), moved)
    return padded[0, before : before + length, before : before + length]


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
    padded = xp.zeros((stack.shape[0], 2 * length, 2 * length), dtype=stack.dtype, device=device(stack))
    inner = (slice(None), slice(before, before + length), slice(before, before + length))
    padded[inner] = stack
    offset = xp.arange(2 * length, dtype=xp.float64, device=device(stack)) - (before + (length - 1) / 2)
    tangents = [math.tan(rest / 2) for rest in rests]
    sines = [-math.sin(rest) for rest in rests]
    for slopes, transpose in ((tangents, False), (sines, True), (tangents, False)):
        slope = xp.asarray(slopes, dtype=xp.float64, device=device(stack))
        shifts = slope[:, None] * offset[None, :]
        padded = xp.matrix_transpose(padded) if transpose else padded
        padded = _shift_rows(padded, shifts)
        padded = xp.matrix_transpose(padded) if transpose else padded
    return padded[inner]


def _shift_rows(stack: Array, shifts: Array) -> Array:
    """Band-limited circular shift of row r of image k by ``shifts[k, r]`` columns."""
    xp = array_namespace(stack)
    length = stack.shape[-1]
    spectrum = xp.fft.rfft(stack, axis=-1)
    # not rfftfreq: array_api_compat passes CuPy's own devices to it no further (ValueError: Unsupported device)
    frequency = xp.arange(length // 2 + 1, dtype=xp.float64, device=device(stack)) * (1.0 / length)
    phase = xp.exp((-2j * math.pi) * xp.astype(shifts[..., None] * frequency, xp.complex128))
    return xp.fft.irfft(spectrum * xp.astype(phase, spectrum.dtype), n=length, axis=-1)
