"""Entries of the moments with equal expectation (docs/model.md 16).

The pixels of a triple have no order and its position does not matter, so each triple has up to six entries. If copies are rotated by right
angles, rotated triples have equal expectations. An *orbit* is the set of all these entries: one number to fit, the mean over its distinct triples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Orbits:
    """Entries of an array of lags in groups.

    Attributes:
        index: orbit of each entry, of the shape of the array; 0 for entries without an orbit.
        share: weight of each entry in the mean of its orbit; 0 for entries without an orbit.
        distinct: (O,) number of distinct triples, or pairs, in each orbit.
        symmetry: (O,) number of permutations of the pixels of a triple that leave it unchanged: the factor by which the variance of its mean
            exceeds that of other means.
        first: (O,) flat index of the first entry of each orbit.
    """

    index: np.ndarray
    share: np.ndarray
    distinct: np.ndarray
    symmetry: np.ndarray
    first: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(O,) means of an array of lags; values that belong to no orbit must be finite."""
        return np.bincount(self.index.ravel(), (values * self.share).ravel(), len(self.symmetry))

    def spread(self, weights: np.ndarray) -> np.ndarray:
        """Adjoint of :meth:`mean`: an array of lags from (O,) weights."""
        return np.asarray(weights[self.index] * self.share)


def pair_orbits(box_shape: tuple[int, int], turns: int) -> Orbits:
    """Orbits of the lags of a box, (2 h - 1, 2 w - 1).

    Args:
        box_shape: (h, w).
        turns: 1, 2 or 4: number of equally likely rotations of a copy, by multiples of 360 degrees over this number.
    """
    lags = _lags(box_shape)
    points = np.stack([np.zeros_like(lags), lags])
    return _grouped(points, np.ones(lags.shape[:-1], bool), turns)


def triple_orbits(box_shape: tuple[int, int], edges: np.ndarray, turns: int) -> Orbits:
    """Orbits of triples, (E, 2 h - 1, 2 w - 1); triples with two pixels farther apart than a box have none. Arguments as in :func:`pair_orbits`."""
    lags = _lags(box_shape)
    third = np.broadcast_to(lags, (len(edges), *lags.shape))
    second = np.broadcast_to(edges[:, None, None, :], third.shape)
    within = (np.abs(third - second) < np.array(box_shape)).all(axis=-1)
    return _grouped(np.stack([np.zeros_like(third), second, third]), within, turns)


def _lags(box_shape: tuple[int, int]) -> np.ndarray:
    """(2 h - 1, 2 w - 1, 2): the lags of a box."""
    return np.stack(np.meshgrid(*(np.arange(1 - n, n) for n in box_shape), indexing="ij"), axis=-1)


def _grouped(points: np.ndarray, within: np.ndarray, turns: int) -> Orbits:
    """Orbits of the entries that are ``within``; entry i consists of the P points ``points[:, i]``, (P, *entries, 2)."""
    wide = (
        4 * int(np.abs(points).max()) + 3
    )  # above any difference along a row, so that one number encodes both axes
    keys, symmetry = [], None
    for turn in range(0, 4, 4 // turns):
        turned = points[:, within]
        for _ in range(turn):
            turned = np.stack([-turned[..., 1], turned[..., 0]], axis=-1)
        codes = np.sort(turned[..., 0] * wide + turned[..., 1], axis=0)
        steps = np.diff(codes, axis=0)
        key = steps[0]
        for step in steps[1:]:
            key = key * wide**2 + step
        keys.append(key)
        if symmetry is None:
            equal = (steps == 0).sum(axis=0)
            symmetry = np.array([1.0, 2.0, 6.0])[equal]
    _, one, copies = np.unique(keys[0], return_inverse=True, return_counts=True)
    weight = 1.0 / copies[one]  # of an entry: the entries of a triple count as one
    _, first, orbit = np.unique(np.min(keys, axis=0), return_index=True, return_inverse=True)
    distinct = np.bincount(orbit, weight)
    index, share = np.zeros(within.shape, np.int64), np.zeros(within.shape)
    index[within], share[within] = orbit, weight / distinct[orbit]
    assert symmetry is not None
    return Orbits(index, share, np.rint(distinct), symmetry[first], np.flatnonzero(within)[first])
