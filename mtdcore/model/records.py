"""Views and normal operators as plain values and arrays, for checkpoints, run folders and files of statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from .._base.numerics.conversion import on_host
from .filters.optics import Defocused
from .filters.whitening import Uneven, Whitened, Whitening
from .normal import Blocks, Diagonal, Normal, PerView, Spectral
from .rotations import Rotations
from .shifts import Shifted
from .symmetry import Mirrored
from .views import Classes, Views

_VIEWS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Rotations, Shifted, Mirrored, Classes, Defocused, Whitened)
}

#: Normal operators of one target, and their array.
_NORMALS: dict[str, tuple[Any, str]] = {
    "Diagonal": (Diagonal, "weights"),
    "PerView": (PerView, "coverage"),
    "Uneven": (Uneven, "coverage"),
    "Spectral": (Spectral, "spectrum"),
}


def views_record(views: Views) -> dict[str, Any]:
    """Views as JSON-able values: their class under "view", then their attributes."""
    values: dict[str, Any] = {"view": type(views).__name__}
    for field in fields(views):  # type: ignore[arg-type]
        value = getattr(views, field.name)
        if field.name == "views":
            value = views_record(value)
        if field.name == "whitening":
            value = value.record()
        values[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return values


def views_from_record(record: Mapping[str, Any]) -> Views:
    """The views of a record of :func:`views_record`."""
    values = {name: value for name, value in record.items() if name != "view"}
    if "views" in values:
        values["views"] = views_from_record(values["views"])
    if isinstance(values.get("box_size"), list):
        values["box_size"] = tuple(values["box_size"])
    if "transfer" in values:
        values["transfer"] = np.array(values["transfer"])
    if "whitening" in values:
        values["whitening"] = Whitening.from_record(values["whitening"])
    made: Views = _VIEWS[record["view"]](**values)
    return made


def normal_record(normal: Normal, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A normal operator as JSON-able values; its arrays, on the host, are added to ``arrays`` under ``name``."""
    if isinstance(normal, Blocks):
        blocks = [normal_record(block, f"{name}.{c}", arrays) for c, block in enumerate(normal.blocks)]
        return {"normal": "Blocks", "blocks": blocks}
    kind = type(normal).__name__
    arrays[name] = on_host(getattr(normal, _NORMALS[kind][1]))
    views = getattr(normal, "views", None)
    return {"normal": kind} if views is None else {"normal": kind, "views": views_record(views)}


def normal_from_record(values: Mapping[str, Any], name: str, arrays: Mapping[str, np.ndarray]) -> Normal:
    """The operator of a record and arrays of :func:`normal_record`."""
    if values["normal"] == "Blocks":
        return Blocks(
            tuple(normal_from_record(v, f"{name}.{c}", arrays) for c, v in enumerate(values["blocks"]))
        )
    kind, _ = _NORMALS[values["normal"]]
    views = (views_from_record(values["views"]),) if "views" in values else ()
    made: Normal = kind(*views, arrays[name])
    return made
