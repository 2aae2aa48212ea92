"""Pictures of signals: a motif and the copies of it as curves instead of grey pixels."""

from __future__ import annotations

import numpy as np

from mtdcore.drawing.charts import DARK, LIGHT, Palette, draw_motif, is_motif, stacked, style, to_png
from mtdcore.drawing.images import picture


def shown_as(image: np.ndarray, limits: tuple[float, float]) -> dict[str, bytes | None]:
    """A target for the page: "data", and "dark", another picture for dark pages, or None.

    Args:
        image: (h, w) real.
        limits: the range of values that is drawn.
    """
    if not is_motif(image.shape):
        return {"data": picture(image, limits), "dark": None}
    return {"data": motif(image, limits, LIGHT), "dark": motif(image, limits, DARK)}


def motif(image: np.ndarray, limits: tuple[float, float], palette: Palette) -> bytes:
    """A motif over its samples, one curve for each channel.

    Args:
        image: (channels, samples) real.
        limits: values of the lowest and the highest point of every axis.
        palette: colours.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 1.4 + 1.1 * len(image)), dpi=130, layout="constrained")
    draw_motif(figure, image, limits, palette)
    return to_png(figure)


def with_spans(pixels: np.ndarray, first: int, starts: np.ndarray, width: int, palette: Palette) -> bytes:
    """A part of a signal with the copies found in it shaded.

    Args:
        pixels: (channels, samples).
        first: sample of the signal that the part begins with.
        starts: (n,) first sample of each copy, counted from the beginning of the part.
        width: samples of a copy.
        palette: colours.
    """
    from matplotlib.figure import Figure

    rows = len(pixels)
    figure = Figure(figsize=(10.4, 1.2 + 1.3 * rows), dpi=130, layout="constrained")
    for channel, axes in zip(pixels, stacked(figure, rows), strict=True):
        axes.plot(first + np.arange(len(channel)), channel, color=palette.line, linewidth=0.6)
        for start in starts:
            axes.axvspan(first + start, first + start + width, color=palette.accent, alpha=0.25, linewidth=0)
        axes.set_xlim(first, first + len(channel))  # the same range as the plot of :func:`chances` below it
        style(axes, palette, "sample" if axes.get_subplotspec().is_last_row() else "")
    return to_png(figure)


def chances(values: np.ndarray, first: int, palette: Palette) -> bytes:
    """Probability that a copy begins at each sample of a part of a signal, (samples,) in [0, 1]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 1.8), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.vlines(first + np.arange(len(values)), 0.0, values, color=palette.line, linewidth=1.0)
    axes.set_ylim(0.0, 1.05)
    axes.set_xlim(first, first + len(values))
    style(axes, palette, "sample")
    return to_png(figure)
