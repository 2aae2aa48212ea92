"""The part of a report that shows the measurement, the copies found in it, and their posterior."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import ndimage

import mtdcore as mtd
from mtdcore.data.tiles import Tile, TileGeometry
from mtdcore.errors import MtdError
from mtdcore.estep.posteriors import Posterior
from mtdcore.model.likelihood import Likelihood

from ..run.finished import FinishedRun
from ..run.folder import RunFolder
from ..terminal.console import log
from . import figures
from .posterior import occupancy

#: Posterior weights held at a time.
_WEIGHTS = 1 << 23


def location(run: FinishedRun) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures and captions of the first tile; none if the measurement is gone or changed."""
    try:
        measurement = run.likelihood.whitened(run.open())
        bound = run.likelihood.bind(measurement.shape)
        tile = next(iter(measurement.tiles(_shown(bound))))
    except MtdError as problem:
        log(f"the report has no picture of the measurement: {problem}")
        return {}, {}
    box = bound.box_size
    posterior = Posterior(run.estimate, bound, mtd.get_backend("cpu"))
    chances = occupancy(tile, posterior(tile), box)
    pixels = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
    side = bound.separation
    centres = _centres(run.folder, tile, box)
    rows, columns = tile.region.read
    where = f"Rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop} of micrograph {tile.micrograph + 1}"
    square = "boxes" if side == box else f"squares of the minimum separation, {side} pixels"
    enlarged = ndimage.maximum_filter(chances, max(3, max(chances.shape) // 100))
    pictures = {
        "measurement": figures.with_squares(pixels, centres, side, figures.value_range(pixels, 0.002)),
        "posterior": figures.posterior_map(enlarged),
    }
    return pictures, {
        "measurement_text": f"{where}. Outlined, as {square}: the {len(centres)} copies in {run.folder.picks.name} that touch it.",
        "posterior_text": "Probability of a copy in any rotation with its top-left corner there, on the same pixels; "
        f"the highest is {np.max(chances):.2f}. Points are enlarged, faint ones brightened.",
    }


def _shown(likelihood: Likelihood) -> TileGeometry:
    """The cut whose first tile is shown; smaller for patches, each of which has weights at 4 L^2 shifts and K rotations."""
    geometry = likelihood.geometry
    if geometry.reach:  # windows
        return geometry
    across = math.isqrt(_WEIGHTS // (4 * likelihood.box_size**2 * likelihood.templates))
    return replace(geometry, side=min(geometry.side, max(1, across) * geometry.unit))


def _centres(folder: RunFolder, tile: Tile, box_size: int) -> np.ndarray:
    """(n, 2) centres of the detected copies that reach into a tile, in its pixels."""
    first = [s.start for s in tile.region.read]
    corners = np.array(folder.read_picks(tile.micrograph), dtype=np.float64).reshape(-1, 2) - first
    inside = np.all((corners > -box_size) & (corners < tile.values.shape), axis=1)
    return np.asarray(corners[inside] + (box_size - 1) / 2)
