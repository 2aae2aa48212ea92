"""The E-step over a measurement: sums are added in the basis of the templates, and taken back to the volume once."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np

from ..._base.summing import map_sum
from ...data import Measurement
from ...data.tiles import TileGeometry
from ...errors import ParameterError
from ...model.likelihood import WindowLikelihood
from ...model.volumes.projections import Projections
from ..backends import Backend, get_backend
from .posterior import Posteriors
from .statistics import NUMBERS, BasisSums, VolumeStatistics
from .templates import Search, Templates, templates_of

#: Side of the tiles in pixels read.
_TILE_PIXELS = 1024


def volume_e_step(
    measurement: Measurement,
    volume: np.ndarray,
    likelihood: WindowLikelihood,
    search: Search,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
) -> VolumeStatistics:
    """Score every view at every corner and sum up the statistics of the M-step.

    Corners whose window holds an invalid pixel hold no copy.

    Args:
        measurement: the pixels, or a part of them.
        volume: (L, L, L) current estimate.
        likelihood: noise level, count, separation, standard deviation of amplitudes, and numbers of micrographs; bound to the measurement here.
        search: the views.
        backend: a backend or its name; "auto": the first CUDA device, or the CPU. Scores are computed in its array library, device and precision.
        executor: runs parts of the measurement elsewhere, with the same bits.

    Raises:
        ParameterError: a volume or a likelihood of another box than the views, or of another number of micrographs.
    """
    views = search.views
    if volume.shape != views.target_shape or likelihood.box_size != views.box_size:
        raise ParameterError(
            f"volume, likelihood and views should have one box; got {volume.shape}, {likelihood.box_size} and {views!r}."
        )
    bound = likelihood.bind(measurement.shape)
    cut, templates = volume_cut(bound), templates_of(volume, search)
    work = partial(_part, cut=cut, likelihood=bound, templates=templates, backend=get_backend(backend))
    parts = measurement.split(max(1, measurement.tile_count(cut)))
    total = map_sum(work, parts, executor)
    right = views.adjoint(templates[0].basis.images(total.wide))
    numbers = dict(zip(NUMBERS, total.numbers.tolist(), strict=True))
    return VolumeStatistics(right, views.normal(total.copies), **numbers, ledger=total.ledger)


def volume_cut(likelihood: WindowLikelihood) -> TileGeometry:
    """The cut of a measurement into tiles."""
    return likelihood.geometry.enlarged(_TILE_PIXELS)


def with_views(likelihood: WindowLikelihood, views: Projections) -> WindowLikelihood:
    """The same likelihood with the views of one E-step."""
    return replace(likelihood, views=views)


def _part(
    measurement: Measurement,
    cut: TileGeometry,
    likelihood: WindowLikelihood,
    templates: list[Templates],
    backend: Backend,
) -> BasisSums:
    with backend.active():
        posterior = Posteriors(likelihood, templates, backend)
        total = posterior.nothing()
        for tile in measurement.tiles(cut):
            total = total + posterior(tile).sums()
    return total
