"""The frame of a volume: its centre in the box, and the axes of its symmetry on those of the group."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from ...model.volumes import so3
from ...model.volumes.grids import moved

#: The centre counts voxels above this share of the largest; shifts below so many voxels are not worth the change.
_COUNTED, _WORTH = 0.2, 0.25

#: Rotations that are tried, and evaluations of the refinement of each of the best three.
_TRIED, _BEST, _EVALUATIONS = 600, 3, 120


def off_centre(volume: np.ndarray, support: np.ndarray) -> np.ndarray | None:
    """(x, y, z) shift in voxels that brings the centre of mass of the dense part to the middle; None: not worth it."""
    dense = np.maximum(gaussian_filter(volume, 1.0), 0.0) * support
    dense = np.where(dense > _COUNTED * dense.max(), dense, 0.0)
    total = dense.sum()
    if not total > 0.0:
        return None
    at = np.arange(len(volume)) - len(volume) // 2
    centre = np.array([(dense.sum(axis=axes) * at).sum() for axes in ((0, 1), (0, 2), (1, 2))]) / total
    return -centre if np.abs(centre).max() > _WORTH else None


def find_axes(volume: np.ndarray, symmetry: str) -> tuple[np.ndarray, float]:
    """The rotation after which a volume fits a point group best.

    Args:
        volume: (L, L, L), centred.
        symmetry: see :func:`mtdcore.model.volumes.so3.group`.

    Returns:
        (3, 3) rotation of the volume, and the mean correlation with its partners after it: near 1 where the symmetry is there.
    """
    elements = so3.group(symmetry)[1:]
    if not len(elements):
        return np.eye(3), 1.0
    if len(elements) > 11:  # a few generators' worth tells as much
        elements = elements[:: len(elements) // 8]
    norm = float(np.vdot(volume, volume)) + 1e-300

    def score(rotation: np.ndarray) -> float:
        # V turned by R, then by g, against V turned by R: the same as V turned by R^T g R against V.
        return float(
            np.mean([np.vdot(moved(volume, rotation.T @ g @ rotation, order=1), volume) for g in elements])
            / norm
        )

    tried = so3.spiral(_TRIED)
    first = np.array([score(rotation) for rotation in tried])
    best, most = np.eye(3), -np.inf
    for index in np.argsort(-first)[:_BEST]:
        start = tried[index]
        found = minimize(
            lambda step, start=start: -score(Rotation.from_rotvec(step).as_matrix() @ start),
            np.zeros(3),
            method="Nelder-Mead",
            options={"maxfev": _EVALUATIONS, "initial_simplex": np.vstack([np.zeros(3), 0.2 * np.eye(3)])},
        )
        if -found.fun > most:
            most, best = -float(found.fun), Rotation.from_rotvec(found.x).as_matrix() @ start
    return best, most
