"""One pass over a measurement: its moments, summed over tiles in a fixed order (docs/model.md 16).

Each pixel x is owned by one tile. For each edge e the products ``X(x) X(x + e)`` of the owned pixels are correlated with the
tile by FFT, which gives the triples of that edge at all lags of the box at once. Transforms of several tiles are added up
before the inverse transform.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.fft

from .._base.summing import map_sum
from .._base.typing import Array, Lengths, pair, plain
from ..data import Measurement, MeasurementLike, open_measurement
from ..data.noise import estimate_offset
from ..data.tiles import Tile, TileGeometry
from ..errors import InputError, ParameterError
from ..estep.backends import Backend, get_backend
from .sums import Moments, edges_within

#: Pixels along one side of a transform, at least two boxes; and number of tiles transformed together.
_SIDE, _TOGETHER = 256, 8

#: Number of parts of a measurement, each summed by one task. It is small, as the sums of the parts are held in memory.
_PARTS = 16

#: Default reach of edges in boxes. Triples without a short edge add little information, and cost as much each (docs/model.md 16).
_REACH = 1 / 4


def measure_moments(
    measurement: MeasurementLike,
    box_size: Lengths,
    *,
    reach: Lengths | None = None,
    mask: np.ndarray | None = None,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
) -> Moments:
    """Moments of a measurement up to the third order, in one pass.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        box_size: side L of the box in pixels, or (height, width).
        reach: largest edge of a triple in pixels, along rows and along columns; None: a quarter of the box. Time and memory
            grow with the number of edges, about ``2 reach^2``.
        mask: bool, true where a pixel may be used.
        backend: a backend or its name, for its array library, in float64; "auto": the first CUDA device, or the CPU.
        executor: runs parts elsewhere; the result has the same bits as without.

    Raises:
        ParameterError: the box or the reach are outside their domain.
        InputError: the micrographs are smaller than the box, or have no valid pixels.
    """
    source, box = open_measurement(measurement, mask), pair(box_size)
    if any(n < 1 or n > side for n, side in zip(box, source.shape[1:], strict=True)):
        raise InputError(
            f"the measurement should be at least one box of {box[0]} x {box[1]} pixels; its micrographs are "
            f"{source.shape[1]} x {source.shape[2]}: choose a smaller box size."
        )
    longest = (round(box[0] * _REACH), round(box[1] * _REACH)) if reach is None else pair(reach)
    if any(not 0 <= most < n for most, n in zip(longest, box, strict=True)):
        raise ParameterError(f"the reach of edges should be at least 0 and below the box size; got {reach}.")
    engine = get_backend(backend)
    around = plain(box[0] - 1, box[1] - 1)
    sides = (
        max(n, min(_SIDE, side + 2 * (n - 1)) - 2 * (n - 1))
        for n, side in zip(box, source.shape[1:], strict=True)
    )
    geometry = TileGeometry(side=plain(*sides), unit=1, halo=around, reach=0)
    work = partial(_part, cut=_Cut(box, longest, geometry, estimate_offset(source)), backend=engine)
    parts = source.split(max(1, min(_PARTS, source.tile_count(geometry) // _TOGETHER)))
    if executor is None and engine.threads > 1:
        with ThreadPoolExecutor(engine.threads) as threads:
            found = map_sum(work, parts, threads)
    else:
        found = map_sum(work, parts, executor)
    if not found.pixels:
        raise InputError("the measurement has no valid pixel: every value is NaN, infinite or masked.")
    return found


@dataclass(frozen=True)
class _Cut:
    """How a measurement is read: box, reach of the edges, tiles, and the offset subtracted from its pixels."""

    box: tuple[int, int]
    reach: tuple[int, int]
    geometry: TileGeometry
    offset: float

    def canvas(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the transforms for a micrograph of this shape: the largest tile with a box around it."""
        owned = (-(-n // -(-n // side)) for side, n in zip(self.geometry.sides, shape, strict=True))
        rows, columns = (
            scipy.fft.next_fast_len(n + 2 * (b - 1), real=True) for n, b in zip(owned, self.box, strict=True)
        )
        return rows, columns


def _part(measurement: Measurement, cut: _Cut, backend: Backend) -> Moments:
    """Moments of a part of a measurement."""
    canvas = cut.canvas(measurement.shape[1:])
    total = pixels = 0.0
    sums, counts = _Sums(cut, canvas, backend), _Counts(cut, canvas)
    for group in _groups(measurement.tiles(cut.geometry), _TOGETHER):
        placed = [_placed(tile, cut, canvas) for tile in group]
        total += sum(
            float(values[_owned(tile, cut)].sum()) for tile, (values, _) in zip(group, placed, strict=True)
        )
        pixels += sum(
            float(valid[_owned(tile, cut)].sum()) for tile, (_, valid) in zip(group, placed, strict=True)
        )
        sums.add(np.stack([values for values, _ in placed]), group)
        counts.add(group, [valid for _, valid in placed])
    return Moments(
        cut.box,
        cut.reach,
        measurement.shape,
        cut.offset,
        total,
        pixels,
        backend.to_host(sums.pairs),
        counts.pairs,
        backend.to_host(sums.triples),
        counts.triples,
    )


def _groups(tiles: Iterable[Tile], count: int) -> Iterator[tuple[Tile, ...]]:
    """The tiles in groups of ``count``."""
    left = iter(tiles)
    while group := tuple(itertools.islice(left, count)):
        yield group


def _owned(tile: Tile, cut: _Cut) -> tuple[slice, slice]:
    """Owned pixels on a canvas; they begin so far in that a box around the first of them stays on the canvas."""
    rows, columns = (
        slice(n - 1, n - 1 + owned.stop - owned.start)
        for n, owned in zip(cut.box, tile.region.owned, strict=True)
    )
    return rows, columns


def _placed(tile: Tile, cut: _Cut, canvas: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(values less the offset, valid) of a tile, float64 on a canvas, 0 at invalid pixels."""
    values, valid = np.zeros(canvas), np.zeros(canvas)
    place = tuple(
        slice(n - 1 - (owned.start - read.start), n - 1 - (owned.start - read.start) + read.stop - read.start)
        for n, owned, read in zip(cut.box, tile.region.owned, tile.region.read, strict=True)
    )
    values[place] = tile.values
    valid[place] = 1.0 if tile.valid is None else tile.valid
    values -= cut.offset
    return values * valid, valid


class _Sums:
    """Sums of products over pairs and triples, on the device of a backend."""

    def __init__(self, cut: _Cut, canvas: tuple[int, int], backend: Backend) -> None:
        self._cut, self._canvas, self._backend = cut, canvas, backend
        lags = tuple(2 * n - 1 for n in cut.box)
        self.pairs: Array = backend.asarray(np.zeros(lags))
        self.triples: Array = backend.asarray(np.zeros((len(edges_within(cut.reach)), *lags)))

    def add(self, values: np.ndarray, tiles: tuple[Tile, ...]) -> None:
        """Add the sums of tiles, (T, rows, columns) on their canvases."""
        pixels = self._backend.asarray(values)
        fft: Any = scipy.fft if isinstance(pixels, np.ndarray) else self._backend.xp.fft
        height, width = (n - 1 for n in self._cut.box)
        rows, columns = (n - 2 * m for n, m in zip(self._canvas, (height, width), strict=True))
        own = np.zeros((len(tiles), rows, columns))
        for mask, tile in zip(own, tiles, strict=True):
            mask[tuple(slice(0, o.stop - o.start) for o in tile.region.owned)] = 1.0
        anchors = self._backend.asarray(own) * pixels[:, height : height + rows, width : width + columns]
        spectra = fft.rfftn(pixels, axes=(1, 2))

        def correlated(products: Array) -> Array:
            """Sums over tiles and anchors x of ``products(x) X(x + q)``, q the lags of the box."""
            padded = self._backend.xp.zeros_like(pixels)
            padded[:, :rows, :columns] = products
            both = self._backend.xp.sum(
                self._backend.xp.conj(fft.rfftn(padded, axes=(1, 2))) * spectra, axis=0
            )
            return fft.irfftn(both, s=self._canvas, axes=(0, 1))[: 2 * height + 1, : 2 * width + 1]

        self.pairs += correlated(anchors)
        for i, (down, right) in enumerate(edges_within(self._cut.reach)):
            beside = pixels[:, height + down : height + down + rows, width + right : width + right + columns]
            self.triples[i, ...] += correlated(anchors * beside)


class _Counts:
    """Numbers of valid pairs and triples; in closed form if every pixel is valid."""

    def __init__(self, cut: _Cut, canvas: tuple[int, int]) -> None:
        self._cut, self._canvas = cut, canvas
        lags = tuple(2 * n - 1 for n in cut.box)
        self._edges = edges_within(cut.reach)
        self.pairs, self.triples = np.zeros(lags), np.zeros((len(self._edges), *lags))

    def add(self, tiles: tuple[Tile, ...], valid: list[np.ndarray]) -> None:
        """Count the pairs and triples of tiles, whose valid pixels are 1 on their canvases."""
        inner = 0.0
        for tile, where in zip(tiles, valid, strict=True):
            if tile.valid is not None:
                self._counted(where, tile)
            elif _surrounded(tile, self._cut.box):
                rows, columns = tile.region.owned
                inner += (rows.stop - rows.start) * (columns.stop - columns.start)
            else:
                self._all_valid(tile)
        self.pairs += inner
        self.triples += inner

    def _all_valid(self, tile: Tile) -> None:
        """Count a tile at an edge of the micrograph: rows and columns are independent, so the count is a product."""
        along = [
            _inside(owned, length, n, most)
            for owned, length, n, most in zip(
                tile.region.owned, tile.micrograph_shape, self._cut.box, self._cut.reach, strict=True
            )
        ]
        (rows, columns), (down, right) = (
            along,
            (e + m for e, m in zip(self._edges.T, self._cut.reach, strict=True)),
        )
        self.pairs += np.outer(rows[self._cut.reach[0]], columns[self._cut.reach[1]])
        self.triples += rows[down][:, :, None] * columns[right][:, None, :]

    def _counted(self, valid: np.ndarray, tile: Tile) -> None:
        """Count a tile with invalid pixels, in the way the products are summed."""
        host = get_backend("array")
        mine = _Sums(self._cut, self._canvas, host)
        mine.add(valid[None], (tile,))
        self.pairs += np.rint(mine.pairs)
        self.triples += np.rint(mine.triples)


def _surrounded(tile: Tile, box: tuple[int, int]) -> bool:
    """Whether the boxes around all owned pixels lie inside the micrograph."""
    return all(
        owned.start >= n - 1 and owned.stop + n - 1 <= length
        for owned, n, length in zip(tile.region.owned, box, tile.micrograph_shape, strict=True)
    )


def _inside(owned: slice, length: int, box: int, reach: int) -> np.ndarray:
    """(2 reach + 1, 2 box - 1): for each e and q the number of owned x along one axis with x + e and x + q in 0 .. length - 1."""
    places = np.arange(owned.start, owned.stop)
    first = [(places + e >= 0) & (places + e < length) for e in range(-reach, reach + 1)]
    second = [(places + q >= 0) & (places + q < length) for q in range(1 - box, box)]
    return np.array(first, np.float64) @ np.array(second, np.float64).T
