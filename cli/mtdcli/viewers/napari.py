"""A reader for napari of run folders of ``mtd recover`` and imported measurements. It does not import napari.

``napari RUN_DIR`` shows the micrographs, the copies on them as squares of the box, and the estimate beside them. A layer of napari is a tuple
(data, attributes, kind); see its plug-in documentation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from mtdcore._base.typing import pair
from mtdcore.data import Measurement, open_measurement
from mtdcore.data.measurement import micrograph
from mtdcore.errors import MtdError
from mtdcore.model.volumes.maps import read_map

from ..run.finished import FinishedRun
from ..run.folder import RunFolder

Layer: TypeAlias = tuple[Any, dict[str, Any], Literal["image", "points"]]

#: Pixels between the micrographs and the images beside them.
_GAP = 8

#: Share of the pixels below the black level, and above the white level.
_TAIL = 0.001


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """The reader of a path, as napari asks for it; None: it is neither a run folder nor a measurement of mtd."""
    if not isinstance(path, str):
        path = path[0] if len(path) == 1 else ""
    place = Path(path)
    if not path or not place.is_dir():
        return None
    if (place / "run.json").is_file():
        return lambda _: run_layers(place)
    if any((place / name).is_file() for name in ("zarr.json", ".zarray")):
        return lambda _: [stack_layer(open_measurement(place), place.stem)]
    return None


def run_layers(path: Path) -> list[Layer]:
    """The results of a finished run, over its micrographs if these still exist.

    Raises:
        InputError, StorageError: the folder is no finished run, or is damaged.
    """
    folder = RunFolder(path)
    if folder.volume.is_file():
        voxels, _ = read_map(folder.volume)
        return [(voxels, {"name": f"{path.name}: volume"}, "image")]
    run = FinishedRun.at(folder)
    layers: list[Layer] = []
    try:
        layers.append(stack_layer(run.open(), run.measurement.stem))
    except (MtdError, OSError) as problem:
        warnings.warn(f"the micrographs of {path} are not shown: {problem}", stacklevel=2)
    height, width = pair(run.parameters.box_size)
    for place, (name, file) in enumerate(
        {"estimate": run.folder.estimate, "aligned average": run.folder.average}.items()
    ):
        classes = run.image(file).reshape(-1, height, width)
        shown = np.concatenate(list(classes), axis=1)
        left = place * (shown.shape[1] + _GAP)
        layers.append((shown, {"name": name, "translate": (-height - _GAP, left)}, "image"))
    return [*layers, *copies_layer(run.folder, (height, width))]


def stack_layer(measurement: Measurement, name: str) -> Layer:
    """The micrographs, read one by one as they are looked at."""
    stack = Stack(measurement)
    seen = stack[0]
    black, white = np.nanquantile(seen, [_TAIL, 1.0 - _TAIL]) if np.isfinite(seen).any() else (0.0, 1.0)
    limits = (float(black), float(max(white, np.nextafter(black, np.inf))))
    return stack, {"name": name, "contrast_limits": limits, "multiscale": False}, "image"


def copies_layer(folder: RunFolder, box: tuple[int, int]) -> list[Layer]:
    """The copies as points in the middle of their boxes, with the columns of the table as features; no layer before ``mtd detect``."""
    table = folder.read_detections()
    if not table:
        return []
    rows, columns = (
        np.asarray(table.pop(name)) + (n - 1) / 2 for name, n in zip(("row", "column"), box, strict=True)
    )
    places = np.stack([np.asarray(table.pop("micrograph")), rows, columns], axis=1)
    look = {
        "name": "copies", "features": table, "symbol": "square", "size": max(box), "face_color": "transparent",
        "border_color": "yellow", "out_of_slice_display": False,
    }  # fmt: skip
    return [(places, look, "points")]


class Stack:
    """A measurement as an array (micrographs, H, W) that is read one micrograph at a time, NaN where invalid.

    Attributes:
        shape: of the array.
        dtype: of its pixels.
        ndim: 3.
    """

    def __init__(self, measurement: Measurement) -> None:
        self.shape = measurement.shape
        self.dtype = np.dtype(np.float32)
        self.ndim = 3
        self._one = lru_cache(2)(lambda index: np.asarray(micrograph(measurement, index), np.float32))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        chosen = np.arange(self.shape[0])[first]
        if np.ndim(chosen) == 0:
            return np.asarray(self._one(int(chosen))[tuple(rest)])
        return np.stack([self._one(int(index))[tuple(rest)] for index in chosen])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All micrographs at once."""
        return self[:].astype(dtype or self.dtype, copy=False)
