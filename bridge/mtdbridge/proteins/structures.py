"""Protein structures as weighted points."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtdcore.errors import InputError, StorageError

Floats = NDArray[np.float32]

#: Meaning of the numbers in an archive's ``split``.
PARTS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Structures:
    """Point clouds, one after the other: structure i is ``points[offset[i]:offset[i + 1]]``.

    Attributes:
        points: (N, 3) float32 in angstrom, order (z, y, x), the centre of each structure at 0.
        weights: (N,) float32, electrons or anything proportional to scattering, positive.
        offset: (S + 1,) int64.
        names: (S,) names.
        part: (S,) int8, the split of :data:`PARTS`; zeros where the source has none.
    """

    points: Floats
    weights: Floats
    offset: NDArray[np.int64]
    names: NDArray[np.str_]
    part: NDArray[np.int8]

    def __post_init__(self) -> None:
        count = len(self.offset) - 1
        _check_offsets(self.offset, len(self.points))
        if self.points.shape != (len(self.weights), 3) or {len(self.names), len(self.part)} != {count}:
            raise InputError(
                f"expected (N, 3) points, (N,) weights and {count} names and parts; got "
                f"{self.points.shape}, {self.weights.shape}, {len(self.names)} and {len(self.part)}."
            )
        if not (np.isfinite(self.points).all() and (self.weights > 0).all()):
            raise InputError("expected finite coordinates and positive weights; some are not.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(S,) number of points."""
        return np.diff(self.offset)

    @property
    def radii(self) -> Floats:
        """(S,) largest distance of a point from the centre, angstrom."""
        squares = np.square(self.points).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum.reduceat(squares, self.offset[:-1])), dtype=np.float32)

    def only(self, part: str) -> Structures:
        """The structures of one part: "train", "validation" or "test".

        Raises:
            InputError: there are none.
        """
        chosen = np.flatnonzero(self.part == PARTS[part])
        if len(chosen) == 0:
            raise InputError(f"expected structures for {part}; there are none among {len(self)}.")
        return self.at(chosen)

    def at(self, chosen: NDArray[np.int64]) -> Structures:
        """The structures with these indices, in this order."""
        rows = np.concatenate([np.arange(self.offset[i], self.offset[i + 1]) for i in chosen])
        offset = np.concatenate([[0], np.cumsum(self.sizes[chosen])]).astype(np.int64)
        return Structures(
            self.points[rows], self.weights[rows], offset, self.names[chosen], self.part[chosen]
        )

    def sha256(self) -> str:
        """Hash of points, weights and offsets, the same for two trainings on the same structures."""
        digest = hashlib.sha256()
        for array, kind in ((self.points, "<f4"), (self.weights, "<f4"), (self.offset, "<i8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write an archive that :func:`load_structures` reads; coordinates in float16 (.06 angstrom at 100).

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            np.savez_compressed(
                path,
                xyz=self.points[:, ::-1].astype(np.float16),
                weight=self.weights.astype(np.float16),
                offset=self.offset,
                name=self.names,
                split=self.part,
            )
        except OSError as error:
            raise StorageError(f"{path}: the structures cannot be written: {error}.") from error


def centred(
    points: NDArray[np.floating],
    weights: NDArray[np.floating],
    offset: NDArray[np.integer],
    names: NDArray[np.str_],
    part: NDArray[np.integer],
) -> Structures:
    """Structures with the centre of mass of each at 0; arrays as in :class:`Structures`, points anywhere."""
    starts: NDArray[np.int64] = np.asarray(offset, dtype=np.int64)
    _check_offsets(starts, len(points))
    weight = np.asarray(weights, dtype=np.float64)
    points = np.asarray(points, dtype=np.float64)
    mass = np.add.reduceat(weight, starts[:-1])
    centre = np.add.reduceat(points * weight[:, None], starts[:-1]) / mass[:, None]
    points = points - np.repeat(centre, np.diff(starts), axis=0)
    return Structures(
        points.astype(np.float32), weight.astype(np.float32), starts, names, np.asarray(part, dtype=np.int8)
    )


def _check_offsets(offset: NDArray[np.int64], count: int) -> None:
    if len(offset) < 2 or offset[0] != 0 or offset[-1] != count or np.diff(offset).min() < 1:
        raise InputError(
            f"expected offsets from 0 to {count} of structures of at least one point each; got {offset}."
        )
