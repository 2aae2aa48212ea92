"""Charts in one style, for light or dark pages. Matplotlib is used through its objects, without pyplot and global state."""

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

#: History columns that are drawn: title, logarithmic axis.
_QUANTITIES = {
    "objective": ("objective, nats", False),
    "evidence": ("evidence, nats", False),
    "step_norm": ("step norm", True),
    "expected_count": ("expected copies", False),
    "noise_std": ("noise standard deviation", False),
    "band": ("band, cycles per pixel", False),
}

#: Largest number of rows of a box, wider than high, that is drawn as curves, one above the other.
_CHANNELS = 24


def convergence(history: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A small chart per quantity over the iterations: its "title", and pictures for "light" and "dark" pages.

    Args:
        history: column name -> one value per iteration, with the columns of ``history.csv``.
    """
    return [
        {"title": title, "light": _chart(history, name, LIGHT), "dark": _chart(history, name, DARK)}
        for name, (title, _) in _QUANTITIES.items()
        if name in history
    ]


def _chart(history: Mapping[str, Sequence[float]], name: str, palette: Palette) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6, 2.3), dpi=160, layout="constrained")
    draw_quantity(figure.subplots(), history, name, palette)
    return to_png(figure)


def draw_quantity(axes: Axes, history: Mapping[str, Sequence[float]], name: str, palette: Palette) -> None:
    """One column of a history over the iterations.

    Args:
        axes: to draw into.
        history: as of :func:`convergence`.
        name: of the column.
        palette: colours.
    """
    title, logarithmic = _QUANTITIES[name]
    values = np.asarray(history[name], dtype=np.float64)
    iterations = np.asarray(history.get("iteration", range(1, values.size + 1)))
    axes.plot(iterations, values, color=palette.line, linewidth=1.8, marker="o" if values.size == 1 else "")
    if logarithmic and np.any(values > 0):
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10, color=palette.text, loc="left")
    style(axes, palette, "iteration")
    axes.locator_params(axis="x", integer=True)


def is_motif(box: Sequence[int]) -> bool:
    """Whether a target of this shape is a motif of a signal rather than an image."""
    return box[-2] < box[-1] and box[-2] <= _CHANNELS


def draw_motif(figure: Any, image: np.ndarray, limits: tuple[float, float], palette: Palette) -> None:
    """A motif over its samples, one curve for each channel, one above the other.

    Args:
        figure: figure, or part of one, that the curves fill.
        image: (channels, samples) real.
        limits: values of the lowest and the highest point of every axis.
        palette: colours.
    """
    room = 0.05 * (limits[1] - limits[0]) or 1.0
    for channel, axes in zip(image, stacked(figure, len(image)), strict=True):
        axes.plot(np.arange(len(channel)), channel, color=palette.line, linewidth=1.8)
        axes.set_ylim(limits[0] - room, limits[1] + room)
        style(axes, palette, "sample" if axes.get_subplotspec().is_last_row() else "")


def stacked(figure: Any, rows: int) -> Any:
    """Axes one above the other with a common horizontal axis."""
    return figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def style(axes: Axes, palette: Palette, across: str) -> None:
    """Apply the style of all charts: thin grid, no frame.

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


def to_png(figure: Figure, transparent: bool = True) -> bytes:
    """A figure as PNG bytes, without a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=transparent)
    return buffer.getvalue()
