"""The part of a report that shows the measurement, the copies found in it, and their posterior."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import ndimage

import mtdcore as mtd
from mtdcore._base.typing import plain
from mtdcore.data.tiles import Tile, TileGeometry
from mtdcore.drawing.charts import DARK, LIGHT, is_motif
from mtdcore.drawing.images import value_range
from mtdcore.errors import MtdError
from mtdcore.estep.posteriors import Posterior
from mtdcore.model.likelihood import Likelihood

from ..run.finished import FinishedRun
from ..run.folder import RunFolder
from ..terminal.console import log
from . import figures
from .figures_signal import chances as probabilities
from .figures_signal import with_spans
from .posterior import occupancy

#: Length of signal that is shown, in boxes.
_SAMPLES = 30

#: Largest number of posterior weights in memory.
_WEIGHTS = 1 << 23


def location(run: FinishedRun) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures and captions of the first tile; none if the measurement is missing or has changed."""
    try:
        measurement = run.likelihood.whitened(run.open())
        bound = run.likelihood.bind(measurement.shape)
        tile = next(iter(measurement.tiles(_shown(bound))))
    except MtdError as problem:
        log(f"the report has no picture of the measurement: {problem}")
        return {}, {}
    box = bound.views.box_shape
    posterior = Posterior(run.estimate, bound, mtd.get_backend("cpu"))
    chances = occupancy(tile, posterior(tile), box)
    pixels = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
    if is_motif(box) and box[0] == pixels.shape[0]:
        return _of_signal(run, tile, chances, pixels)
    sides = bound.separations
    centres = _centres(run.folder, tile, box)
    rows, columns = tile.region.read
    where = f"Rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop} of micrograph {tile.micrograph + 1}"
    square = "boxes" if sides == box else f"areas of the minimum separation, {plain(*sides)} pixels"
    enlarged = ndimage.maximum_filter(chances, max(3, max(chances.shape) // 100))
    pictures = {
        "measurement": figures.with_squares(pixels, centres, sides, value_range(pixels, 0.002)),
        "posterior": figures.posterior_map(enlarged),
    }
    return pictures, {
        "measurement_text": f"{where}. Outlined, as {square}: the {len(centres)} copies in {run.folder.picks.name} that touch it.",
        "posterior_text": "Probability of a copy in any rotation with its top-left corner there, on the same pixels; "
        f"the highest is {np.max(chances):.2f}. Points are enlarged, faint ones brightened.",
    }


def _of_signal(
    run: FinishedRun, tile: Tile, chances: np.ndarray, pixels: np.ndarray
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures and captions of a signal, for a box that spans all its channels."""
    height, width = run.likelihood.views.box_shape
    first, last = (
        tile.region.read[1].start,
        min(tile.region.read[1].stop, tile.region.read[1].start + _SAMPLES * width),
    )
    shown = slice(0, last - first)
    starts = _centres(run.folder, tile, (height, width))[:, 1] - (width - 1) / 2
    starts = starts[starts < last - first]
    pictures = {}
    for name, palette in (("", LIGHT), ("_dark", DARK)):
        pictures[f"measurement{name}"] = with_spans(pixels[:, shown], first, starts, width, palette)
        pictures[f"posterior{name}"] = probabilities(chances[:, shown].max(axis=0), first, palette)
    return pictures, {
        "measurement_text": f"Samples {first} to {last} of signal {tile.micrograph + 1}. Shaded: the {len(starts)} copies in "
        f"{run.folder.picks.name} that touch it.",
        "posterior_text": f"Probability that a copy begins at each sample; the highest is {np.max(chances[:, shown]):.2f}.",
    }


def _shown(likelihood: Likelihood) -> TileGeometry:
    """The tile geometry whose first tile is shown; a smaller tile for patches, each of which has weights at 4 L^2 shifts and K rotations."""
    geometry = likelihood.geometry
    if likelihood.localises:
        return geometry
    across = math.isqrt(_WEIGHTS // (4 * math.prod(likelihood.views.box_shape) * likelihood.templates))
    rows, columns = (
        min(side, max(1, across) * unit) for side, unit in zip(geometry.sides, geometry.units, strict=True)
    )
    return replace(geometry, side=plain(rows, columns))


def _centres(folder: RunFolder, tile: Tile, box: tuple[int, int]) -> np.ndarray:
    """(n, 2) centres of the detected copies that reach into a tile, in its pixels."""
    first = [s.start for s in tile.region.read]
    corners = np.array(folder.read_picks(tile.micrograph), dtype=np.float64).reshape(-1, 2) - first
    inside = np.all((corners > -np.array(box)) & (corners < tile.values.shape), axis=1)
    return np.asarray(corners[inside] + (np.array(box) - 1) / 2)
