"""The posterior of every pose at one target, tile by tile: for detections, maps, and uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np

from .._base.typing import Array
from ..data import Measurement
from ..data.tiles import Tile
from ..model.likelihood import Likelihood, WindowLikelihood
from ..model.poses import on_whole_pixels
from .backends import Backend
from .backends.base import Moment
from .backends.competition import log_norm
from .expectation import check_box_fits, check_target
from .local import Search

#: Log-odds of a copy where there can be none.
_NEVER = -1e9


class Posterior:
    """Posterior weights of any tile, each micrograph with its own noise, count and transfer.

    Args:
        target: of the shape that the views of the likelihood take, NumPy or the backend's library.
        likelihood: bound to the measurement.
        backend: scores the tiles.

    Raises:
        ParameterError: the target does not fit the views.
    """

    def __init__(self, target: Array, likelihood: Likelihood, backend: Backend) -> None:
        check_target(target, likelihood)
        self._target, self._likelihood, self._backend = backend.asarray(target), likelihood, backend
        self._seen: tuple[int, Likelihood, Array] | None = None

    def __call__(self, tile: Tile, moment: Moment = 0) -> np.ndarray:
        """Weights as :meth:`mtdcore.estep.backends.Backend.posterior` gives them; tiles in order of micrographs are cheapest."""
        alone, templates = self.seen(tile.micrograph)
        if alone.amplitudes is None:  # every power is 1
            return self._backend.posterior(tile, templates, alone)
        return self._backend.posterior(tile, templates, alone, moment)

    def amplitudes(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Weights times amplitudes, and times their squares (window model); of views between pixels by local search where that may be."""
        alone, _ = self.seen(tile.micrograph)
        whole = on_whole_pixels(alone.views).count
        if whole < alone.templates:
            search = Search.of(self._backend, self._target, alone, whole // alone.classes)
            found = search.weights(tile, cast(WindowLikelihood, alone))
            if found is not None:
                return found
        first = self(tile, 1)
        return first, first if alone.amplitudes is None else self(tile, 2)

    def beside(self, tile: Tile, copies: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Weights beside copies that are known: what these show is taken off, and no other is closer than the minimum separation (window model).

        Args:
            tile: as for :meth:`__call__`.
            copies: (N, 3) int64 rows (row, column, template) of corners in this micrograph.
            amplitudes: (N,) float64 of them.
        """
        seen, templates = self.seen(tile.micrograph)
        alone = cast(WindowLikelihood, seen)
        shown = self._backend.to_host(templates)
        left, (top, start) = np.array(tile.values), (read.start for read in tile.region.read)
        (height, width), (down, across) = shown.shape[1:], alone.separations
        excluded = np.zeros((left.shape[0] - height + 1, left.shape[1] - width + 1), bool)
        for (row, column, template), amplitude in zip(
            (copies - [top, start, 0]).tolist(), amplitudes.tolist(), strict=True
        ):
            rows, columns = _overlap(row, height, left.shape[0]), _overlap(column, width, left.shape[1])
            own = tuple(slice(s.start - at, s.stop - at) for s, at in ((rows, row), (columns, column)))
            left[rows, columns] -= amplitude * shown[template][own]
            near = (row - down + 1, 2 * down - 1), (column - across + 1, 2 * across - 1)
            excluded[tuple(_overlap(*one, n) for one, n in zip(near, excluded.shape, strict=True))] = True
        beside = replace(tile, values=left)
        each: np.ndarray | None = None
        for t in range(len(shown)):  # filled, and turned in place: with many views nothing is as large
            odds = self._backend.log_odds(beside, templates[t : t + 1, ...], alone, slice(t, t + 1))
            each = np.empty((len(shown), *odds.shape), odds.dtype) if each is None else each
            each[t] = odds
        assert each is not None
        each[:, excluded] = _NEVER
        together = log_norm(np.logaddexp.reduce(each, axis=0), beside, alone)
        owned = each[(slice(None), *tile.owned)]
        owned -= together
        return np.asarray(np.exp(owned, out=owned))

    def seen(self, micrograph: int) -> tuple[Likelihood, Array]:
        """The likelihood of one micrograph, and (T, h, w) templates of the backend's library as it shows them."""
        if self._seen is None or (self._seen[0] != micrograph and self._likelihood.micrographs is not None):
            alone = self._likelihood.of_micrograph(micrograph)
            self._seen = micrograph, alone, alone.shown.apply(self._target)
        return self._seen[1:]


def _overlap(first: int, length: int, end: int) -> slice:
    """What ``first .. first + length - 1`` has in common with ``0 .. end - 1``."""
    start = min(max(first, 0), end)
    return slice(start, max(start, min(first + length, end)))


def posteriors(
    measurement: Measurement, target: Array, likelihood: Likelihood, backend: Backend, moment: Moment = 0
) -> Iterator[tuple[Tile, np.ndarray]]:
    """(tile, posterior weights) of every tile of the likelihood's own cut.

    Args:
        measurement: what to look at.
        target: see :class:`Posterior`.
        likelihood: bound to the measurement here.
        backend: scores the tiles.
        moment: power of the amplitude whose posterior mean multiplies the weights.

    Raises:
        InputError: the micrographs are smaller than the box.
    """
    check_box_fits(measurement, likelihood.views)
    bound = likelihood.bind(measurement.shape)
    posterior = Posterior(target, bound, backend)
    for tile in bound.whitened(measurement).tiles(bound.geometry):
        yield tile, posterior(tile, moment)
