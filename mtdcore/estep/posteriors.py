"""The posterior of every pose at one target, tile by tile: for detections, maps, and uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from .._base.typing import Array
from ..data import Measurement
from ..data.tiles import Region, Tile
from ..model.likelihood import Likelihood, WindowLikelihood
from ..model.poses import on_whole_pixels
from .backends import Backend
from .backends.base import Moment
from .backends.competition import log_norm
from .expectation import check_box_fits, check_target
from .local import Search

#: Log-odds of a copy at an excluded corner.
_NEVER = -1e9


@dataclass(frozen=True, eq=False)
class Chances:
    """Log-odds and posterior probabilities of copies at the corners that a tile owns.

    Attributes:
        tile: the tile, with known copies subtracted from its pixels.
        log_odds: (rows, columns) float64, log-odds of a copy in any pose, before corners compete.
        mass: (rows, columns) float64, posterior probability of a copy.
    """

    tile: Tile
    log_odds: np.ndarray
    mass: np.ndarray


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
        """Weights as of :meth:`mtdcore.estep.backends.Backend.posterior`; tiles in the order of micrographs are cheapest."""
        alone, templates = self.seen(tile.micrograph)
        if alone.amplitudes is None:  # every power is 1
            return self._backend.posterior(tile, templates, alone)
        return self._backend.posterior(tile, templates, alone, moment)

    def amplitudes(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Weights times amplitudes, and times their squares (window model); with sub-pixel shifts by local search if possible."""
        alone, _ = self.seen(tile.micrograph)
        whole = on_whole_pixels(alone.views).count
        if whole < alone.templates:
            search = Search.of(self._backend, self._target, alone, whole // alone.classes)
            found = search.weights(tile, cast(WindowLikelihood, alone))
            if found is not None:
                return found
        first = self(tile, 1)
        return first, first if alone.amplitudes is None else self(tile, 2)

    def chances(
        self, tile: Tile, copies: np.ndarray | None = None, amplitudes: np.ndarray | None = None
    ) -> Chances:
        """The probability of a copy in any pose at each corner, given known copies (window model).

        Known copies are subtracted from the pixels; corners closer to them than the minimum separation are excluded.

        Args:
            tile: as for :meth:`__call__`.
            copies: (N, 3) int64 rows (row, column, template) of corners in this micrograph; None: none is known.
            amplitudes: (N,) float64 amplitudes of the known copies.
        """
        seen, templates = self.seen(tile.micrograph)
        alone = cast(WindowLikelihood, seen)
        excluded = None
        if copies is not None and amplitudes is not None and len(copies):
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
            tile = replace(tile, values=left)
        odds = self._backend.log_odds(tile, templates, alone)
        if excluded is not None:
            odds[excluded] = _NEVER
        owned = np.asarray(odds[tile.owned], np.float64)
        return Chances(tile, owned, np.exp(owned - log_norm(odds, tile, alone)))

    def poses(self, chances: Chances, near: tuple[slice, slice]) -> np.ndarray:
        """(T,) posterior of each template, summed over some of the corners of :meth:`chances`.

        Args:
            chances: result for a tile.
            near: range of rows and of columns among the owned corners.
        """
        tile, mass = chances.tile, chances.mass[near]
        rows, columns = (
            slice(own.start + cut.start, own.start + cut.stop + reach)
            for own, cut, reach in zip(tile.owned, near, tile.geometry.reaches, strict=True)
        )
        # scored as a small micrograph, in which the shares of the templates at a corner are the same
        values, sides = tile.values[rows, columns], mass.shape
        valid = None if tile.valid is None else tile.valid[rows, columns]
        owned, read = (tuple(slice(0, n) for n in shape) for shape in (sides, values.shape))
        small = replace(
            tile,
            values=values,
            valid=valid,
            region=Region(owned, read),  # type: ignore[arg-type]
            micrograph_shape=values.shape,
            geometry=replace(tile.geometry, side=max(sides), halo=0, shares=1),
        )
        weights = np.asarray(self(small), np.float64)
        together = weights.sum(axis=0)
        share = np.divide(mass, together, out=np.zeros_like(mass), where=together > 0.0)
        return np.asarray(np.tensordot(weights, share, axes=2))

    def seen(self, micrograph: int) -> tuple[Likelihood, Array]:
        """The likelihood of one micrograph, and its (T, h, w) templates in the backend's library."""
        if self._seen is None or (self._seen[0] != micrograph and self._likelihood.micrographs is not None):
            alone = self._likelihood.of_micrograph(micrograph)
            self._seen = micrograph, alone, alone.shown.apply(self._target)
        return self._seen[1:]


def _overlap(first: int, length: int, end: int) -> slice:
    """The intersection of ``first .. first + length - 1`` and ``0 .. end - 1``."""
    start = min(max(first, 0), end)
    return slice(start, max(start, min(first + length, end)))


def posteriors(
    measurement: Measurement, target: Array, likelihood: Likelihood, backend: Backend, moment: Moment = 0
) -> Iterator[tuple[Tile, np.ndarray]]:
    """(tile, posterior weights) of every tile of the likelihood's own cut.

    Args:
        measurement: the pixels.
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
