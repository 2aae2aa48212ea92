"""The window model with many templates: scores and back-projection as matrix products on tensor cores (docs/gpu.md).

Scores are windows (n, P) times templates (P, T), in half precision with float32 sums; the back-projection is posterior
shares (T, n) times windows (n, B^2). Between the two, corners compete as in the other ways. A posterior is split
into two factors in the range of half precision: the share of a template among all at its corner, and the posterior
of a copy at the corner relative to the largest in the tile. Windows are cut chunk by chunk and not kept; scores are
kept as far as memory allows, and computed again otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ....._base.numerics.conversion import on_host
from ....._base.typing import Array
from .....data.tiles import Tile
from ..device import Device
from ..kernels import ONES, ZEROS, Kernels
from ..models import Items, WindowModel
from .sums import Sums, with_classes

#: Bytes of windows, scores and shares of one chunk.
_CHUNK_BYTES = 1 << 30

#: Share of the free memory in which scores are kept between the two products.
_HELD_SHARE = 0.6

#: Columns of a matrix come in multiples of this; tensor cores need 8, and are faster with more.
_COLUMNS = 32

#: Largest rounding error of the scores in nats (root mean square), see :mod:`mtdcore.estep.backends.precision`.
_TOLERANCE = 0.01

#: Root mean square of the relative error of a number rounded to half precision, where all mantissas are equally likely.
_HALF_ROUNDING = 2.1e-4

#: Fewer templates are scored in single precision, at little cost.
_FEWEST = 128

#: Pixels above this many noise levels overflow half precision, or nearly so.
_LARGEST_PIXEL = 3e4

#: Picoseconds a pixel and template take: of a library's transforms, and of our own; then of the products per pixel of the
#: box, of the maps between them, and of cutting windows per pixel of the box and template (docs/gpu.md).
_TRANSFORMS, _PAIRS, _PRODUCTS, _MAPS, _CUTTING = 45.0, 19.0, 5.4e-3, 4.0, 4.0


def faster(box_size: int, count: int, in_pairs: bool = True) -> bool:
    """Whether ``count`` templates of this box take less time as matrices than as transforms: our own, or a library's."""
    area = box_size**2
    spent = area * _PRODUCTS + _MAPS + _CUTTING * area / count
    return count >= _FEWEST and spent < (_PAIRS if in_pairs else _TRANSFORMS)


def exact_enough(largest_norm: float, box_size: int, noise_std: float, tiles: Sequence[Tile]) -> bool:
    """Whether half precision moves the log-weights of these tiles by at most :data:`_TOLERANCE`.

    Both factors of a product are rounded, and errors of different pixels are independent: the score of a window of
    level m has the error ``sqrt(2) r ||F|| m / sigma^2``, root mean square. Windows with a copy have the highest level.

    Args:
        largest_norm: largest norm of a template.
        box_size: side L.
        noise_std: noise level of the measurement.
        tiles: tiles that are scored together.
    """
    for tile in tiles:
        if tile.peak > _LARGEST_PIXEL * noise_std:
            return False
        height = math.hypot(tile.level, largest_norm / box_size)
        if math.sqrt(2.0) * _HALF_ROUNDING * largest_norm * height / noise_std**2 > _TOLERANCE:
            return False
    return True


