"""Coordinates of proteins from PDB and mmCIF files, reduced to the weighted points that a density at 5 angstrom needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtdcore._base.guarded import opened
from mtdcore.errors import DependencyError, InputError

from .structures import Structures, centred

_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")

#: Atoms closer than this are joined: far below the finest band limit of 5 angstrom.
CELL = 2.5


def read_folder(folder: str | Path, *, validation: float = 0.05, seed: int = 0) -> Structures:
    """Structures of all PDB and mmCIF files of a folder, in the order of their names.

    The split is random and does not group similar proteins. Unbiased validation figures need a split by sequence: train
    from an archive with a ``split``.

    Args:
        folder: where .pdb, .ent, .cif and .mmcif files lie, gzipped or not.
        validation: share of the structures set apart for validation.
        seed: of the choice.

    Raises:
        DependencyError: gemmi is not installed.
        InputError: there is no such file, or one of them holds no atoms.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.name.lower().endswith(_ENDINGS))
    if not paths:
        raise InputError(
            f"{folder}: expected PDB or mmCIF files ({', '.join(_ENDINGS[:4])}, gzipped or not); got none."
        )
    clouds = [joined(*read_atoms(path)) for path in paths]
    offset = np.concatenate([[0], np.cumsum([len(weights) for _, weights in clouds])])
    part = np.zeros(len(paths), np.int8)
    held_out = int(validation * len(paths))
    part[np.random.default_rng(seed).permutation(len(paths))[:held_out]] = 1
    points, weights = (np.concatenate(arrays) for arrays in zip(*clouds, strict=True))
    return centred(points, weights, offset, np.array([path.name for path in paths]), part)


def read_atoms(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Atoms of the first model: (N, 3) positions in angstrom, order (z, y, x), and (N,) electrons times occupancy.

    The first biological assembly is built where the file describes one. Water and hydrogen are left out.

    Raises:
        DependencyError: gemmi is not installed.
        InputError: the file cannot be read, or holds no atoms.
        StorageError: there is no such file.
    """
    gemmi = _gemmi()
    opened(Path(path)).close()  # refuses a pipe, on which gemmi would hang
    try:
        structure = gemmi.read_structure(str(path))
        structure.remove_hydrogens()
        structure.remove_waters()
        if structure.assemblies:
            how = gemmi.HowToNameCopiedChain.AddNumber
            structure.transform_to_assembly(structure.assemblies[0].name, how)
        model = structure[0]
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise InputError(f"{path}: expected a PDB or mmCIF file with atoms; {error}.") from error
    atoms = list(_atoms(model))
    if not atoms:
        raise InputError(f"{path}: expected atoms; there are none but water.")
    table = np.array(atoms)
    return table[:, :3], table[:, 3]


def joined(
    points: NDArray[np.float64], weights: NDArray[np.float64], cell: float = CELL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points of every cubic cell replaced by their centre of mass with their weight.

    Args:
        points: (N, 3) angstrom.
        weights: (N,).
        cell: side of the cells, angstrom.
    """
    _, index = np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_inverse=True)
    index = index.reshape(-1)
    mass = np.bincount(index, weights).astype(np.float64)
    centres = [np.bincount(index, weights * column) / mass for column in points.T]
    return np.stack(centres, axis=1), mass


def _atoms(model: Any) -> Iterator[tuple[float, float, float, float]]:
    for chain in model:
        for residue in chain:
            for atom in residue:
                weight = atom.element.atomic_number * atom.occ
                if weight > 0:
                    yield atom.pos.z, atom.pos.y, atom.pos.x, weight


def _gemmi() -> Any:
    try:
        import gemmi
    except ModuleNotFoundError as error:
        raise DependencyError(
            "PDB and mmCIF files need the package 'gemmi', which is not installed: pip install \"mtdcore[em]\"."
        ) from error
    return gemmi
