"""The E-step: tiles to statistics, summed in a fixed order."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from functools import partial

from .._base.summing import map_sum
from .._base.typing import Array
from ..data import Measurement, MeasurementLike, open_measurement
from ..data.measurement import Tiles
from ..data.tiles import TileGeometry
from ..errors import InputError, ParameterError
from ..model.likelihood import Likelihood
from ..model.views import Views
from .backends import Backend, get_backend
from .each_micrograph import accumulate
from .statistics import Statistics

#: Tiles of the likelihood's own size summed by one task; of larger tiles proportionally fewer, but at least
#: :attr:`Backend.tiles_together`. The order of every sum depends on the cut and these numbers only, so that any executor, any
#: number of workers, and no executor give the same bits.
PART_TILES = 64


def e_step(
    measurement: MeasurementLike,
    target: Array,
    likelihood: Likelihood,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
    tile_pixels: int | None = None,
    coarse: int | None = None,
) -> Statistics:
    """Score every pose at every site and sum up the statistics of the M-step (docs/model.md 3 and 7).

    Args:
        measurement: anything :func:`open_measurement` takes.
        target: current estimate F, of the shape that the views of the likelihood take: (L, L) of an image, with C in
            front for C classes; floating point, NumPy or the backend's library.
        likelihood: the observation model; the window model is bound to the measurement here.
        backend: a backend or its name; "auto": the first CUDA device, or the CPU.
        executor: runs parts of the measurement elsewhere (threads, processes, :mod:`mtdcore.estep.dask`); only the target
            and the statistics travel. The result has the same bits as without.
        tile_pixels: side of the tiles in pixels read, but not smaller than the likelihood's own; None: the side of the backend.
        coarse: search for copies with about this number of views of each class, and score all views only at their
            places (:mod:`mtdcore.estep.local`); None: score all views everywhere.

    Returns:
        Statistics in the backend's library.

    Raises:
        InputError: the micrographs are smaller than the box.
        ParameterError: the target does not fit the views, or the likelihood the micrographs.
    """
    source = likelihood.whitened(open_measurement(measurement))
    engine = get_backend(backend)
    check_target(target, likelihood)
    check_box_fits(source, likelihood.views)
    bound = likelihood.bind(source.shape)
    cut = tile_cut(bound, engine) if tile_pixels is None else bound.geometry.enlarged(tile_pixels)
    own, enlarged = (math.prod(geometry.sides) for geometry in (bound.geometry, cut))
    together = max(engine.tiles_together, PART_TILES * own // enlarged)
    parts = source.split(max(1, -(-source.tile_count(cut) // together)))
    work = partial(_part, cut=cut, target=target, likelihood=bound, backend=engine, coarse=coarse)
    return map_sum(work, parts, executor)


def tile_cut(likelihood: Likelihood, backend: Backend) -> TileGeometry:
    """The cut of a measurement into the tiles of an E-step."""
    return likelihood.geometry.enlarged(backend.tile_pixels(likelihood))


def check_box_fits(measurement: Measurement, views: Views) -> None:
    """Raise InputError when the micrographs are smaller than the box."""
    box, shape = views.box_shape, measurement.shape[1:]
    if any(n < side for n, side in zip(shape, box, strict=True)):
        raise InputError(
            f"the measurement should be at least one box of {box[0]} x {box[1]} pixels; its micrographs are "
            f"{shape[0]} x {shape[1]}: choose a smaller box size."
        )


def check_target(target: Array, likelihood: Likelihood) -> None:
    """Raise ParameterError when a target is not of the shape that the views take."""
    expected = likelihood.views.target_shape
    if tuple(target.shape) != expected:
        raise ParameterError(
            f"the target should have the shape that the views take, {expected}; got {tuple(target.shape)}."
        )


def _part(
    measurement: Measurement,
    cut: TileGeometry,
    target: Array,
    likelihood: Likelihood,
    backend: Backend,
    coarse: int | None,
) -> Statistics:
    return accumulate(backend, Tiles(measurement, cut), backend.asarray(target), likelihood, coarse)
