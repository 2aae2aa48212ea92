"""Pictures of a report as PNG bytes. Matplotlib through its objects: no pyplot, no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    """Colours of a chart on one of the two page backgrounds; the background itself stays transparent."""

    text: str
    grid: str
    line: str
    accent: str


LIGHT = Palette(text="#3c4148", grid="#d9dce1", line="#2563a8", accent="#c2571a")
DARK = Palette(text="#c3c8d0", grid="#3a3f47", line="#7db4f0", accent="#f0a36b")

#: History columns that are drawn: key, title, logarithmic axis.
_CURVES = (
    ("objective", "objective, nats", False),
    ("evidence", "evidence, nats", False),
    ("step_norm", "step norm", True),
    ("expected_count", "expected copies", False),
    ("noise_std", "noise standard deviation", False),
    ("band", "band, cycles per pixel", False),
)


def picture(image: np.ndarray, limits: tuple[float, float] | None = None) -> bytes:
    """Grey picture, one PNG pixel per pixel (the page enlarges it without smoothing).

    Args:
        image: (H, W) real; what is not finite is drawn black.
        limits: values of black and white; None: the range of the image.
    """
    from PIL import Image

    finite = np.isfinite(image)
    low, high = limits or value_range(image)
    scaled = (np.where(finite, image, low) - low) / (high - low if high > low else 1.0)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def value_range(image: np.ndarray, share: float = 0.0) -> tuple[float, float]:
    """Smallest and largest finite value, or the quantiles ``share`` and ``1 - share``."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.quantile(finite, [share, 1 - share])
    return float(low), float(high)


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


def convergence(history: Mapping[str, Sequence[float]]) -> dict[str, bytes]:
    """:func:`curves` for light and for dark pages, named as the templates name them."""
    return {"curves": curves(history, LIGHT), "curves_dark": curves(history, DARK)}


def curves(history: Mapping[str, Sequence[float]], palette: Palette) -> bytes:
    """Convergence: one small chart per quantity over the iterations.

    Args:
        history: column name -> one value per iteration, with the columns of ``history.csv``.
        palette: colours.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 2.5), dpi=130, layout="constrained")
    drawn = [one for one in _CURVES if one[0] in history]
    for axes, (key, title, logarithmic) in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        values = np.asarray(history[key], dtype=np.float64)
        iterations = np.asarray(history.get("iteration", range(1, values.size + 1)))
        axes.plot(iterations, values, color=palette.line, linewidth=1.8)
        if logarithmic and np.any(values > 0):
            axes.set_yscale("log")
        axes.set_title(title, fontsize=10, color=palette.text, loc="left")
        style(axes, palette, "iteration")
        axes.locator_params(axis="x", integer=True)
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


def style(axes: Axes, palette: Palette, across: str) -> None:
    """The look of every chart: thin grid, no frame.

    Args:
        axes: with its lines drawn.
        palette: colours.
        across: label of the horizontal axis.
    """
    axes.set_xlabel(across, fontsize=9, color=palette.text)
    axes.tick_params(colors=palette.text, labelsize=8, length=3)
    axes.grid(color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 5))
        axes.yaxis.get_offset_text().set(color=palette.text, fontsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.grid)


def _image_axes(shape: Sequence[int]) -> tuple[Figure, Any]:
    """A figure that an image of this shape fills to the edge, about 640 pixels on its longer side."""
    from matplotlib.figure import Figure

    scale = max(1, round(640 / max(shape))) / 100
    figure = Figure(figsize=(shape[1] * scale, shape[0] * scale), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def to_png(figure: Figure, transparent: bool = True) -> bytes:
    """A figure as PNG bytes, without a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=transparent)
    return buffer.getvalue()
