"""The posterior of every pose at one target, tile by tile: for detections, maps, and uncertainty."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._base.typing import Array
from ..data import Measurement
from ..data.tiles import Tile
from ..model.likelihood import Likelihood
from .backends import Backend
from .backends.base import Moment
from .expectation import check_box_fits, check_target


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

    def seen(self, micrograph: int) -> tuple[Likelihood, Array]:
        """The likelihood of one micrograph, and (T, h, w) templates of the backend's library as it shows them."""
        if self._seen is None or (self._seen[0] != micrograph and self._likelihood.micrographs is not None):
            alone = self._likelihood.of_micrograph(micrograph)
            self._seen = micrograph, alone, alone.shown.apply(self._target)
        return self._seen[1:]


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
