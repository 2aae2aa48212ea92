"""The frame of a volume: its centre in the box, and the axes of its symmetry on those of the group."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from ...model.volumes import so3
from ...model.volumes.grids import moved

#: Voxels above this share of the largest enter the centre of mass; shifts of fewer voxels than the second number are not made.
_COUNTED, _WORTH = 0.2, 0.25

#: Number of rotations tried, of the best that are refined, and of evaluations in each refinement.
_TRIED, _BEST, _EVALUATIONS = 600, 3, 120


def off_centre(volume: np.ndarray, support: np.ndarray) -> np.ndarray | None:
    """(x, y, z) shift in voxels that brings the centre of mass of the dense part to the middle; None: it is too small to matter."""
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
        (3, 3) rotation of the volume, and the mean correlation of the rotated volume with its symmetry mates: near 1 if it has the symmetry.
    """
    elements = so3.group(symmetry)[1:]
    if not len(elements):
        return np.eye(3), 1.0
    if len(elements) > 11:  # a subset of the elements is enough
        elements = elements[:: len(elements) // 8]
    norm = float(np.vdot(volume, volume)) + 1e-300

    def score(rotation: np.ndarray) -> float:
        # The correlation of g R V with R V is that of R^T g R V with V.
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
