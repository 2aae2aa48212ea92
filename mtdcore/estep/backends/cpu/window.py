"""Window E-step on the CPU: correlations in small blocks, local exclusion in the log domain.

A tile goes through three phases, each a map over independent tasks that threads share: the log-odds of a copy at every
corner, by blocks; the competition of the corners, by strips; the weights and their back-projection, by templates.
Scores are computed twice instead of being kept: memory does not grow with the number of templates, and a block stays in
the cache. Terms and order of every sum depend on shapes only, not on threads.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ....data.tiles import Tile
from ....model.likelihood import WindowLikelihood
from ...sums import TemplateSums
from ..base import Moment
from ..collect import window_sums
from ..library import ALL
from . import kernels
from . import window_kernels as block_kernels
from .blocks import Block, block_side, from_cells, from_space, pairs, to_cells
from .lanes.emitter import LANES
from .lanes.fft import Transform, cells

#: ``map``, serial or on threads, with results in the order of the items.
Run: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

#: Log-odds below which sums over a neighbourhood stay inside float32.
_LARGEST_EXPONENT = 60.0

#: Bytes that the spectra of all templates should not exceed: blocks become smaller instead.
_SPECTRA_BYTES = 1 << 28

#: Corners along one axis of a strip whose competition is one task.
_STRIP = 128

#: Least number of tasks in which back-projections are summed, for threads to share.
_TASKS = 8


class _View(NamedTuple):
    """A tile in the form that the kernels take.

    ``seen`` (ones and zeros) is None where every pixel that the statistics touch is valid; ``masked`` tells whether
    template energies depend on invalid pixels; ``offsets`` are added to the scores of each template.
    """

    tile: Tile
    values: np.ndarray
    seen: np.ndarray | None
    masked: bool
    offsets: np.ndarray


class _Pair(NamedTuple):
    """Two blocks of owned corners: spectra of their pixels and of their validity, and log(1 + S) at the corners."""

    image: np.ndarray
    seen: np.ndarray
    log_norm: np.ndarray


class _Workspace(NamedTuple):
    """Arrays that one task at a time uses."""

    space: np.ndarray
    second: np.ndarray
    row: np.ndarray
    mass: np.ndarray
    work: np.ndarray


class WindowPlan:
    """Precomputed data of one E-step, used by every tile: templates, energies, activity.

    Args:
        templates: (t, L, L) templates.
        likelihood: of all templates, bound to the measurement.
        dtype: of the correlations.
        largest_read: height and width of the largest tile.
        part: the t templates among those of the likelihood.
    """

    def __init__(
        self,
        templates: np.ndarray,
        likelihood: WindowLikelihood,
        dtype: np.dtype,
        largest_read: tuple[int, int],
        part: slice = ALL,
    ) -> None:
        self.likelihood, self.dtype, self.part = likelihood, dtype, part
        self.templates = templates / likelihood.noise_std**2
        self.energies = 0.5 * templates**2 / likelihood.noise_std**2
        self.amplitudes = likelihood.amplitudes
        self.log_rate = (
            likelihood.log_activity - math.log(likelihood.templates) + likelihood.template_bias[part]
        )
        length, margin, halo = likelihood.box_size, likelihood.margins[1], likelihood.geometry.halos[1]
        rows, columns = (n - length + 1 for n in largest_read)
        owned = max(1, rows - 2 * halo), max(1, columns - 2 * halo)
        limit = math.isqrt(_SPECTRA_BYTES // (2 * dtype.itemsize * len(templates)))
        self.side = block_side((rows, columns), owned, length, margin, limit)
        #: Corners along one axis of a block: of a block that is only scored, and of one of owned corners, which begin after the margin.
        self.scored, self.owned = self.side - length + 1, self.side - length + 1 - 2 * margin
        self.transform = Transform.of(self.side, dtype)
        self._free: deque[_Workspace] = deque()

    # ---------------------------------------------------------------- what the backend calls

    def statistics(self, tile: Tile, run: Run = map) -> TemplateSums:
        """Statistics of one tile, the tasks of each phase run by ``run``."""
        view = self._view(tile)
        return self._sums(view, self._log_partition(self._log_odds(view, run), tile, run), run)

    def project(self, tile: Tile, log_norm: np.ndarray, run: Run = map) -> TemplateSums:
        """Statistics of one tile with the log(1 + S) of more templates than these."""
        return self._sums(self._view(tile), log_norm.astype(self.dtype), run)

    def posterior(self, tile: Tile, moment: Moment = 0, run: Run = map) -> np.ndarray:
        """(K, owned rows, owned columns) weights, times a power of the amplitude."""
        view = self._view(tile)
        log_norm = self._log_partition(self._log_odds(view, run), tile, run)
        weights = np.empty((len(self.templates), *log_norm.shape), self.dtype)
        for _ in run(partial(self._fill, view, log_norm, weights, moment), self._owned_pairs(tile)):
            pass
        return weights

    def _fill(
        self,
        view: _View,
        log_norm: np.ndarray,
        weights: np.ndarray,
        moment: Moment,
        pair: tuple[Block, Block],
    ) -> None:
        """The weights of two blocks of owned corners."""
        prepared, space = self._prepare(view, log_norm, pair), self._workspace()
        squared = moment == 2 and self.amplitudes is not None
        held, ignored = space.second if squared else space.space, self._no_sums()
        margin = self.likelihood.margins[1]
        top, left = (s.start for s in view.tile.owned)
        for k in range(len(self.templates)):
            weighing = *self._weighing(view, prepared), *space, *self._stages
            block_kernels.weigh_blocks(k, *weighing, ignored, moment == 0)
            for block, found in zip(pair, from_space(held, self.side), strict=True):
                here = found[margin : margin + len(block.rows), margin : margin + len(block.columns)]
                weights[k][_inside(block, top, left)] = here
        self._free.append(space)

    def log_odds(self, tile: Tile, run: Run = map) -> np.ndarray:
        """(P, Q) log-odds of a copy at every corner of the pixels of the tile, before corners compete."""
        return self._log_odds(self._view(tile), run)

    # ---------------------------------------------------------------- phases

    def _view(self, tile: Tile) -> _View:
        values, valid = np.asarray(tile.values, dtype=self.dtype), tile.valid
        masked = valid is not None and not valid.all()
        seen = None
        if masked or not tile.holds_frames(self.likelihood.margins[1]):
            seen = np.ones(values.shape, self.dtype) if valid is None else valid.astype(self.dtype)
        if valid is not None and masked:
            values = np.where(valid, values, self.dtype.type(0))
        if masked:
            offsets = self.log_rate
        elif self.amplitudes is None:
            offsets = self.log_rate - self.energies.sum(axis=(1, 2))
        else:
            offsets = self.log_rate + self.amplitudes.log_ratio(0.0, self._whole_energies)
        return _View(tile, np.ascontiguousarray(values), seen, masked, offsets.astype(self.dtype))

    def _log_odds(self, view: _View, run: Run = map) -> np.ndarray:
        """Log-odds at every corner: log of the sum of (lam / K) e^Lambda over templates."""
        rows, columns = (n - self.likelihood.box_size + 1 for n in view.values.shape)
        out = np.empty((rows, columns), self.dtype)
        for _ in run(partial(self._score, view, out), pairs(range(rows), range(columns), self.scored)):
            pass
        return out

    def _score(self, view: _View, out: np.ndarray, pair: Sequence[Block]) -> None:
        space = self._workspace()
        image = self._spectrum(view.values, pair, 0, space)
        seen = self._spectrum(view.seen, pair, 0, space) if view.masked and view.seen is not None else image
        peak, total = (cells(-(-self.scored // LANES), self.scored, dtype=self.dtype) for _ in range(2))
        block_kernels.score_blocks(
            image, seen, *self._scoring(view), self.scored, peak, total, *space, *self._stages
        )
        for block, found in zip(pair, from_cells(peak, self.scored), strict=True):
            out[_inside(block)] = found[: len(block.rows), : len(block.columns)]
        self._free.append(space)

    def _log_partition(self, log_odds: np.ndarray, tile: Tile, run: Run = map) -> np.ndarray:
        """log(1 + S) at the owned corners.

        Plain sums, which are faster, as long as no number can overflow; otherwise sums in the log domain.
        """
        reach = self.likelihood.separation - 1
        logarithmic = not float(log_odds.max()) < _LARGEST_EXPONENT
        rows, columns = tile.owned

        summed = np.empty((rows.stop - rows.start, log_odds.shape[1]), self.dtype)
        log_norm = np.empty((summed.shape[0], columns.stop - columns.start), self.dtype)

        def down(first: int) -> None:
            strip = log_odds[:, first : first + _STRIP].copy()
            if not logarithmic:
                kernels.exponentiate(strip)
            summed[:, first : first + _STRIP] = kernels.slide_sum(strip, reach, logarithmic)[rows]

        def across(first: int) -> None:
            strip = np.ascontiguousarray(summed[first : first + _STRIP].T)
            out = log_norm[first : first + _STRIP]
            out[:] = kernels.slide_sum(strip, reach, logarithmic)[columns].T
            kernels.log_partition(out, logarithmic)

        for task, length in ((down, summed.shape[1]), (across, summed.shape[0])):
            for _ in run(task, range(0, length, _STRIP)):
                pass
        return log_norm

    def _sums(self, view: _View, log_norm: np.ndarray, run: Run) -> TemplateSums:
        """Weights and their back-projection, by templates."""
        prepared = list(run(partial(self._prepare, view, log_norm), self._owned_pairs(view.tile)))
        slices = min(len(prepared), max(1, _TASKS // len(self.templates)))
        tasks = [(k, prepared[first::slices]) for k in range(len(self.templates)) for first in range(slices)]
        frame = self.likelihood.box_size + 2 * self.likelihood.margins[1]
        backprojection, coverage = np.zeros((2, len(self.templates), frame, frame))
        mass, first, second = np.zeros((3, len(self.templates)))
        for (k, _), found in zip(tasks, run(partial(self._project, view), tasks), strict=True):
            backprojection[k] += found[0]
            coverage[k] += found[1]
            mass[k] += found[2][0]
            first[k] += found[2][len(found[2]) // 2]
            second[k] += found[2][-1]
        total = float(log_norm.sum(dtype=np.float64))
        sums = None if self.amplitudes is None else (float(first.sum()), float(second.sum()))
        return window_sums(view.tile, self.likelihood, total, backprojection, coverage, mass, self.part, sums)

    def _prepare(self, view: _View, log_norm: np.ndarray, pair: Sequence[Block]) -> _Pair:
        margin, space = self.likelihood.margins[1], self._workspace()
        image = self._spectrum(view.values, pair, margin, space)
        seen = image if view.seen is None else self._spectrum(view.seen, pair, margin, space)
        self._free.append(space)
        reach, (top, left) = margin + self.owned, (s.start for s in view.tile.owned)
        norm = np.full((2, reach, -(-reach // LANES) * LANES), np.inf, self.dtype)
        for block, out in zip(pair, norm, strict=True):
            here = slice(margin, margin + len(block.rows)), slice(margin, margin + len(block.columns))
            out[here] = log_norm[_inside(block, top, left)]
        return _Pair(image, seen, to_cells(norm))

    def _project(
        self, view: _View, task: tuple[int, list[_Pair]]
    ) -> tuple[np.ndarray, np.ndarray | float, np.ndarray]:
        """(B, B) back-projection and coverage of some pairs by one template, and the sums of their weights."""
        (k, prepared), space = task, self._workspace()
        projected = cells(self.side, self.side // LANES, dtype=self.dtype)
        covered = np.zeros(0 if view.seen is None else projected.size, self.dtype)
        sums = self._no_sums()
        for pair in prepared:
            own = self._no_sums()
            block_kernels.project_blocks(
                k, *self._weighing(view, pair), *space, *self._stages, own, projected, covered
            )
            sums += own
        found = self._frame(projected, space)
        coverage = float(sums[-1]) if view.seen is None else self._frame(covered, space)
        self._free.append(space)
        return found, coverage, sums

    # ---------------------------------------------------------------- pieces

    @property
    def _stages(self) -> tuple[np.ndarray, np.ndarray]:
        return self.transform.radices, self.transform.twiddles

    def _scoring(self, view: _View) -> tuple[Any, ...]:
        """Arguments that all kernels share after the spectra."""
        energies = self._energy_spectra if view.masked else self._spectra[:0]
        return view.masked, self._spectra, energies, self._amplitude_rows, view.offsets

    def _weighing(self, view: _View, pair: _Pair) -> tuple[Any, ...]:
        """Arguments that the kernels of owned corners share."""
        reach = self.likelihood.margins[1] + self.owned
        return pair.image, pair.seen, *self._scoring(view), pair.log_norm, reach

    def _workspace(self) -> _Workspace:
        if self._free:
            return self._free.pop()
        space, nothing, kinds = (self.side, self.side // LANES | 1), (1,), len(self._no_sums())
        second = nothing if self.amplitudes is None else space
        shapes = (space, second, (self.side,), (kinds,), (2, self.side))
        return _Workspace(*(cells(*shape, dtype=self.dtype) for shape in shapes))

    def _spectrum(
        self, pixels: np.ndarray, pair: Sequence[Block], margin: int, space: _Workspace
    ) -> np.ndarray:
        """Cells of the spectrum of two blocks, which begin ``margin`` pixels before their first corner."""
        out = cells(self.side, self.side // LANES, dtype=self.dtype)
        # no corners: a block of zeros, beyond the tile
        tops, lefts = (
            np.array([r.start - margin if r else -self.side for r in ranges])
            for ranges in zip(*pair, strict=True)
        )
        block_kernels.block_spectrum(pixels, tops, lefts, space.space, out, space.work, *self._stages)
        return out

    def _frame(self, spectrum: np.ndarray, space: _Workspace) -> np.ndarray:
        """(B, B) float64 real part of the inverse transform, cropped to the frame of the statistics."""
        margin, length = self.likelihood.margins[1], self.likelihood.box_size
        block_kernels.block_image(spectrum, space.space, space.work, *self._stages)
        frame = np.arange(-margin, length + margin) % self.side
        whole = from_space(space.space, self.side)[0]
        return np.asarray(whole[np.ix_(frame, frame)], dtype=np.float64) / self.side**2

    def _no_sums(self) -> np.ndarray:
        """Zeros for the sums of weights; if amplitudes differ, also of weights times amplitudes and times their squares."""
        return np.zeros(1 if self.amplitudes is None else 3)

    @cached_property
    def _whole_energies(self) -> np.ndarray:
        """(K,) ``||A_t F||^2 / sigma^2``."""
        return np.asarray(2.0 * self.energies.sum(axis=(1, 2)))

    @cached_property
    def _amplitude_rows(self) -> np.ndarray:
        """(K, 3) coefficients of the kernels; (0, 3) if all amplitudes are 1."""
        if self.amplitudes is None:
            return np.zeros((0, 3), self.dtype)
        variance = np.full(len(self.templates), self.amplitudes.variance)
        slope = 1.0 / (1.0 + variance * self._whole_energies)
        return np.stack([variance, slope, 0.5 * variance * slope], axis=1).astype(self.dtype)

    @cached_property
    def _spectra(self) -> np.ndarray:
        return self._conjugate_spectra(self.templates)

    @cached_property
    def _energy_spectra(self) -> np.ndarray:
        return self._conjugate_spectra(-self.energies)

    def _conjugate_spectra(self, images: np.ndarray) -> np.ndarray:
        """(K, 2 N^2) cells, scaled such that the unnormalised inverse of a product is the correlation."""
        scaled, space = (images / self.side**2).astype(self.dtype), self._workspace()
        only = Block(range(1), range(1)), Block(range(0), range(0))
        spectra = np.stack([self._spectrum(image, only, 0, space) for image in scaled])
        spectra.reshape(-1, 2, LANES)[:, 1] *= -1
        self._free.append(space)
        return spectra

    def _owned_pairs(self, tile: Tile) -> list[tuple[Block, Block]]:
        rows, columns = (range(s.start, s.stop) for s in tile.owned)
        return pairs(rows, columns, self.owned)


def _inside(block: Block, top: int = 0, left: int = 0) -> tuple[slice, slice]:
    """Index of a block in an array whose first entry is the corner (top, left)."""
    (rows, columns) = block
    return slice(rows.start - top, rows.stop - top) if rows else slice(0), slice(
        columns.start - left, columns.stop - left
    ) if columns else slice(0)
