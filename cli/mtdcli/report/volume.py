"""The report of a volume: sections, projections, shell correlation, convergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdcore.drawing.charts import DARK, LIGHT, Palette, convergence
from mtdcore.drawing.images import picture, section_pictures
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.projections import Projections
from mtdcore.results.nulls import Null
from mtdcore.results.verdict import Verdict

from .figures_trust import ring_correlations
from .page import write_page
from .trust import NULLS, answers

if TYPE_CHECKING:
    from mtdcore.em.volumes.recovery import VolumeRecovery
    from mtdcore.results.metrics import RingCorrelation
    from mtdcore.results.volumes.halves import VolumeHalves

    from ..volumes.judging import Judged, Spread

#: Projections of the turning view.
_TURNS = 6

#: Brightness of the rest of the volume relative to a part that was left out, and white level relative to the brightest pixel.
_DIM, _BRIGHT = 0.3, 0.7


def write_volume_report(page: Path, found: VolumeRecovery, record: Mapping[str, Any], judged: Judged) -> None:
    """Write ``report.html`` of a run of ``mtd recover --volume``.

    Args:
        page: the file, replaced.
        found: the recovery.
        record: content of ``run.json``.
        judged: the verdict and other findings about the volume.
    """
    halves, spread, omissions = judged.halves, judged.spread, judged.omissions
    volume, whitened = found.volume, None if found.noise_model.whitening is None else found.seen
    angles = np.array([[180.0 * i / _TURNS, 90.0, 0.0] for i in range(_TURNS)])
    turning = Projections(len(volume), so3.from_euler(angles)).apply(volume)
    shown = (0.0, float(turning.max()))
    pictures: dict[str, Any] = {
        "sections": section_pictures(volume),
        "whitened": None if whitened is None else section_pictures(whitened),
        "std": [] if spread is None else section_pictures(spread.std),
        "turning": [picture(image, shown) for image in turning],
        "omitted": [] if halves is None else [_within(one.part, halves.runs[0].seen) for one in omissions],
        "curves": convergence({name: [getattr(one, name) for one in found.history] for name in _COLUMNS}),
    }
    if halves is not None:
        pictures["fsc"] = {
            name: _shells(halves, judged.chance, palette) for name, palette in _PALETTES.items()
        }
    write_page(
        page,
        "volume.html.j2",
        title="A volume straight from its micrographs",
        record=record,
        verdict=None if judged.verdict is None else _judged(judged.verdict),
        chance=bool(judged.chance),
        result=record["result"],
        omissions=[(str(one), one.in_data, one.determined) for one in omissions],
        box=len(volume),
        draws=None if spread is None else _spread(spread),
        pictures=pictures,
    )


#: Columns of the history that are drawn.
_COLUMNS = ("iteration", "evidence", "expected_count", "noise_std", "band")

_PALETTES: dict[str, Palette] = {"light": LIGHT, "dark": DARK}


def _judged(verdict: Verdict) -> dict[str, Any]:
    """The verdict as the page shows it."""
    said = verdict.sentence
    return {
        "kind": "yes" if verdict.supported else "no",
        "title": said[0].upper() + said[1:],
        "answers": answers(verdict),
    }


def _spread(spread: Spread) -> dict[str, float]:
    """Summary of the posterior standard deviation of the voxels."""
    most, share = float(spread.std.max()), float(spread.std.max()) / max(float(spread.mean.max()), 1e-300)
    return {**asdict(spread.draws), "most": most, "share": share}


def _within(part: np.ndarray, volume: np.ndarray) -> bytes:
    """A part of a volume, bright in the dimmed rest, projected along the shortest side of the part."""
    along = int(np.argmin([np.ptp(np.argwhere(part > 0.5 * part.max())[:, axis]) for axis in range(3)]))
    whole = volume.sum(axis=along)
    return picture(_DIM * whole + (1.0 - _DIM) * part.sum(axis=along), (0.0, _BRIGHT * float(whole.max())))


def _shells(halves: VolumeHalves, chance: Mapping[Null, RingCorrelation], palette: Palette) -> bytes:
    """Shell correlation of the halves, with that of null halves."""
    curves = [("whole", halves.whole), ("without spherical means", halves.aspherical)]
    null = [(f"halves of {NULLS[kind]}", curve) for kind, curve in chance.items()]
    return ring_correlations(curves, null, palette)
