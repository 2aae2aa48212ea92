"""The CPU backend: transforms and posteriors in vectorised kernels, threads that share the work, sums in fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import numpy as np

from ...._base.cores import usable_cores
from ...._base.typing import Array, Precision
from ....data.tiles import Tile
from ....errors import ParameterError
from ....model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ...sums import TemplateSums
from ..array.backend import general
from ..base import Moment
from ..library import ALL, HostArrays, check_settings, checked, checked_norm, window_model
from ..ordered import ordered
from ..precision import needed_precision
from .patch import PatchPlan
from .window import Run, WindowPlan

#: Halo of a window tile, both sides together, above which larger tiles are faster; the two sides of tiles in pixels.
_LARGE_HALO, _TILE_PIXELS, _LARGE_TILE_PIXELS = 160, 1024, 1536

_GIB = 1 << 30


class CpuBackend(HostArrays):
    """NumPy arrays, Numba kernels for square boxes (others: :func:`..array.backend.general`); see :class:`Backend` for the contract.

    Args:
        precision: dtype of the correlations. float32 is raised to float64 for an E-step in which the signal is
            so strong that rounding alone would move log-weights by more than 0.01 nats (SNR above about 100).
        threads: number of tasks processed at once; None: the cores this process may use. The result has the same bits for any number.
        max_memory: bytes in which the patch scores of all threads may be kept until their normaliser is known; scores beyond it are
            computed twice. The result has the same bits for any value.
    """

    name = "cpu"

    def __init__(
        self,
        precision: Precision = "float32",
        threads: int | None = None,
        max_memory: int = _GIB,
    ) -> None:
        check_settings(precision, max_memory)
        if threads is not None and threads < 1:
            raise ParameterError(f"threads must be a positive number, or None for all; got {threads}.")
        self.precision: Precision = precision
        self.max_memory = max_memory
        self._threads = threads or usable_cores()

    @property
    def threads(self) -> int:
        """Number of tasks processed at once."""
        return self._threads

    def alone(self) -> CpuBackend:
        """The same backend on one thread."""
        return CpuBackend(self.precision, 1, self.max_memory)

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """Large tiles, in which halos and incomplete groups of patches are a small share."""
        cut, arrays = likelihood.geometry, general(self, likelihood)
        if arrays is not None:
            return arrays.tile_pixels(likelihood)
        return _TILE_PIXELS if 2 * cut.halos[1] + cut.reaches[1] <= _LARGE_HALO else _LARGE_TILE_PIXELS

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> TemplateSums:
        """Sum of the statistics of the tiles; see :meth:`Backend.accumulate`."""
        arrays = general(self, likelihood)
        if arrays is not None:
            total = arrays.accumulate((), templates, likelihood)
            parts = ordered(
                lambda tile: arrays.accumulate([tile], templates, likelihood), tiles, self.threads
            )
        else:
            plans = self._plans(templates, likelihood)
            total, parts = (
                TemplateSums.zeros(len(plans.templates), likelihood),
                self._statistics(tiles, plans),
            )
        for part in parts:
            total = total + part
        return total

    def _statistics(self, tiles: Iterable[Tile], plans: _Plans) -> Iterator[TemplateSums]:
        """Statistics of each tile in order. Threads share the tiles of patches; of windows, they share the work on each tile."""
        if not plans.likelihood.localises:
            yield from ordered(lambda tile: plans.patches(tile).statistics(tile), tiles, self.threads)
        else:
            with self._running() as run:
                yield from (plans.windows(tile).statistics(tile, run) for tile in tiles)

    def posterior(
        self, tile: Tile, templates: Array, likelihood: Likelihood, moment: Moment = 0
    ) -> np.ndarray:
        """Posterior weights of one tile; see :meth:`Backend.posterior`."""
        arrays = general(self, likelihood)
        if arrays is not None:
            return arrays.posterior(tile, templates, likelihood, moment)
        plans = self._plans(templates, likelihood)
        if likelihood.localises:
            with self._running() as run:
                return plans.windows(tile).posterior(tile, moment, run)
        return plans.patches(tile).posterior(tile)

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """Log-odds of a copy at each corner; see :meth:`Backend.log_odds`."""
        arrays = general(self, likelihood)
        if arrays is not None:
            return arrays.log_odds(tile, templates, likelihood, part)
        plan = self._plans(templates, window_model(likelihood), part).windows(tile)
        with self._running() as run:
            return plan.log_odds(tile, run)

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> TemplateSums:
        """Statistics of some templates; see :meth:`Backend.project`."""
        arrays = general(self, likelihood)
        if arrays is not None:
            return arrays.project(tile, templates, likelihood, log_norm, part)
        plan = self._plans(templates, window_model(likelihood), part).windows(tile)
        with self._running() as run:
            return plan.project(tile, checked_norm(log_norm, tile), run)

    @contextmanager
    def _running(self) -> Iterator[Run]:
        """A map over the tasks of one tile of windows."""
        if self.threads == 1:
            yield map
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                yield pool.map

    def _plans(self, templates: Array, likelihood: Likelihood, part: slice = ALL) -> _Plans:
        templates = checked(templates, likelihood, np, part)
        return _Plans(templates, likelihood, self.precision, self.max_memory // self.threads, part)


class _Plans:
    """The plan of an E-step in each precision, made when a tile first needs it."""

    def __init__(
        self, templates: np.ndarray, likelihood: Likelihood, precision: str, memory: int, part: slice
    ) -> None:
        self.templates, self.likelihood, self.precision, self.memory = (
            templates,
            likelihood,
            precision,
            memory,
        )
        self.part = part
        self.norm = float(np.sqrt(np.square(templates).sum(axis=(1, 2)).max()))
        self._patches: dict[str, PatchPlan] = {}
        self._windows: dict[tuple[str, tuple[int, int]], WindowPlan] = {}

    def patches(self, tile: Tile) -> PatchPlan:
        key = self._needed(tile)
        if key not in self._patches:
            self._patches[key] = PatchPlan(
                self.templates, cast(PatchLikelihood, self.likelihood), np.dtype(key), self.memory
            )
        return self._patches[key]

    def windows(self, tile: Tile) -> WindowPlan:
        key = self._needed(tile), tile.geometry.largest_read(tile.micrograph_shape)
        if key not in self._windows:
            dtype = np.dtype(key[0])
            self._windows[key] = WindowPlan(
                self.templates, cast(WindowLikelihood, self.likelihood), dtype, key[1], self.part
            )
        return self._windows[key]

    def _needed(self, tile: Tile) -> str:
        return needed_precision(self.precision, self.norm, self.likelihood.noise_std, [tile])
