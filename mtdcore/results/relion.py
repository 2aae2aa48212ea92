"""Files for RELION: picks, class averages and the list of a job's outputs.

Source: the RELION 4.0 and 5.0 manuals and STAR files they write. Coordinates are 0-based pixels of the stored
micrograph, X along columns, of the box centre; class averages have bright particles, on the grey scale of the input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np

from .._base.files import write_whole
from .._base.guarded import opened
from .._base.optional import optional
from ..data.micrographs.listing import split_name
from ..data.micrographs.star import write_star
from ..data.micrographs.table import MicrographTable
from ..errors import ParameterError, StorageError
from .detections import Detections

Version: TypeAlias = Literal["4.0", "5.0"]

#: Labels of output nodes by RELION version.
_NODES: dict[Version, dict[str, str]] = {
    "4.0": {
        "picks": "MicrographsCoords.star.relion.autopick",
        "averages": "ImagesData.star.relion.classaverages",
    },
    "5.0": {
        "picks": "MicrographCoordsGroup.star.relion.autopick",
        "averages": "Image2DGroupMetadata.star.relion.classaverages",
    },
}

PICKS, AVERAGES, STACK = "autopick.star", "class_averages.star", "class_averages.mrcs"


def version_of(star: Path) -> Version:
    """The RELION that wrote a STAR file, as far as its comment says: ``# version 50001`` is 5, anything older 4.0."""
    with opened(star) as file:
        found = re.search(rb"^#\s*version\s+(\d+)", file.read(4096), re.MULTILINE)
    return "5.0" if found and int(found[1]) >= 50000 else "4.0"


def write_picks(folder: str | Path, found: Detections, table: MicrographTable) -> Path:
    """Write one STAR file of copies per micrograph, and ``autopick.star``, which lists them.

    Args:
        folder: of the job, relative to RELION's project, as tables should name it.
        found: copies in pixels of the measurement.
        table: its micrographs.

    Returns:
        Path of ``autopick.star``.

    Raises:
        ParameterError: the table has other micrographs than the measurement.
        StorageError: a file cannot be written.
    """
    folder = Path(folder)
    if len(found) and found.micrograph.max() >= len(table):
        raise ParameterError(
            f"expected the table of a measurement of at least {found.micrograph.max() + 1} micrographs; got one of {len(table)}."
        )
    files = [folder / "Picks" / f"{stem}_autopick.star" for stem in _stems(table.names)]
    _made(folder / "Picks")
    for index, file in enumerate(files):
        columns = found.only(index).pick_columns(table.entries[index].bin)
        write_star(file, "", columns)
    write_star(
        folder / PICKS,
        "coordinate_files",
        {"rlnMicrographName": table.names, "rlnMicrographCoordinates": [str(file) for file in files]},
    )
    return folder / PICKS


def write_class_averages(
    folder: str | Path,
    images: np.ndarray,
    shares: Sequence[float],
    scale: float = 1.0,
    pixel_size: float | None = None,
) -> Path:
    """Write ``class_averages.mrcs`` (float32) and the STAR file that lists its images.

    Args:
        folder: of the job, relative to RELION's project, as tables should name it.
        images: (C, L, L) or (L, L).
        shares: of each class among the copies.
        scale: factor that brings the images to the grey scale of the micrographs.
        pixel_size: angstrom; None: unknown, the header then says 0.

    Returns:
        Path of the STAR file.

    Raises:
        DependencyError: mrcfile is not installed.
        StorageError: a file cannot be written.
    """
    folder = Path(folder)
    stack = np.asarray(scale * np.reshape(images, (-1, *np.shape(images)[-2:])), np.float32)
    _made(folder)
    write_mrc(folder / STACK, stack, pixel_size)
    columns: dict[str, Sequence[object]] = {
        "rlnReferenceImage": [f"{i + 1:06d}@{folder / STACK}" for i in range(len(stack))],
        "rlnClassDistribution": [f"{share:.6f}" for share in shares],
    }
    if pixel_size is not None:
        columns["rlnPixelSize"] = [f"{pixel_size:.6f}"] * len(stack)
    write_star(folder / AVERAGES, "", columns)
    return folder / AVERAGES


def write_mrc(path: Path, stack: np.ndarray, pixel_size: float | None = None) -> None:
    """Write an (N, H, W) stack of images as MRC, whole or not at all.

    Args:
        path: the file, replaced.
        stack: of a dtype that MRC knows; float32, float16, (u)int8 and (u)int16.
        pixel_size: angstrom; None: unknown.

    Raises:
        DependencyError: mrcfile is not installed.
        StorageError: the file cannot be written.
    """
    mrcfile = optional("mrcfile")

    def write(file: BinaryIO) -> None:
        with mrcfile.new(file.name, data=stack, overwrite=True) as mrc:
            mrc.set_image_stack()
            mrc.voxel_size = pixel_size or 0.0

    write_whole(path, write)


def write_output_nodes(folder: str | Path, version: Version) -> None:
    """Write ``RELION_OUTPUT_NODES.star``, which lists the outputs of an external job for RELION's pipeline."""
    folder = Path(folder)
    labels = _NODES[version]
    write_star(
        folder / "RELION_OUTPUT_NODES.star",
        "output_nodes",
        {
            "rlnPipeLineNodeName": [str(folder / PICKS), str(folder / AVERAGES)],
            "rlnPipeLineNodeTypeLabel": [labels["picks"], labels["averages"]],
        },
    )


def _stems(names: Sequence[str]) -> list[str]:
    """A file name for each micrograph; numbered where several would be the same."""
    plain = [Path(split_name(name)[1]).stem for name in names]
    several = len(set(plain)) < len(plain)
    return [f"{i + 1:06d}_{stem}" for i, stem in enumerate(plain)] if several else plain


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StorageError(f"{folder} could not be made: {problem}.") from problem
