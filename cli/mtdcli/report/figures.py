"""Pictures of a report as PNG bytes, beside those of :mod:`mtdcore.drawing`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdcore.drawing.charts import LIGHT, to_png
from mtdcore.drawing.images import value_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def with_squares(
    image: np.ndarray, centres: np.ndarray, sides: tuple[int, int], limits: tuple[float, float]
) -> bytes:
    """A measurement with rectangles around the copies found.

    Args:
        image: (H, W).
        centres: (n, 2) row and column of the middle of each copy, in pixels of ``image``.
        sides: (height, width) of the rectangles, pixels.
        limits: values of black and white.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    figure, axes = _image_axes(image.shape)
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    high, wide = sides
    outlines = [Rectangle((col - wide / 2, row - high / 2), wide, high) for row, col in centres]
    axes.add_collection(
        PatchCollection(outlines, facecolor="none", edgecolor="#ffb454", linewidth=1.4), autolim=False
    )
    return to_png(figure)


def posterior_map(values: np.ndarray) -> bytes:
    """Posterior probability per corner, (H, W) in [0, 1], from black through purple to white."""
    figure, axes = _image_axes(values.shape)
    # The square root keeps faint alternatives visible beside certain copies.
    axes.imshow(np.sqrt(values), cmap="magma", vmin=0.0, vmax=1.0, interpolation="nearest")
    return to_png(figure)


@dataclass(frozen=True)
class Row:
    """One row of :func:`comparison`.

    Attributes:
        label: left of the row.
        measurement: (H, W).
        truth: (L, L).
        estimates: name of a method -> (L, L).
        captions: name of a method -> text below its image.
    """

    label: str
    measurement: np.ndarray
    truth: np.ndarray
    estimates: Mapping[str, np.ndarray]
    captions: Mapping[str, str]


def comparison(rows: Sequence[Row]) -> bytes:
    """Measurement, truth and the estimates of several methods side by side, on white."""
    from matplotlib.figure import Figure

    names = ["measurement", "hidden in it", *rows[0].estimates]
    figure = Figure(figsize=(1.75 * len(names) + 0.4, 1.95 * len(rows) + 0.2), dpi=100, facecolor="white")
    grid = figure.subplots(len(rows), len(names), squeeze=False)
    figure.subplots_adjust(left=0.035, right=0.995, top=0.94, bottom=0.04, wspace=0.06, hspace=0.22)
    for row, line in zip(rows, grid, strict=True):
        limits = 0.0, max(1.0, *value_range(row.truth))
        images = [row.measurement, row.truth, *row.estimates.values()]
        for name, image, axes in zip(names, images, line, strict=True):
            shown = value_range(image, 0.002) if name == names[0] else limits
            axes.imshow(image, cmap="gray", vmin=shown[0], vmax=shown[1], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(row.captions.get(name, ""), fontsize=9, color=LIGHT.text, labelpad=3)
            for spine in axes.spines.values():
                spine.set_visible(False)
        line[0].set_ylabel(row.label, fontsize=10, color=LIGHT.text)
    for name, axes in zip(names, grid[0], strict=True):
        axes.set_title(name, fontsize=10, color=LIGHT.text)
    return _grey(to_png(figure, transparent=False))


def _grey(png: bytes) -> bytes:
    """The same picture with one byte per pixel; the noise in it hardly compresses."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("L").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _image_axes(shape: Sequence[int]) -> tuple[Figure, Any]:
    """A figure that an image of this shape fills to the edge, about 640 pixels on its longer side."""
    from matplotlib.figure import Figure

    scale = max(1, round(640 / max(shape))) / 100
    figure = Figure(figsize=(shape[1] * scale, shape[0] * scale), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes
