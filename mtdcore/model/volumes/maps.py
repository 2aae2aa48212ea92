"""Maps of volumes as MRC files, which RELION, ChimeraX and Coot open."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..._base.files import write_whole
from ..._base.optional import optional
from ...data.preparation.pixels import check_mrc_header
from ...errors import InputError, StorageError


def write_map(path: str | Path, volume: np.ndarray, voxel_size: float | None = None) -> None:
    """Write an (L, L, L) volume, axes (z, y, x), whole or not at all, as float32.

    The centre of rotation is voxel L // 2, as in RELION; the origin in the header is 0.

    Args:
        path: the file, replaced.
        volume: real.
        voxel_size: angstrom; None: unknown, the header then says 0.

    Raises:
        DependencyError: mrcfile is not installed.
        StorageError: the file cannot be written.
    """
    mrcfile = optional("mrcfile")

    def write(file: BinaryIO) -> None:
        with mrcfile.new(file.name, data=np.asarray(volume, np.float32), overwrite=True) as mrc:
            mrc.set_volume()
            mrc.voxel_size = voxel_size or 0.0

    write_whole(Path(path), write)


def read_map(path: str | Path) -> tuple[np.ndarray, float | None]:
    """The (L, L, L) float64 volume of an MRC file with axes (z, y, x), and its voxel size in angstrom; None: unknown.

    Raises:
        DependencyError: mrcfile is not installed.
        InputError: no MRC file, or no cube.
        StorageError: the file cannot be opened.
    """
    mrcfile = optional("mrcfile")
    check_mrc_header(Path(path))
    try:
        with warnings.catch_warnings(action="ignore"), mrcfile.mmap(path, mode="r", permissive=True) as mrc:
            volume = np.array(mrc.data, np.float64)
            voxel_size = float(mrc.voxel_size.x)
            order = tuple(int(mrc.header[name]) for name in ("mapc", "mapr", "maps"))
    except OSError as problem:
        raise StorageError(f"{path} could not be opened: {problem.strerror or problem}.") from problem
    except Exception as problem:  # mrcfile raises ValueError and TypeError on damage
        raise InputError(f"{path} should be an MRC map; it could not be read: {problem}.") from problem
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or not np.isfinite(volume).all():
        raise InputError(f"{path} should hold a finite cube of voxels; its shape is {volume.shape}.")
    if order != (1, 2, 3) and sorted(order) == [1, 2, 3]:
        # Axis i of the array lies along x, y or z: columns are the last axis.
        along = [order[2], order[1], order[0]]
        volume = np.ascontiguousarray(volume.transpose([along.index(axis) for axis in (3, 2, 1)]))
    return volume, voxel_size if voxel_size > 0.0 and voxel_size != 1.0 else None
