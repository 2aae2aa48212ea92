"""Results of a backend in a tile as :class:`TemplateSums`, independent of how scores were computed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import DTypeLike

from ..._base.typing import Array, plain
from ...data.tiles import Tile
from ...model.likelihood import PatchLikelihood, WindowLikelihood
from ..sums import TemplateSums, by_class


class Owned(NamedTuple):
    """Sums over the owned pixels and sites of tiles, independent of templates: fields of :class:`TemplateSums`."""

    energy: float
    total: float
    sites: int
    pixels: int

    @classmethod
    def of(cls, tile: Tile, dtype: DTypeLike | None = None) -> Owned:
        """The sums of one tile; ``dtype`` as for :func:`owned_energy`."""
        energy, pixels = owned_energy(tile, dtype)
        return cls(energy, tile.total, owned_sites(tile), pixels)


def owned_sites(tile: Tile) -> int:
    """Patches or corners that a tile owns."""
    return math.prod(
        (s.stop - s.start) // unit for s, unit in zip(tile.owned, tile.geometry.units, strict=True)
    )


def window_sums(
    tile: Tile,
    likelihood: WindowLikelihood,
    log_norm: float,
    backprojection: Array,
    coverage: Array,
    mass: np.ndarray,
    part: slice = slice(None),
    amplitudes: tuple[float, float] | None = None,
) -> TemplateSums:
    """Sums of a tile of windows.

    Args:
        tile: the tile.
        likelihood: bound to the measurement.
        log_norm: sum of log(1 + S) over the owned corners.
        backprojection: (t, B, B) float64.
        coverage: (t, B, B) float64.
        mass: (t,) posterior mass of each template at the owned corners.
        part: the t templates among those of the likelihood.
        amplitudes: sums of the posterior mean amplitudes and of their squares; None: all are 1.
    """
    count = float(mass.sum())
    first, second = (count, count) if amplitudes is None else amplitudes
    return TemplateSums(
        backprojection,
        coverage,
        class_mass=by_class(mass, likelihood, part),
        log_likelihood=(float(log_norm) - likelihood.blank(tile)) / likelihood.neighbourhood,
        expected_count=count,
        empty_mass=0.0,
        **Owned.of(tile)._asdict(),
        noise_std=likelihood.noise_std,
        box_size=plain(*likelihood.views.box_shape),
        amplitude_sum=first,
        amplitude_squares=second,
    )


def patch_sums(
    likelihood: PatchLikelihood,
    owned: Owned,
    log_norm: float,
    backprojection: Array,
    coverage: Array,
    class_mass: np.ndarray,
    empty_mass: float,
) -> TemplateSums:
    """Sums of tiles of patches.

    Args:
        likelihood: the model.
        owned: sums of the tiles.
        log_norm: sum over patches of log p(M_m | F) - log p(M_m | empty).
        backprojection: (t, B, B) float64.
        coverage: (t, B, B) float64.
        class_mass: (C,) posterior mass of the poses that show something of each class.
        empty_mass: posterior mass of the empty poses.
    """
    variance = likelihood.noise_std**2
    blank = -owned.energy / (2.0 * variance) - 0.5 * owned.pixels * math.log(2.0 * math.pi * variance)
    shown = float(array_namespace(coverage).sum(coverage[(slice(None), *likelihood.inner)]))
    count = shown / math.prod(likelihood.views.box_shape)
    return TemplateSums(
        backprojection,
        coverage,
        class_mass=class_mass,
        log_likelihood=log_norm + blank,
        expected_count=count,
        empty_mass=empty_mass,
        **owned._asdict(),
        noise_std=likelihood.noise_std,
        box_size=plain(*likelihood.views.box_shape),
        amplitude_sum=count,
        amplitude_squares=count,
    )


def owned_energy(tile: Tile, dtype: DTypeLike | None = None) -> tuple[float, int]:
    """Energy and number of the valid pixels that this tile alone counts; rows are summed in ``dtype``; None: the dtype of the tile."""
    cut = tile.owned_pixels
    values = np.asarray(tile.values[cut], dtype)
    kept = None if tile.valid is None else tile.valid[cut]
    if kept is not None:
        values = np.where(kept, values, values.dtype.type(0))
    # the sum of the rows is in float64: no float64 copy of the tile
    energy = np.einsum("ij,ij->i", values, values).sum(dtype=np.float64)
    return float(energy), values.size if kept is None else int(kept.sum())
