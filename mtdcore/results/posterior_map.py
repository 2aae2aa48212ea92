"""The posterior of the positions of copies as an image (window model), for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from .._base.typing import Array
from ..data import MeasurementLike, open_measurement
from ..data.derived import files_of
from ..errors import ParameterError
from ..estep.backends import Backend, get_backend
from ..estep.posteriors import posteriors
from ..model.likelihood import Likelihood


def posterior_maps(
    measurement: MeasurementLike,
    target: Array,
    likelihood: Likelihood,
    backend: str | Backend = "auto",
) -> Iterator[np.ndarray]:
    """The expected number of copies centred on each pixel, micrograph by micrograph.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        target: (L, L) or (C, L, L), as :func:`mtdcore.results.detections.detect` takes it.
        likelihood: window model.
        backend: a backend or its name; "auto": the first CUDA device, or the CPU.

    Yields:
        (H, W) float32 for each micrograph in turn, summed over rotations and classes. The centre of a box with its corner at
        (r, c) is pixel (r + L // 2, c + L // 2), as in the tables of picks.

    Raises:
        ParameterError: not the window model.
        InputError: the micrographs are smaller than the box.
    """
    if not likelihood.localises:
        raise ParameterError(
            f"a map of positions needs the window model, in which a copy has one pose; got {type(likelihood).__name__}."
        )
    source, middle = open_measurement(measurement), [n // 2 for n in likelihood.views.box_shape]
    found = posteriors(source, target, likelihood, get_backend(backend))
    for _, group in groupby(found, key=lambda pair: pair[0].micrograph):
        whole = np.zeros(source.shape[1:], dtype=np.float32)
        for tile, weights in group:
            rows, columns = (
                slice(s.start + half, s.stop + half)
                for s, half in zip(tile.region.owned, middle, strict=True)
            )
            whole[rows, columns] = weights.sum(axis=0)
        yield whole


def write_posterior_map(
    path: str | Path,
    measurement: MeasurementLike,
    target: Array,
    likelihood: Likelihood,
    backend: str | Backend = "auto",
    *,
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write :func:`posterior_maps` as an OME-Zarr 0.5 image (micrographs, H, W), one micrograph in memory at a time.

    Args:
        path: folder to write.
        measurement: see :func:`posterior_maps`.
        target: see there.
        likelihood: see there.
        backend: see there.
        pixel_size: angstrom; None: unknown.
        overwrite: replace ``path`` if it is a map or measurement that mtd wrote, but never the measurement itself.

    Raises:
        ParameterError, InputError: see :func:`posterior_maps`.
        StorageError: ``path`` may not be replaced or cannot be written.
    """
    from .._base.version import __version__
    from ..data.zarr.store import creating

    source = open_measurement(measurement)
    attributes = {"mtdcore": {"version": __version__, "made_by": "posterior_map"}}
    with creating(
        Path(path),
        source.shape,
        np.dtype(np.float32),
        attributes,
        "lz4",
        overwrite,
        pixel_size=pixel_size,
        ome=True,
        inputs=files_of(source),
    ) as (array, _):
        for index, one in enumerate(posterior_maps(source, target, likelihood, backend)):
            array[index] = one
