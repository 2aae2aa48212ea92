"""The report of trained weights: loss, denoising error per level, images drawn from the prior."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdcore.drawing.charts import DARK, LIGHT, Palette, style, to_png
from mtdcore.drawing.images import picture, value_range

if TYPE_CHECKING:
    from mtdbridge import TorchPrior

_SAMPLES = (3, 12)  # rows and columns
_LANGEVIN_STEP = 0.02


def write_prior_report(path: Path, prior: TorchPrior, command: str) -> None:
    """Write the report of a training.

    Args:
        path: HTML file to make or replace.
        prior: trained prior with its card.
        command: the command line that trained it.
    """
    from .page import write_page

    card = prior.card
    assert card is not None
    training, data = card.training, card.data
    rows, columns = _SAMPLES
    samples = _draw(prior, rows * columns)
    validation = card.metrics["validation"]
    write_page(
        path,
        "prior.html.j2",
        title=f"A prior learned from {data['source']}",
        subtitle=f"{card.network}, boxes of {card.box_size} pixels, {data['count']} training images, "
        f"{data['validation_count']} held out",
        facts=[
            ("steps", f"{training['steps_done']}"),
            ("images seen", f"{training['images_seen']}"),
            ("minutes", f"{training['seconds'] / 60:.1f}"),
            ("weights", f"{sum(p.numel() for p in prior.network.parameters())}"),
        ],
        samples=picture(_grid(samples, rows, columns), limits=value_range(samples, share=0.01)),
        curves=_curves(card.metrics["history"], LIGHT),
        curves_dark=_curves(card.metrics["history"], DARK),
        validation=[(name, f"{value:.4f}") for name, value in validation.items()],
        by_level="loss" not in validation,
        parameters=[(name, value) for name, value in training.items() if not isinstance(value, (dict, list))]
        + [("data SHA-256", data["sha256"])],
        command=command,
    )


def _draw(prior: TorchPrior, count: int) -> np.ndarray:
    """(count, L, L) images from the prior, by reverse diffusion if it has noise levels, else by Langevin steps."""
    from mtdcore.model.sampling import sample_prior

    highest = prior.levels[1]
    if highest > 0:
        return sample_prior(prior, count, prior.box_size, level=highest, steps=60)
    noise = np.random.default_rng(0)
    images = noise.random((count, prior.box_size, prior.box_size))
    for _ in range(1000):
        kick = noise.standard_normal(images.shape)
        images = images + _LANGEVIN_STEP * prior.score(images, 0.0) + math.sqrt(2 * _LANGEVIN_STEP) * kick
    return images


def _grid(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows * columns, L, L) images side by side with a pixel between them."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=0.5)
    side = framed.shape[-1]
    return framed.reshape(rows, columns, side, side).swapaxes(1, 2).reshape(rows * side, columns * side)


def _curves(history: list[dict[str, Any]], palette: Palette) -> bytes:
    """Training loss, and the validation figures, over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3), dpi=130, layout="constrained")
    loss, error = figure.subplots(1, 2)
    loss.plot([entry["step"] for entry in history], [entry["loss"] for entry in history], color=palette.line)
    loss.set_title("training loss", fontsize=10, color=palette.text, loc="left")
    checked = [entry for entry in history if "validation" in entry]
    for name in checked[-1]["validation"] if checked else ():
        steps, values = zip(*((entry["step"], entry["validation"][name]) for entry in checked), strict=True)
        error.plot(steps, values, marker="o", markersize=3, color=palette.accent)
        error.annotate(
            name,
            (steps[-1], values[-1]),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=palette.text,
        )
    error.set_title("validation, per noise level", fontsize=10, color=palette.text, loc="left")
    for axes in (loss, error):
        style(axes, palette, "step")
    return to_png(figure)
