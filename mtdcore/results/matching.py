"""Detections against true positions: one-to-one pairs, precision and recall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree

from ..errors import ParameterError
from .detections import Detections


@dataclass(frozen=True, eq=False)
class Match:
    """Detections against the true positions.

    Attributes:
        pairs: (n, 2) int64 indices (detection, copy), one to one.
        detections: number of detections.
        copies: number of true copies.
        offset: (rows, columns) that were added to the detections.
    """

    pairs: np.ndarray
    detections: int
    copies: int
    offset: tuple[float, float]

    @property
    def precision(self) -> float:
        """Share of the detections that are copies; NaN without detections."""
        return len(self.pairs) / self.detections if self.detections else math.nan

    @property
    def recall(self) -> float:
        """Share of the copies that were detected; NaN without copies."""
        return len(self.pairs) / self.copies if self.copies else math.nan


def match(
    detections: Detections, positions: ArrayLike, tolerance: float, max_offset: float | None = None
) -> Match:
    """Pair as many detections as possible with true copies, one to one, within a distance.

    Args:
        detections: what detected; in the frame of the truth, see :meth:`Detections.in_frame_of`.
        positions: (N, 3) true corners (micrograph, row, column), such as ``Simulation.positions``; they need not be
            whole pixels.
        tolerance: largest Euclidean distance of a pair in pixels.
        max_offset: remove one global offset first (targets recovered without rotations sit anywhere in their box):
            the median distance to the nearest copy, where one is within this many pixels. None: remove none.

    Raises:
        ParameterError: positions of another shape, or a negative distance.
    """
    true = np.asarray(positions, dtype=np.float64)
    if true.ndim != 2 or true.shape[1] != 3:
        raise ParameterError(f"expected (N, 3) rows (micrograph, row, column); got shape {true.shape}.")
    if not tolerance >= 0 or (max_offset is not None and not max_offset >= 0):
        raise ParameterError(f"distances should not be negative; got {tolerance} and {max_offset}.")
    found = detections.positions.astype(np.float64)
    offset = np.zeros(2)
    if max_offset is not None:
        pairs = _pairs(found, true, max_offset, nearest=True)
        if len(pairs):
            offset = np.median(true[pairs[:, 1], 1:] - found[pairs[:, 0], 1:], axis=0)
            found[:, 1:] += offset
    pairs = _one_to_one(_pairs(found, true, tolerance), (len(found), len(true)))
    return Match(pairs, len(found), len(true), (float(offset[0]), float(offset[1])))


def centred_on(detections: Detections, positions: ArrayLike, max_offset: float) -> Detections:
    """The same copies, moved to the centres of marked objects.

    If the target is off the middle of its box by s, the box of every copy is off by s *in the frame of the copy*. The correction is
    the median offset to the nearest positions, each rotated back with its copy.

    Args:
        detections: the copies.
        positions: (N, 3) corners of boxes around the objects, see :func:`match`.
        max_offset: positions further away, in pixels, are ignored.
    """
    found, true = detections.positions.astype(np.float64), np.asarray(positions, np.float64)
    pairs = _pairs(found, true, max_offset, nearest=True)
    if not len(pairs):
        return detections
    down, right = (true[pairs[:, 1], 1:] - found[pairs[:, 0], 1:]).T
    mine = detections.where(pairs[:, 0])
    angle = np.radians(mine.angle)
    down, right = down * np.cos(angle) + right * np.sin(angle), right * np.cos(angle) - down * np.sin(angle)
    right = right if mine.mirrored is None else np.where(mine.mirrored, -right, right)
    return detections.moved(float(np.median(down)), float(np.median(right)))


def _pairs(found: np.ndarray, true: np.ndarray, distance: float, nearest: bool = False) -> np.ndarray:
    """(n, 2) indices of pairs in one micrograph within a distance; only the nearest of each detection, or all."""
    apart = np.array([1.0 + 2.0 * distance, 1.0, 1.0])  # no pair reaches across micrographs
    empty = np.empty((0, 2), dtype=np.int64)
    if not len(found) or not len(true):
        return empty
    tree = KDTree(true * apart)
    if nearest:
        gaps, index = tree.query(found * apart, distance_upper_bound=np.nextafter(distance, math.inf))
        hits = np.flatnonzero(np.isfinite(gaps))
        return np.stack([hits, index[hits]], axis=1)
    close = tree.query_ball_point(found * apart, distance)
    return np.array([(i, j) for i, js in enumerate(close) for j in sorted(js)], dtype=np.int64).reshape(-1, 2)


def _one_to_one(pairs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A largest subset of the pairs in which no index comes twice (Hopcroft and Karp 1973)."""
    graph = csr_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=shape)
    partner = maximum_bipartite_matching(graph, perm_type="column")
    matched = np.flatnonzero(partner >= 0)
    return np.stack([matched, partner[matched]], axis=1).astype(np.int64)
