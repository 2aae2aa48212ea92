"""The residual of a measurement: noise, if the model is correct."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ...data import Measurement
from ...model.likelihood import WindowLikelihood
from ..backends import Backend
from .expectation import volume_cut, with_views
from .posterior import Posteriors
from .templates import Search, templates_of


def left_over(
    measurement: Measurement,
    volume: np.ndarray,
    likelihood: WindowLikelihood,
    search: Search,
    tiles: int,
    backend: Backend,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Residuals of some tiles, spread over the measurement: float64 pixels that only windows of owned corners cover, scaled to the common noise
    level, and their validity.

    Args:
        measurement: the pixels.
        volume: (L, L, L) current estimate.
        likelihood: noise level, count, separation and numbers of micrographs.
        search: the views.
        tiles: largest number of tiles.
        backend: scores them.
    """
    bound = with_views(likelihood, search.views).bind(measurement.shape)
    cut, posterior = volume_cut(bound), Posteriors(bound, templates_of(volume, search), backend)
    for part in measurement.split(min(measurement.tile_count(cut), tiles)):
        for tile in islice(part.tiles(cut), 1):
            with backend.active():
                shown = posterior(tile).explained()
            rest = tile.values - shown
            if bound.micrographs is not None:
                rest = rest / bound.micrographs.noise_ratio[tile.micrograph]
            reached = tuple(slice(s.start + bound.box_size - 1, s.stop) for s in tile.owned)
            valid = np.ones(rest.shape, bool) if tile.valid is None else np.asarray(tile.valid)
            yield rest[reached], valid[reached]
