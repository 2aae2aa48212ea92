"""Figures of ``mtd reproduce`` as PNG bytes, after Figures 1, 3, 4 and 5 of arXiv:2312.08500."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdcore.drawing.charts import DARK, LIGHT, Palette, style, to_png
from mtdcore.drawing.images import value_range
from mtdcore.results.metrics import align

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .runner import Outcome

_MARKS = "osD^vP*X"


def measurements(target: np.ndarray, measured: Mapping[float, np.ndarray]) -> bytes:
    """Figure 1: a target, and measurements that hold it at several signal-to-noise ratios.

    Args:
        target: (L, L).
        measured: SNR -> (H, W).
    """
    from matplotlib.figure import Figure

    shown = [("target", target), *((f"SNR {snr:g}", pixels) for snr, pixels in measured.items())]
    figure = Figure(figsize=(2.9 * len(shown), 3.1), dpi=110, facecolor="white", layout="constrained")
    for axes, (title, image) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _image(axes, image, value_range(image, 0.002))
        axes.set_title(title, fontsize=11, color=LIGHT.text)
    return to_png(figure, transparent=False)


def recovered(targets: np.ndarray, rows: Mapping[str, Sequence[Outcome]], max_shift: int) -> bytes:
    """Figures 3 and 4: the targets, and below them the estimates of each method with their errors.

    Estimates are turned by the right angle that fits best; a shift is left as it is.

    Args:
        targets: (T, L, L).
        rows: label -> outcomes of one method at one SNR, at most one per target.
        max_shift: pixels of shift allowed when the right angle is chosen.
    """
    from matplotlib.figure import Figure

    count = len(targets)
    figure = Figure(
        figsize=(1.05 * count + 1.6, 1.28 * (len(rows) + 1)), dpi=110, facecolor="white", layout="constrained"
    )
    grid = figure.subplots(len(rows) + 1, count, squeeze=False)
    limits = value_range(targets)
    for axes, target in zip(grid[0], targets, strict=True):
        _image(axes, target, limits)
    _label(grid[0, 0], "truth")
    for line, (label, outcomes) in zip(grid[1:], rows.items(), strict=True):
        for axes in line:
            _image(axes, np.full(targets.shape[1:], np.nan), limits)
        _label(line[0], label)
        for outcome in outcomes:
            axes = line[outcome.target]
            if outcome.image is None:
                axes.set_xlabel("failed", fontsize=7, color=LIGHT.accent)
                continue
            best = align(outcome.image, targets[outcome.target], 4, max_shift)
            _image(axes, np.rot90(outcome.image, best.rotation), limits)
            axes.set_xlabel(
                f"{outcome.error:.2f} / {outcome.gauge_free_error:.2f}",
                fontsize=7,
                color=LIGHT.text,
                labelpad=1,
            )
    return to_png(figure, transparent=False)


def errors(table: Sequence[Mapping[str, Any]], dark: bool = False) -> bytes:
    """Figure 5: mean errors with their standard errors against the signal-to-noise ratio.

    Args:
        table: cells of the results, as in ``run.json``.
        dark: for a dark page, on a transparent ground; otherwise on white.
    """
    from matplotlib.figure import Figure

    palette = DARK if dark else LIGHT
    figure = Figure(figsize=(10.4, 3.6), dpi=130, layout="constrained", facecolor="white")
    panels = (("error", "relative error E"), ("gauge_free_error", "error E$_s$, shifts forgiven"))
    pair = figure.subplots(1, 2)
    for axes, (key, title) in zip(pair, panels, strict=True):
        _curves(axes, table, key, palette)
        axes.set_title(title, fontsize=10, color=palette.text, loc="left")
    handles, labels = pair[0].get_legend_handles_labels()
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    legend = pair[1].legend(handles, labels, fontsize=8, frameon=False, **place)
    for text in legend.get_texts():
        text.set_color(palette.text)
    return to_png(figure, transparent=dark)


def _curves(axes: Axes, table: Sequence[Mapping[str, Any]], key: str, palette: Palette) -> None:
    """One curve per method; hollow marks for the authors' code."""
    methods = list(dict.fromkeys(cell["method"] for cell in table))
    for place, method in enumerate(methods):
        cells = [cell for cell in table if cell["method"] == method]
        snrs = [cell["snr"] for cell in cells]
        colour = {"without prior": palette.accent, "with prior": palette.line}.get(method, palette.text)
        framing = colour == palette.text
        axes.errorbar(
            snrs,
            [cell[key] for cell in cells],
            [np.nan_to_num(cell[f"{key}_se"]) for cell in cells],
            label=method,
            color=colour,
            marker=_MARKS[place % len(_MARKS)],
            markersize=5,
            linewidth=1.0 if framing else 1.8,
            linestyle="--" if framing else "-",
            alpha=0.75 if framing else 1.0,
            capsize=2,
        )
        known = [cell[f"published_{key}"] for cell in cells]
        if any(value is not None for value in known) and not framing:
            values = [np.nan if value is None else value for value in known]
            axes.plot(
                snrs, values, "o", color=colour, markerfacecolor="none", markersize=9,
                label=f"{method}, authors' code",
            )  # fmt: skip
    axes.set_xscale("log")
    ticks = sorted({cell["snr"] for cell in table})
    axes.set_xticks(ticks, [f"{snr:g}" for snr in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    style(axes, palette, "signal-to-noise ratio")


def _image(axes: Axes, image: np.ndarray, limits: tuple[float, float]) -> None:
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=9, color=LIGHT.text, rotation=0, ha="right", va="center", labelpad=6)
