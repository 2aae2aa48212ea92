"""A recovery at a glance: the result beside the curves of its history."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .charts import LIGHT, draw_motif, draw_quantity, is_motif, to_png
from .images import captioned, sections, value_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    AnyFigure: TypeAlias = Figure | SubFigure

#: Side of a picture in inches, largest number of pictures in a row, and size of a chart in inches.
_PICTURE, _ACROSS, _CHART = 2.2, 3, (2.9, 1.9)


class Plotted(ABC):
    """Base of objects that a notebook displays as a picture with one line of text below."""

    @abstractmethod
    def plot(self, figure: AnyFigure | None = None) -> AnyFigure:
        """Draw the object, into a figure if one is given."""

    def _repr_html_(self) -> str:
        """The picture on a white background, in light and in dark notebooks."""
        figure: Any = self.plot()
        alt = "; ".join(axes.get_title(loc="left") for axes in figure.axes if axes.axison or axes.has_data())
        return captioned(to_png(figure, transparent=False), alt, repr(self))


def target_overview(
    targets: np.ndarray, history: Mapping[str, Sequence[float]], figure: AnyFigure | None = None
) -> AnyFigure:
    """Targets as grey pictures, motifs of signals as curves, beside the curves of a history.

    Args:
        targets: (C, h, w) real; each has its own grey range.
        history: column name -> one value per iteration; every column is drawn over "iteration".
        figure: to draw into; None: a new figure, without a window.
    """
    titles = ["estimate"] if len(targets) == 1 else [f"class {i + 1}" for i in range(len(targets))]
    if is_motif(targets.shape):
        wide, high = 2 * _PICTURE, _CHART[1] * math.ceil(targets.shape[0] * targets.shape[1] / 2)
        figure, left = _parts((wide, high), history, figure)
        for part, title, motif in zip(
            np.atleast_1d(left.subfigures(len(targets))), titles, targets, strict=True
        ):
            draw_motif(part, motif, value_range(motif), LIGHT)
            part.axes[0].set_title(title, fontsize=10, color=LIGHT.text, loc="left")
        return figure
    cells = [(title, image, value_range(image)) for title, image in zip(titles, targets, strict=True)]
    return _pictures(cells, history, figure)


def volume_overview(
    volume: np.ndarray, history: Mapping[str, Sequence[float]], figure: AnyFigure | None = None
) -> AnyFigure:
    """Sections through the middle of a volume above its projections, beside the curves of a history.

    Args:
        volume: (L, L, L), axes (z, y, x).
        history: as of :func:`target_overview`.
        figure: as of :func:`target_overview`.
    """
    cells = []
    for words, images in (
        ("section across", sections(volume)),
        ("projection along", [volume.sum(axis) for axis in range(3)]),
    ):
        limits = (0.0, max(float(image.max()) for image in images))
        cells += [(f"{words} {axis}", image, limits) for axis, image in zip("zyx", images, strict=True)]
    return _pictures(cells, history, figure)


def _pictures(
    cells: Sequence[tuple[str, np.ndarray, tuple[float, float]]],
    history: Mapping[str, Sequence[float]],
    figure: AnyFigure | None,
) -> AnyFigure:
    """Pictures in rows, each with its title and grey range, beside the curves."""
    across = min(len(cells), _ACROSS)
    down = math.ceil(len(cells) / across)
    figure, left = _parts((across * _PICTURE, down * (_PICTURE + 0.2)), history, figure)
    grid = left.subplots(down, across, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (title, image, (low, high)) in zip(grid, cells, strict=False):
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(title, fontsize=10, color=LIGHT.text, loc="left")
    return figure


def _parts(
    size: tuple[float, float], history: Mapping[str, Sequence[float]], figure: AnyFigure | None
) -> tuple[AnyFigure, Any]:
    """A figure with its curves drawn, and the part of the figure, ``size`` in inches, for the target."""
    from matplotlib.figure import Figure

    names = [name for name in history if name != "iteration"] if any(map(len, history.values())) else []
    wide, high = size
    stacked = high > 1.8 * _CHART[1]
    across = _CHART[0] * (bool(names) if stacked else len(names))
    figure = figure or Figure(figsize=(wide + across, high), dpi=100, layout="constrained")
    if not names:
        return figure, figure.subfigures()
    halves: Any = figure.subfigures(1, 2, width_ratios=(wide, across))
    left, right = halves
    shape = (len(names), 1) if stacked else (1, len(names))
    for axes, name in zip(right.subplots(*shape, squeeze=False).ravel(), names, strict=True):
        draw_quantity(axes, history, name, LIGHT)
    return figure, left
