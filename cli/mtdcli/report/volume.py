"""The report of a volume: sections, projections, shell correlation, convergence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdcore.model.volumes import so3
from mtdcore.model.volumes.projections import Projections

from .figures import DARK, LIGHT, Palette, picture, style, to_png
from .page import write_page

if TYPE_CHECKING:
    from mtdcore.em.volumes.recovery import VolumeRecovery
    from mtdcore.results.volumes.halves import VolumeHalves

#: Projections of the turning view.
_TURNS = 6


def write_volume_report(
    page: Path, found: VolumeRecovery, halves: VolumeHalves | None, record: Mapping[str, Any]
) -> None:
    """Write ``report.html`` of a run of ``mtd recover --volume``.

    Args:
        page: the file, replaced.
        found: the recovery.
        halves: volumes of two halves of the data; None: there are none.
        record: content of ``run.json``.
    """
    volume = found.volume
    middle = len(volume) // 2
    sections = [volume[middle], volume[:, middle], volume[:, :, middle]]
    limits = (0.0, float(volume.max()))
    angles = np.array([[180.0 * i / _TURNS, 90.0, 0.0] for i in range(_TURNS)])
    turning = Projections(len(volume), so3.from_euler(angles)).apply(volume)
    shown = (0.0, float(turning.max()))
    pictures: dict[str, Any] = {
        "sections": [picture(section, limits) for section in sections],
        "turning": [picture(image, shown) for image in turning],
        "history": {name: _history(found, palette) for name, palette in _PALETTES.items()},
    }
    if halves is not None:
        pictures["fsc"] = {name: _shells(halves, palette) for name, palette in _PALETTES.items()}
    write_page(
        page,
        "volume.html.j2",
        title="A volume straight from its micrographs",
        record=record,
        result=record["result"],
        box=len(volume),
        pictures=pictures,
    )


_PALETTES: dict[str, Palette] = {"light": LIGHT, "dark": DARK}


def _shells(halves: VolumeHalves, palette: Palette) -> bytes:
    """Shell correlation of the halves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.8), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot(
        halves.whole.frequency, halves.whole.correlation, color=palette.line, linewidth=1.8, label="whole"
    )
    axes.plot(
        halves.aspherical.frequency,
        halves.aspherical.correlation,
        color=palette.accent,
        linewidth=1.8,
        label="without spherical means",
    )
    axes.axhline(0.143, color=palette.grid, linewidth=1.2)
    axes.set_ylim(-0.1, 1.02)
    axes.legend(fontsize=8, labelcolor=palette.text, frameon=False)
    style(axes, palette, "frequency, cycles per pixel")
    return to_png(figure)


def _history(found: VolumeRecovery, palette: Palette) -> bytes:
    """Evidence, copies and band over the iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 2.5), dpi=130, layout="constrained")
    columns = (
        ("evidence", "evidence, nats"),
        ("expected_count", "expected copies"),
        ("band", "band, cycles per pixel"),
    )
    for axes, (name, title) in zip(figure.subplots(1, len(columns)), columns, strict=True):
        values = [getattr(record, name) for record in found.history]
        axes.plot(range(1, len(values) + 1), values, color=palette.line, linewidth=1.8)
        axes.set_title(title, fontsize=10, color=palette.text, loc="left")
        style(axes, palette, "iteration")
    return to_png(figure)
