"""Fourier ring correlation of half sets as a chart."""

from __future__ import annotations

from collections.abc import Sequence

from mtdcore.drawing.charts import Palette, style, to_png
from mtdcore.results.metrics import HALF_SETS_LIMIT, RingCorrelation


def ring_correlations(
    own: Sequence[tuple[str, RingCorrelation]],
    null: Sequence[tuple[str, RingCorrelation]],
    palette: Palette,
) -> bytes:
    """Half-set curves over the frequency, those of the data in colour, null curves grey and dashed.

    Args:
        own: label and curve of at most two of the data.
        null: the same of null measurements.
        palette: colours.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.axhline(HALF_SETS_LIMIT, color=palette.accent, linewidth=1.0, linestyle=":")
    axes.annotate(
        "1/7",
        (0.0, HALF_SETS_LIMIT),
        color=palette.accent,
        fontsize=8,
        xytext=(3, 2),
        textcoords="offset points",
    )
    axes.axhline(0.0, color=palette.grid, linewidth=0.8)
    looks = [
        *zip(own, [(palette.line, 2.0, "-"), (palette.accent, 1.6, "-")], strict=False),
        *zip(null, [(palette.text, 1.4, "--"), (palette.text, 1.4, ":")], strict=False),
    ]
    for (name, curve), (color, width, dashes) in looks:
        axes.plot(
            curve.frequency,
            curve.correlation,
            color=color,
            linewidth=width,
            linestyle=dashes,
            label=name,
        )
    axes.set(xlim=(0.0, 0.5), ylim=(-0.6, 1.05))
    figure.legend(frameon=False, fontsize=9, labelcolor=palette.text, loc="outside upper left")
    style(axes, palette, "cycles per pixel")
    return to_png(figure)
