"""Random places of copies at a minimum distance, and random amplitudes, for simulators."""

from __future__ import annotations

import math

import numpy as np

from .._base.typing import Lengths, pair, plain
from ..errors import ParameterError

_BATCH = 4096  # proposed places at a time
_PROPOSALS = 1_000_000  # rejected proposals in a row before a placement is given up


def random_corners(
    rng: np.random.Generator, count: int, corners: tuple[int, int], distance: Lengths
) -> np.ndarray:
    """Random sequential adsorption: each corner is uniform among the places that the earlier corners leave free.

    Args:
        rng: source of randomness.
        count: number of corners.
        corners: numbers of possible rows and columns.
        distance: smallest difference, in rows or in columns, between two corners; also (in rows, in columns).

    Returns:
        (count, 2) int64 rows and columns.

    Raises:
        ParameterError: the corners do not fit, or random placement cannot reach this density (beyond about 0.56 of the plane).
    """
    steps = pair(distance)
    most = math.prod((n - 1) // step + 1 for n, step in zip(corners, steps, strict=True))
    patience = min(20 * corners[0] * corners[1], _PROPOSALS)
    best = 0
    for _ in range(max(1, _PROPOSALS // max(patience, _BATCH)) if count <= most else 0):
        placed = _adsorb(rng, count, corners, steps, patience)
        if len(placed) == count:
            return placed
        best = max(best, len(placed))  # jammed: a fresh start may do better, if it is cheap
    raise ParameterError(
        f"{count} copies at least {plain(*steps)} pixels apart do not fit {corners[0]} x {corners[1]} corners: {most} is the "
        f"most that ever do, and random placement got to {best}; lower the density or the separation, or enlarge the "
        "micrograph."
    )


def _adsorb(
    rng: np.random.Generator, count: int, corners: tuple[int, int], distance: tuple[int, int], patience: int
) -> np.ndarray:
    """(n, 2) corners; n < count only if ``patience`` proposals in a row were excluded by earlier corners.

    The grid has cells of sides ``distance``: each holds one corner at most, and only the eight cells around that of a
    proposal can hold another corner that excludes it. A border of empty cells avoids special cases at the edges.
    """
    cells = [(n - 1) // step + 1 for n, step in zip(corners, distance, strict=True)]
    grid = np.full((2, cells[0] + 2, cells[1] + 2), -4 * (max(distance) + max(corners)), np.int64)
    around, apart = np.arange(3), np.array(distance)

    def excluded(near: np.ndarray, proposal: np.ndarray) -> np.ndarray:
        """Whether corners, (2, ..., 3, 3), are closer than the distance along both axes."""
        steps = apart.reshape(2, *(1,) * (near.ndim - 1))
        return np.asarray((abs(near - proposal) < steps).all(axis=0))

    placed: list[np.ndarray] = []
    rejected, batch = 0, 64  # the first proposals are tried one by one, so few at a time
    while len(placed) < count and rejected < patience:
        proposals = rng.integers(0, corners, size=(batch, 2))
        row, column = (proposals // apart).T[:, :, None, None] + around[:, None]
        near = grid[:, row, np.swapaxes(column, 1, 2)]
        free = ~excluded(near, proposals.T[:, :, None, None]).any(axis=(1, 2))
        rejected += batch
        batch = min(2 * batch, _BATCH)
        for proposal in proposals[free]:
            i, j = proposal // apart
            near = grid[:, i : i + 3, j : j + 3]
            if not excluded(near, proposal[:, None, None]).any() and len(placed) < count:
                grid[:, i + 1, j + 1] = proposal
                placed.append(proposal.copy())  # a copy, as a view would keep the whole batch in memory
                rejected = 0
    return np.array(placed, dtype=np.int64).reshape(-1, 2)


def log_normal(rng: np.random.Generator, std: float, count: int) -> np.ndarray:
    """(count,) amplitudes of mean 1 and this standard deviation."""
    spread = math.sqrt(math.log1p(std**2))
    return np.asarray(np.exp(spread * rng.standard_normal(count) - spread**2 / 2.0))
