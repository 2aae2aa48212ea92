"""Densities from atomic coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._base.optional import optional
from ..errors import InputError, ParameterError
from .volumes import Gaussians


def read_atoms(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) coordinates (x, y, z) in angstrom and (n,) electrons of the atoms in the first model of a PDB or mmCIF file, without water.

    Raises:
        DependencyError: gemmi is not installed.
        InputError: the file cannot be read, or holds no atoms.
    """
    gemmi = optional("gemmi")
    try:
        structure = gemmi.read_structure(str(path))
        structure.remove_hydrogens()
        structure.remove_waters()
        atoms = [
            (*atom.pos.tolist(), atom.element.atomic_number * atom.occ)
            for chain in structure[0]
            for residue in chain
            for atom in residue
        ]
    except (RuntimeError, ValueError, IndexError, OSError) as problem:
        raise InputError(
            f"{path} should be a PDB or mmCIF file; it could not be read: {problem}."
        ) from problem
    table = np.array(atoms, np.float64).reshape(-1, 4)
    table = table[table[:, 3] > 0]
    if not len(table):
        raise InputError(f"{path} should hold atoms; there are none but water.")
    return table[:, :3], table[:, 3]


def density(
    places: np.ndarray,
    electrons: np.ndarray,
    box_size: int,
    voxel_size: float | None,
    resolution: float | None,
) -> Gaussians:
    """Gaussians at atoms, in voxels.

    Args:
        places: (n, 3) (x, y, z) in angstrom.
        electrons: (n,) weights.
        box_size: L in voxels.
        voxel_size: angstrom; None: chosen so that the farthest atom is 0.4 boxes from the centre.
        resolution: period in angstrom at which a Gaussian's transform falls to 1 / e; None: 3.5 voxels.

    Raises:
        ParameterError: atoms outside the box.
    """
    centred = places - electrons @ places / electrons.sum()
    reach = float(np.linalg.norm(centred, axis=1).max())
    size = reach / (0.4 * box_size) if voxel_size is None else voxel_size
    if reach > 0.5 * box_size * size:
        raise ParameterError(
            f"the structure reaches {reach:.0f} angstrom from its centre, beyond a box of {box_size} voxels of {size:g} "
            "angstrom: choose a larger box or larger voxels."
        )
    # exp(-2 pi^2 s^2 / d^2) = 1 / e at d = sqrt(2) pi s
    width = (3.5 if resolution is None else resolution / size) / (np.sqrt(2.0) * np.pi)
    return Gaussians.of(centred / size, float(width), electrons)
