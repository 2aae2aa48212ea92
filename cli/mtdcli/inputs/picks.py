"""The copies of a run against picks from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdcore._base.typing import pair

if TYPE_CHECKING:
    from mtdcore.data.micrographs.listing import OnBad
    from mtdcore.data.micrographs.picks import Picks
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.results.detections import Detections

#: Largest distance between a copy and its pick, and largest distance of the object from the middle of its box, in box sides.
TOLERANCE, LARGEST_OFFSET = 1 / 6, 1 / 4


def read(path: Path, table: MicrographTable, shape: tuple[int, int], skip_bad: bool) -> Picks:
    """The picks of a STAR file; with ``skip_bad`` unusable rows are left out and logged.

    Raises:
        InputError, StorageError: see :func:`mtdcore.data.micrographs.picks.read_picks`.
    """
    from mtdcore.data.micrographs.picks import read_picks

    from .opening import log_skipped

    on_bad: OnBad | None = log_skipped if skip_bad else None
    return read_picks(path, table, shape, on_bad)


def agreement(
    found: Detections, picks: Picks, shape: tuple[int, int], tolerance: float | None = None
) -> dict[str, Any]:
    """Precision and recall of copies, on the micrographs that hold picks.

    An offset of the object from the middle of its box is removed first, see :func:`mtdcore.results.matching.centred_on`.

    Args:
        found: copies of a run.
        picks: the reference.
        shape: (H, W) of the measurement.
        tolerance: largest distance of a pair, pixels of the measurement; None: a sixth of the box.
    """
    from mtdcore.results.matching import centred_on, match

    box = max(pair(found.box_size))
    corners = picks.corners(found.box_size)
    tolerance = box * TOLERANCE if tolerance is None else tolerance
    seen = found.where(np.isin(found.micrograph, picks.micrographs))
    matched = match(centred_on(seen, corners, box * LARGEST_OFFSET), corners, tolerance)
    inside = (corners[:, 1:] >= 0) & (corners[:, 1:] <= np.array(shape) - pair(found.box_size))
    whole = np.asarray(inside.all(axis=1))
    return {
        "count": matched.detections,
        "copies": matched.copies,
        "micrographs": len(picks.micrographs),
        "precision": matched.precision,
        "recall": matched.recall,
        "copies_with_whole_box": int(whole.sum()),
        "recall_with_whole_box": float(whole[matched.pairs[:, 1]].sum() / whole.sum())
        if whole.any()
        else None,
        "tolerance": tolerance,
    }
