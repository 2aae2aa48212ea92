"""Volumes with exact projections: sums of Gaussians, which model the densities of atoms or residues."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ParameterError


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A sum of isotropic Gaussians about the centre of a box.

    Attributes:
        centres: (n, 3) float64 (x, y, z) in voxels from the centre, the centre of mass at 0.
        widths: (n,) standard deviations in voxels.
        weights: (n,) integrals.
    """

    centres: np.ndarray
    widths: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls, centres: np.ndarray, widths: np.ndarray | float, weights: np.ndarray | float = 1.0
    ) -> Gaussians:
        """Gaussians with common or separate widths and weights, moved so that the centre of mass is 0.

        Raises:
            ParameterError: inconsistent shapes, or widths or total weight that are not positive.
        """
        places = np.asarray(centres, np.float64)
        if places.ndim != 2 or places.shape[1] != 3 or not len(places):
            raise ParameterError(f"centres should be an (n, 3) array of (x, y, z); got shape {places.shape}.")
        width, weight = (np.broadcast_to(np.asarray(v, np.float64), len(places)) for v in (widths, weights))
        if not (np.all(width > 0) and weight.sum() > 0):
            raise ParameterError("the widths and the total weight of Gaussians should be positive.")
        return cls(places - weight @ places / weight.sum(), width, weight)

    def volume(self, side: int) -> np.ndarray:
        """(L, L, L) float64 density, axes (z, y, x), centre at voxel L // 2."""
        x, y, z = (self._profile(axis, self.centres[:, axis], side) for axis in range(3))
        return np.asarray(np.einsum("n,ni,nj,nk->ijk", self.weights, z, y, x, optimize=True))

    def projections(self, rotations: np.ndarray, side: int) -> np.ndarray:
        """(T, L, L) integrals along z of the density turned by (T, 3, 3) rotations."""
        images = np.empty((len(rotations), side, side))
        for image, rotation in zip(images, rotations, strict=True):
            turned = self.centres @ rotation.T
            x, y = (self._profile(axis, turned[:, axis], side) for axis in range(2))
            np.matmul((self.weights[:, None] * y).T, x, out=image)
        return images

    def _profile(self, axis: int, centres: np.ndarray, side: int) -> np.ndarray:
        """(n, L) values of one-dimensional normal densities."""
        at = np.arange(side) - side // 2
        exponent = (at - centres[:, None]) ** 2 / (2.0 * self.widths[:, None] ** 2)
        return np.asarray(np.exp(-exponent) / (math.sqrt(2.0 * math.pi) * self.widths[:, None]))


def chain(side: int, seed: int = 0, residues: int = 60) -> Gaussians:
    """A random walk with a pull to its start, like the trace of a small protein: a test object without symmetry.

    Args:
        side: box L in voxels; the trace reaches a third of it from the centre.
        seed: of the walk and of the weights.
        residues: number of Gaussians.
    """
    rng = np.random.default_rng(200 + seed)
    place, heading = np.zeros(3), np.array([1.0, 0.0, 0.0])
    places = []
    for _ in range(residues):
        heading = heading + 0.8 * rng.standard_normal(3) - 0.25 * place
        heading /= np.linalg.norm(heading)
        place = place + 0.9 * heading
        places.append(place)
    centred = np.array(places) - np.mean(places, axis=0)
    centred *= side / 3.0 / np.linalg.norm(centred, axis=1).max()
    return Gaussians.of(centred, 0.065 * side, rng.uniform(0.5, 1.5, residues))
