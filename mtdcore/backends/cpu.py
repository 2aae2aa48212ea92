"""The CPU backend: Numba kernels and scipy.fft, one tile per thread, sums in tile order."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np

from .._typing import Array
from ..errors import ParameterError
from ..likelihood import Likelihood, PatchLikelihood, Tile, WindowLikelihood
from ..statistics import Statistics
from ._cpu_patch import PatchPlan
from ._cpu_window import WindowPlan
from ._ordered import ordered
from ._precision import needed_precision

#: Halo of a tile, both sides together, above which larger tiles pay; their side; and the largest correlation maps of a
#: tile that they may lead to.
_LARGE_HALO, _TILE_PIXELS, _MAPS_BYTES = 160, 1024, 1 << 28


class CpuBackend:
    """NumPy arrays, Numba kernels, scipy transforms; see :class:`Backend` for the contract.

    Args:
        precision: dtype of the correlations. float32 is raised to float64 for an E-step in which the signal is
            so strong that rounding alone would move log-weights by more than 0.01 nats (SNR above about 100).
        threads: tiles worked on at once; None: the cores this process may use. Never changes a bit of the result.
    """

    name = "cpu"
    xp = np

    def __init__(
        self, precision: Literal["float32", "float64"] = "float32", threads: int | None = None
    ) -> None:
        if precision not in ("float32", "float64"):
            raise ParameterError(f'precision must be "float32" or "float64"; got {precision!r}.')
        if threads is not None and threads < 1:
            raise ParameterError(f"threads must be a positive number, or None for all; got {threads}.")
        self.precision = precision
        self.threads = threads or len(os.sched_getaffinity(0))

    def asarray(self, array: Array) -> np.ndarray:
        """A float64 NumPy array."""
        return np.asarray(array, dtype=np.float64)

    def to_host(self, array: Array) -> np.ndarray:
        """The array itself."""
        return np.asarray(array)

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """Larger tiles where halos would be most of them, as far as the maps of a tile stay small."""
        cut = likelihood.geometry
        if 2 * cut.halo + cut.reach <= _LARGE_HALO:
            return 0
        per_pixel = np.dtype(self.precision).itemsize * likelihood.templates
        return min(_TILE_PIXELS, math.isqrt(_MAPS_BYTES // per_pixel))

    def accumulate(self, tiles: Iterable[Tile], rotated_targets: Array, likelihood: Likelihood) -> Statistics:
        """Sum of the statistics of the tiles; see :meth:`Backend.accumulate`."""
        turned = np.asarray(rotated_targets)
        total = Statistics.zeros(len(turned), likelihood.box_size, likelihood.noise_std, likelihood.margin)
        plans = _Plans(turned, likelihood, self.precision)
        for part in ordered(plans.statistics, _groups(tiles, plans.group), self.threads):
            total = total + part
        return total

    def posterior(self, tile: Tile, rotated_targets: Array, likelihood: Likelihood) -> np.ndarray:
        """Posterior weights of one tile; see :meth:`Backend.posterior`."""
        return _Plans(np.asarray(rotated_targets), likelihood, self.precision).plan([tile]).posterior(tile)

    def log_odds(self, tile: Tile, rotated_targets: Array, likelihood: WindowLikelihood) -> np.ndarray:
        """Log-odds of a copy at each corner; see :meth:`Backend.log_odds`."""
        plan = _Plans(np.asarray(rotated_targets), likelihood, self.precision).plan([tile])
        assert isinstance(plan, WindowPlan)
        return plan.log_odds(tile)


class _Plans:
    """The plan of an E-step in each precision, made when a tile first needs it."""

    def __init__(self, turned: np.ndarray, likelihood: Likelihood, precision: str) -> None:
        self.turned, self.likelihood, self.precision = turned, likelihood, precision
        self.norm = float(np.sqrt(np.square(turned).sum(axis=(1, 2)).max()))
        self.group = PatchPlan.group if isinstance(likelihood, PatchLikelihood) else WindowPlan.group
        self._made: dict[tuple[str, tuple[int, int]], PatchPlan | WindowPlan] = {}

    def statistics(self, tiles: list[Tile]) -> Statistics:
        return self.plan(tiles).statistics(tiles)

    def plan(self, tiles: Sequence[Tile]) -> PatchPlan | WindowPlan:
        precision = needed_precision(self.precision, self.norm, self.likelihood.noise_std, tiles)
        key = (precision, tiles[0].geometry.largest_read(tiles[0].micrograph_shape))
        if key not in self._made:
            dtype = np.dtype(key[0])
            if isinstance(self.likelihood, PatchLikelihood):
                self._made[key] = PatchPlan(self.turned, self.likelihood, dtype)
            else:
                self._made[key] = WindowPlan(self.turned, self.likelihood, dtype, key[1])
        return self._made[key]


def _groups(tiles: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    """Consecutive runs of ``size`` tiles."""
    return iter(partial(lambda stream: list(islice(stream, size)), iter(tiles)), [])
