"""OME-Zarr 0.5 (https://ngff.openmicroscopy.org/0.5): the metadata of a stack of micrographs, and the folder of the pixels of an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import InputError
from .guard import MAX_METADATA_BYTES, ChunkDamaged, ChunkMissing, read_inside

#: Axes of a stack: micrographs have no order in space or time.
AXES = ("micrograph", "y", "x")

#: Name of the one resolution level that is written.
LEVEL = "0"


def multiscales(name: str, pixel_size: float | None) -> dict[str, Any]:
    """The attribute ``ome`` of the group around a stack (micrographs, H, W).

    Args:
        name: of the image.
        pixel_size: angstrom; None: unknown, the scale is 1 pixel.
    """
    unit = {} if pixel_size is None else {"unit": "angstrom"}
    scale = pixel_size or 1.0
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": AXES[0]}, *({"name": axis, "type": "space", **unit} for axis in AXES[1:])],
                "datasets": [
                    {
                        "path": LEVEL,
                        "coordinateTransformations": [{"type": "scale", "scale": [1.0, scale, scale]}],
                    }
                ],
            }
        ],
    }


def finest(folder: Path) -> Path:
    """Folder of the pixels: the first level of an OME-Zarr image (0.4 or 0.5); any other folder itself.

    Raises:
        InputError: OME metadata that name no array inside the folder.
    """
    image = _image(folder)
    if image is None:
        return folder
    try:
        level = folder / image["datasets"][0]["path"]
    except (KeyError, IndexError, TypeError):
        level = folder
    if level.resolve() == folder.resolve() or not level.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder} should name its arrays in ome.multiscales[0].datasets; it names none inside it."
        )
    return Path(level)


def ome_pixel_size(folder: Path) -> float | None:
    """Pixel size in angstrom that an OME-Zarr image states for its last axis; None: none, or another kind of folder."""
    image = _image(folder)
    units = {"angstrom": 1.0, "nanometer": 10.0, "picometer": 0.01}
    try:
        axis, level = image["axes"][-1], image["datasets"][0]  # type: ignore[index]
        scales = [t["scale"] for t in level["coordinateTransformations"] if t["type"] == "scale"]
        size = float(scales[0][-1]) * units[axis["unit"]]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return size if size > 0 else None


def _image(folder: Path) -> dict[str, Any] | None:
    """The first entry of ``multiscales``; None if the folder is no OME-Zarr image."""
    for name in ("zarr.json", ".zattrs"):
        try:
            attributes = json.loads(read_inside(folder, name, MAX_METADATA_BYTES))
            attributes = attributes.get("attributes", {}) if name == "zarr.json" else attributes
            found = attributes.get("ome", attributes).get("multiscales")
        except (OSError, ValueError, AttributeError, RecursionError, ChunkDamaged, ChunkMissing):
            continue
        if found and isinstance(found, list) and isinstance(found[0], dict):
            return dict(found[0])
    return None
