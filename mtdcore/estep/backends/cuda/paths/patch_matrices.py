"""The patch E-step as matrix products, for boxes beyond the fused kernel's.

Patches are the rows of one matrix, templates at every non-empty shift the rows of another; their product holds
the scores of every pose of every patch. A second product, of weights and patches, sums over the patches; only these sums by
shift and pixel are added up to frames. A row of shifts sees some rows of a patch only: shifts are
processed in groups, and each group multiplies only the pixels that it sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....._base.typing import Array
from .....model.likelihood import PatchLikelihood
from ..device import Device
from ..kernels import Kernels
from ..models import Items, PatchModel
from .sums import Sums, with_classes

#: Bytes of scores and weights in flight: the sums by shift and pixel are read once per chunk.
_CHUNK_BYTES = 2 << 30

#: Groups of rows of shifts.
_GROUPS = 2

#: Columns before and after the pixels of a patch: a one, whose products are the sums of the weights, and zeros.
_BORDER = 8

#: Factor by which weights, at most 1, keep their digits in half precision.
_WEIGHT_SCALE = 2.0**14

#: Share of the memory for templates at every shift and sums by shift and pixel.
_TABLE_SHARE = 0.1

#: Picoseconds: of a multiplication and addition, of a byte of a map, of a pixel of a torus and rotation by the transforms; of an
#: E-step whatever its number of patches, and of a number of the tables (an H100, see docs/gpu.md).
_PRODUCT, _BYTE, _TRANSFORMS, _FIXED, _TABLE = 4.4e-3, 0.4, 27.0, 6e8, 12.0


@dataclass(frozen=True)
class Layout:
    """Sizes of the matrices.

    Attributes:
        box: side L of a patch.
        margin: pixels kept around the frame.
        rotations: number of templates K.
    """

    box: int
    margin: int
    rotations: int

    @property
    def padded(self) -> int:
        """Columns of shifts, padded to a multiple of 8."""
        return -(-(2 * self.box - 1) // 8) * 8

    @property
    def poses(self) -> int:
        """Columns of a row of scores."""
        return (2 * self.box - 1) * self.rotations * self.padded

    @property
    def width(self) -> int:
        """Columns of a patch."""
        return -(-(_BORDER + self.box**2 + 1) // 8) * 8

    def groups(self) -> Iterator[tuple[int, int, int, int]]:
        """For each group: first row and number of rows of shifts, first and last + 1 of the columns that it sees."""
        step = -(-(2 * self.box - 1) // _GROUPS)
        for first in range(1 - self.box, self.box, step):
            count = min(step, self.box - first)
            top, bottom = first - self.margin, self.box + first + count - 1 + self.margin
            start = 0 if top <= 0 else (_BORDER + top * self.box) // 8 * 8
            stop = self.width if top > 0 or bottom >= self.box else -(-(_BORDER + bottom * self.box) // 8) * 8
            yield first, count, start, stop

    def seconds(self, patches: int) -> float:
        """Predicted time of an E-step in seconds."""
        seen = sum(count * (stop - start) for _, count, start, stop in self.groups())
        products = 2 * seen * self.rotations * self.padded
        return 1e-12 * (
            patches * (_PRODUCT * products + 12 * _BYTE * self.poses)
            + _FIXED
            + _TABLE * self.poses * self.width
        )


def layout(likelihood: PatchLikelihood) -> Layout:
    """The layout of the matrices of a likelihood."""
    return Layout(likelihood.box_size, likelihood.margins[1], likelihood.templates)


def faster(likelihood: PatchLikelihood, patches: int, torus: int, total_bytes: int) -> bool:
    """Whether ``patches`` take less time as matrices than by transforms on a torus of ``torus`` pixels."""
    sizes = layout(likelihood)
    if 6 * sizes.poses * sizes.width > _TABLE_SHARE * total_bytes:
        return False
    return sizes.seconds(patches) < 1e-12 * _TRANSFORMS * torus * patches * sizes.rotations


class PatchMatrixPath:
    """Statistics of patches without invalid pixels; see :class:`Path`."""

    torus: tuple[int, int] | None = None

    def __init__(self, device: Device, kernels: Kernels, templates: Array, model: PatchModel) -> None:
        self._device, self._kernels, self._model = device, kernels, model
        self._layout = layout(model.likelihood)
        self._targets, self._shift = self._tables(templates)
        self.bytes_per_item = 6 * self._layout.poses + 8 * self._layout.width

    def sums(self, items: Items) -> Sums:
        """See :meth:`Path.sums`."""
        xp, step = self._kernels.xp, max(1, _CHUNK_BYTES // self.bytes_per_item)
        side = self._layout.box + 2 * self._layout.margin
        frames = xp.zeros((2, self._layout.rotations, side, side), dtype=np.float64)
        scores = with_classes(
            xp.zeros(2, dtype=np.float64), xp.zeros(self._layout.rotations), self._model.likelihood
        )
        for start in range(0, len(items), step):
            seen, found = self._chunk(self._patches(items.pixels[start : start + step]))
            frames += seen
            scores += found
        return Sums(frames, scores)

    def _chunk(self, patches: Array) -> tuple[Array, Array]:
        """Frames and scores of some patches."""
        xp, sizes, sigma = self._kernels.xp, self._layout, self._model.likelihood.noise_std
        scores = xp.empty((len(patches), sizes.poses), dtype=np.float32)
        row = sizes.rotations * sizes.padded
        cuts = []
        for first, count, start, stop in sizes.groups():
            poses = slice((first + sizes.box - 1) * row, (first + sizes.box - 1 + count) * row)
            cuts.append(((first, count), poses, slice(start, stop)))
        for _, poses, seen in cuts:
            self._device.products(patches[:, seen], self._targets[poses, seen], scores[:, poses])
        weights, evidence, empty = self._kernels.patch_rows(
            scores, self._shift, self._model.log_empty, _WEIGHT_SCALE
        )
        del scores
        shape = sizes.rotations, sizes.box, sizes.margin
        total = mass = None
        for rows, poses, seen in cuts:
            product = xp.empty((poses.stop - poses.start, seen.stop - seen.start), dtype=np.float32)
            self._device.sums(weights[:, poses], patches[:, seen], product)
            ones = 0 if seen.start == 0 else _BORDER + sizes.box**2 - seen.start
            factors = sigma / _WEIGHT_SCALE, 1.0 / _WEIGHT_SCALE
            part = self._kernels.patch_frames(product, rows, shape, (_BORDER - seen.start, ones), factors)
            weighed = (
                product[:, ones].reshape(rows[1], shape[0], -1).sum(axis=(0, 2), dtype=np.float64)
                * factors[1]
            )
            total, mass = (part, weighed) if total is None else (total + part, mass + weighed)
        return total, with_classes(xp.stack((evidence.sum(), empty.sum())), mass, self._model.likelihood)

    def _patches(self, pixels: Array) -> Array:
        """(n, width) float16: a one and zeros, the pixels in noise levels, a one and zeros."""
        xp, sizes = self._kernels.xp, self._layout
        area = sizes.box**2
        out = xp.zeros((len(pixels), sizes.width), dtype=np.float16)
        scaled = pixels.reshape(len(pixels), area) * pixels.dtype.type(1.0 / self._model.likelihood.noise_std)
        out[:, _BORDER : _BORDER + area] = scaled.astype(np.float16)
        out[:, 0] = out[:, _BORDER + area] = 1
        return out

    def _tables(self, templates: Array) -> tuple[Array, Array]:
        """Templates at every shift (poses, width) float16, and terms added to their scores (poses,) float32."""
        xp, sizes, likelihood = self._kernels.xp, self._layout, self._model.likelihood
        length, reach = sizes.box, 2 * sizes.box - 1
        targets = xp.zeros((reach, sizes.rotations, sizes.padded, sizes.width), dtype=np.float16)
        shift = xp.full((reach, sizes.rotations, sizes.padded), -1e30, dtype=np.float32)
        framed = xp.zeros((length + 2 * (length - 1),) * 2, dtype=np.float32)
        # pixel x of a patch shows pixel x - o of the template, which is at x - o + L - 1 in the zero-padded frame
        place = np.arange(length) - np.arange(1 - length, length)[:, None] + length - 1
        rows, columns = xp.asarray(place[:, None, :, None]), xp.asarray(place[None, :, None, :])
        inner = slice(length - 1, 2 * length - 1)
        bias = np.broadcast_to(np.asarray(likelihood.template_bias, dtype=np.float64), sizes.rotations)
        for k in range(sizes.rotations):
            framed[inner, inner] = templates[k] / likelihood.noise_std
            moved = framed[rows, columns].reshape(reach, reach, length**2)
            targets[:, k, :reach, _BORDER : _BORDER + length**2] = moved.astype(np.float16)
            energy = 0.5 * (moved * moved).sum(axis=-1, dtype=np.float64)
            shift[:, k, :reach] = (self._model.log_shown + float(bias[k]) - energy).astype(np.float32)
        return targets.reshape(sizes.poses, sizes.width), shift.reshape(sizes.poses)
