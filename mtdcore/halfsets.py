"""Do two halves of the data agree? Fourier ring correlation of unregularised averages (SPEC 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from ._typing import Array
from .backends import Backend, get_backend
from .errors import InputError
from .estep import check_box_fits
from .likelihood import Likelihood, TileGeometry
from .measurement import Measurement, open_measurement
from .metrics import RingCorrelation, fourier_ring_correlation
from .mstep import ExactUpdate
from .rotation import RotationSet
from .statistics import Statistics

#: Tiles that a measurement is cut into at least, so that chance does not put most copies into one half.
_TILES = 16


def half_set_correlation(
    measurement: Measurement | ArrayLike | str,
    target: Array,
    likelihood: Likelihood,
    backend: str | Backend = "cpu",
) -> RingCorrelation:
    """Fourier ring correlation of the aligned averages of two disjoint halves of a measurement.

    Both halves are aligned to the same target, which has seen both: noise alone correlates as well. The curve means
    something only beside that of a null run (the same call on ``null_measurement(...)`` with the target recovered
    from it).

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        target: (L, L) image to align to, for instance ``Recovery.target``.
        likelihood: the model with its final tied parameters.
        backend: a backend or its name.

    Raises:
        InputError: the measurement is too small to be halved.
    """
    engine = get_backend(backend)
    nothing = engine.asarray(np.zeros((likelihood.box_size, likelihood.box_size)))
    first, second = (
        engine.to_host(ExactUpdate().solve(nothing, half))
        for half in half_statistics(measurement, target, likelihood, engine)
    )
    return fourier_ring_correlation(first, second)


def half_statistics(
    measurement: Measurement | ArrayLike | str,
    target: Array,
    likelihood: Likelihood,
    backend: str | Backend = "cpu",
) -> tuple[Statistics, Statistics]:
    """Statistics of two disjoint halves, alternate tiles of a fine cut; arguments as in :func:`half_set_correlation`.

    Their sum is the statistics of the whole, up to rounding and without margin.
    """
    source = open_measurement(measurement)
    check_box_fits(source, likelihood.box_size)
    bound = replace(likelihood, margin=0).bind(source.shape)
    geometry = _finer(bound.geometry, source)
    engine = get_backend(backend)
    turned = RotationSet(bound.rotations, bound.box_size).apply(engine.asarray(target))
    first, second = (
        engine.accumulate(islice(source.tiles(geometry), half, None, 2), turned, bound) for half in (0, 1)
    )
    return first, second


def _finer(geometry: TileGeometry, source: Measurement) -> TileGeometry:
    """The coarsest cut with enough tiles, or the finest there is."""
    for side in _sides(geometry):
        cut = replace(geometry, side=side)
        if source.tile_count(cut) >= _TILES:
            break
    if source.tile_count(cut) < 2:
        raise InputError(
            "a measurement should hold at least two sites to be halved; "
            f"micrographs of {source.shape[1]} x {source.shape[2]} pixels leave one: use a larger one."
        )
    return cut


def _sides(geometry: TileGeometry) -> Iterator[int]:
    """Sides of tiles in sites, halved from step to step down to one unit."""
    units = geometry.side // geometry.unit
    while units >= 1:
        yield units * geometry.unit
        units //= 2
