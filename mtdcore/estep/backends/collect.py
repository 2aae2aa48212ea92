"""What a backend found in a tile as :class:`TemplateSums`: the sums that do not depend on how scores were computed."""

from __future__ import annotations

import math

import numpy as np

from ..._base.typing import Array
from ...data.tiles import Tile
from ...model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ..sums import TemplateSums, by_class


def window_sums(
    tile: Tile,
    likelihood: WindowLikelihood,
    log_norm: float,
    backprojection: Array,
    coverage: Array,
    mass: np.ndarray,
    part: slice = slice(None),
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
    """
    energy, pixels = owned_energy(tile)
    rows, columns = tile.owned
    return TemplateSums(
        backprojection,
        coverage,
        class_mass=by_class(mass, likelihood, part),
        log_likelihood=(float(log_norm) - likelihood.blank(tile)) / likelihood.neighbourhood,
        energy=energy,
        expected_count=float(mass.sum()),
        empty_mass=0.0,
        sites=(rows.stop - rows.start) * (columns.stop - columns.start),
        pixels=pixels,
        noise_std=likelihood.noise_std,
        box_size=likelihood.box_size,
    )


def patch_sums(
    likelihood: PatchLikelihood,
    sites: int,
    energy: tuple[float, int],
    log_norm: float,
    backprojection: Array,
    coverage: Array,
    inner_coverage: float,
    mass: np.ndarray,
    empty_mass: float,
) -> TemplateSums:
    """Sums of a tile of patches.

    Args:
        likelihood: the model.
        sites: number of patches.
        energy: of the valid pixels, and their number.
        log_norm: sum over patches of log p(M_m | F) - log p(M_m | empty).
        backprojection: (t, B, B) float64.
        coverage: (t, B, B) float64.
        inner_coverage: sum of the coverage inside the box.
        mass: (t,) posterior mass of the poses that show something of each template.
        empty_mass: posterior mass of the empty poses.
    """
    variance, (squares, pixels) = likelihood.noise_std**2, energy
    blank = -squares / (2.0 * variance) - 0.5 * pixels * math.log(2.0 * math.pi * variance)
    return TemplateSums(
        backprojection,
        coverage,
        class_mass=by_class(mass, likelihood),
        log_likelihood=log_norm + blank,
        energy=squares,
        expected_count=inner_coverage / likelihood.box_size**2,
        empty_mass=empty_mass,
        sites=sites,
        pixels=pixels,
        noise_std=likelihood.noise_std,
        box_size=likelihood.box_size,
    )


def inside(likelihood: Likelihood) -> tuple[slice, slice, slice]:
    """Index of the box in (t, B, B) frames."""
    box = slice(likelihood.margin, likelihood.margin + likelihood.box_size)
    return slice(None), box, box


def owned_energy(tile: Tile) -> tuple[float, int]:
    """Energy and number of the valid pixels that this tile alone counts."""
    cut = tile.owned_pixels
    values = np.asarray(tile.values[cut])
    kept = None if tile.valid is None else tile.valid[cut]
    if kept is not None:
        values = np.where(kept, values, values.dtype.type(0))
    # rows in the precision of the tile, their sum in float64: no float64 copy of the tile
    energy = np.einsum("ij,ij->i", values, values).sum(dtype=np.float64)
    return float(energy), values.size if kept is None else int(kept.sum())