class MatrixPath:
    """Statistics of tiles without invalid pixels; see :class:`Path`."""

    torus: tuple[int, int] | None = None

    def __init__(self, device: Device, kernels: Kernels, templates: Array, model: WindowModel) -> None:
        self._device, self._kernels, self._model = device, kernels, model
        self._tables: dict[tuple[int, bool], Array] = {}
        likelihood, xp = model.likelihood, kernels.xp
        self._side = likelihood.box_size + 2 * likelihood.margins[1]
        self._count = len(templates)
        width = -(-self._count // 8) * 8
        # pixels outside of all templates are left out: a disc has a fifth fewer pixels than its square
        support = (templates != 0).any(axis=0)
        self._places = np.argwhere(on_host(support))
        if len(self._places) == 0:
            self._places = np.zeros((1, 2), int)
        rows, columns = (xp.asarray(a) for a in self._places.T)
        self._templates = xp.zeros((width, _padded(len(self._places))), dtype=np.float16)
        scaled = templates[:, rows, columns] / likelihood.noise_std
        self._templates[: self._count, : len(self._places)] = scaled.astype(np.float16)
        self._shift = xp.full(width, -1e30, dtype=np.float32)
        energy = (templates**2).sum(axis=(1, 2)) / (2.0 * likelihood.noise_std**2)
        self._shift[: self._count] = (xp.asarray(likelihood.template_bias) - energy).astype(np.float32)
        self._log_prior = likelihood.log_activity - math.log(self._count)
        self.bytes_per_item = 1  # tiles are processed one by one

    def sums(self, items: Items) -> Sums:
        """See :meth:`Path.sums`."""
        assert items.corners is not None
        corners = on_host(items.corners)
        parts = (self._tile(items[m : m + 1], corners[m]) for m in range(len(items)))
        total = next(parts)
        for part in parts:
            total = total + part
        return total

    def _tile(self, item: Items, corners: np.ndarray) -> Sums:
        """Sums of one tile."""
        xp, kernels, likelihood = self._kernels.xp, self._kernels, self._model.likelihood
        pixels = item.pixels[0].astype(np.float32)
        rows, columns, top, bottom, _, _ = (int(c) for c in corners)
        odds = xp.full((rows, -(-columns // 4) * 4), -np.inf, dtype=np.float32)
        held: list[Array | None] = []
        room = _HELD_SHARE * self._device.free_bytes()
        chunks = list(self._chunks(rows, columns, top, bottom))
        for first, count, counts in chunks:
            scores = self._scores(pixels, first, count, columns)
            kernels.row_log_sums(scores, self._shift, odds, self._log_prior, first, columns)
            room -= scores.nbytes if counts else 0
            held.append(scores if counts and room > 0 else None)
        normaliser, sums = kernels.compete(
            odds[None], item.corners, likelihood.log_activity, likelihood.separation
        )
        largest = (odds - normaliser[0]).max().reshape(1)
        posterior = odds, normaliser[0], largest
        frames = xp.zeros((self._templates.shape[0], _padded(self._side**2 + 1)), dtype=np.float64)
        product = xp.empty(frames.shape, dtype=np.float32)
        for index, (first, count, counts) in enumerate(chunks):
            if not counts:
                continue
            scores, held[index] = held[index], None
            if scores is None:
                scores = self._scores(pixels, first, count, columns)
            shares = kernels.row_shares(scores, self._shift, odds, self._log_prior, first, columns)
            del scores
            offsets = self._offsets(pixels.shape[1], True)
            factor = 1.0 / likelihood.noise_std
            windows = kernels.cut_windows(pixels, offsets, (first, count), columns, factor, posterior)
            self._device.sums(shares, windows, product)
            frames += product
        frames *= xp.exp(largest.astype(np.float64))
        area, shape = self._side**2, (self._count, self._side, self._side)
        seen = (frames[: self._count, :area] * likelihood.noise_std).reshape(shape)
        covered = xp.ones_like(seen) * frames[: self._count, area, None, None]
        mass = frames[: self._count, area]
        return Sums(xp.stack((seen, covered)), with_classes(sums.sum(axis=(0, 1)), mass, likelihood))

    def _scores(self, pixels: Array, first: int, count: int, columns: int) -> Array:
        """(count, T) float32 scores of consecutive corners."""
        factor = 1.0 / self._model.likelihood.noise_std
        offsets = self._offsets(pixels.shape[1], False)
        windows = self._kernels.cut_windows(pixels, offsets, (first, count), columns, factor)
        scores = self._kernels.xp.empty((count, self._templates.shape[0]), dtype=np.float32)
        self._device.products(windows, self._templates, scores)
        return scores

    def _chunks(self, rows: int, columns: int, top: int, bottom: int) -> Iterator[tuple[int, int, bool]]:
        """First corner and number of corners of whole rows, and whether they are owned."""
        pixels = self._templates.shape[1] + _padded(self._side**2 + 1)
        size = columns * (6 * self._templates.shape[0] + 2 * pixels)
        step = max(1, _CHUNK_BYTES // size)
        for start, stop, owned in ((0, top, False), (top, bottom, True), (bottom, rows, False)):
            for row in range(start, stop, step):
                yield row * columns, (min(row + step, stop) - row) * columns, owned

    def _offsets(self, stride: int, framed: bool) -> Array:
        """(P,) int32 columns of the windows: the scored pixels, or, if ``framed``, all pixels of the frame and a column of ones."""
        key = stride, framed
        if key not in self._tables:
            places = self._places
            if framed:
                places = np.argwhere(np.ones((self._side, self._side))) - self._model.likelihood.margins[1]
            table = np.full(_padded(len(places) + framed), ZEROS, dtype=np.int32)
            table[: len(places)] = places[:, 0] * stride + places[:, 1]
            if framed:
                table[len(places)] = ONES
            self._tables[key] = self._kernels.xp.asarray(table)
        return self._tables[key]


def _padded(columns: int) -> int:
    return -(-columns // _COLUMNS) * _COLUMNS
