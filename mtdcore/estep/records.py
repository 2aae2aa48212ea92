"""Statistics as JSON-able values and arrays: in files of their own, and in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._base.files import write_whole
from .._base.records import Damaged, seal, unseal
from ..errors import InputError
from ..model.likelihood.records import views_from_record, views_record
from ..model.normal import Blocks, Diagonal, Normal, PerView, Spectral
from .statistics import Quadratic, Statistics

_NUMBERS = (
    "log_likelihood",
    "energy",
    "total",
    "expected_count",
    "empty_mass",
    "sites",
    "pixels",
    "noise_std",
)

#: Normal operators of one target, and their array.
_NORMALS: dict[str, tuple[Any, str]] = {
    "Diagonal": (Diagonal, "weights"),
    "PerView": (PerView, "coverage"),
    "Spectral": (Spectral, "spectrum"),
}


def statistics_record(statistics: Statistics) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(JSON-able values, host arrays by name) of statistics with arrays of any library."""
    arrays = {"class_mass": statistics.class_mass}
    if statistics.ledger is not None:
        arrays["ledger"] = statistics.ledger
    if statistics.footprint is not None:
        arrays["footprint"] = _host(statistics.footprint)
    values: dict[str, Any] = {name: getattr(statistics, name) for name in _NUMBERS}
    parts = {"target": statistics.quadratic, "frame": statistics.frame}
    for name, part in parts.items():
        if part is not None:
            arrays[f"{name}.right"] = _host(part.right)
            values[name] = _normal_record(part.normal, f"{name}.normal", arrays)
    return values, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def statistics_from_record(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Statistics:
    """The statistics of which :func:`statistics_record` made these."""
    parts = {
        name: Quadratic(arrays[f"{name}.right"], _normal(values[name], f"{name}.normal", arrays))
        for name in ("target", "frame")
        if name in values
    }
    return Statistics(
        parts["target"].right,
        parts["target"].normal,
        **{name: values[name] for name in _NUMBERS},
        class_mass=arrays["class_mass"],
        frame=parts.get("frame"),
        ledger=arrays.get("ledger"),
        footprint=arrays.get("footprint"),
    )


def save_statistics(statistics: Statistics, path: Path) -> None:
    """Write :func:`statistics_record` to a sealed safetensors file."""
    content = seal(*statistics_record(statistics))
    write_whole(path, lambda file: file.write(content))


def load_statistics(path: Path) -> Statistics:
    """Read what :func:`save_statistics` wrote; InputError if it is no such file."""
    try:
        return statistics_from_record(*unseal(path))
    except (Damaged, LookupError, TypeError, ValueError) as problem:
        raise InputError(
            f"{path} should hold statistics written by Statistics.save; it could not be read: {problem}."
        ) from problem


def _normal_record(normal: Normal, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if isinstance(normal, Blocks):
        blocks = [_normal_record(block, f"{name}.{c}", arrays) for c, block in enumerate(normal.blocks)]
        return {"normal": "Blocks", "blocks": blocks}
    kind = type(normal).__name__
    arrays[name] = _host(getattr(normal, _NORMALS[kind][1]))
    views = getattr(normal, "views", None)
    return {"normal": kind} if views is None else {"normal": kind, "views": views_record(views)}


def _normal(values: Mapping[str, Any], name: str, arrays: Mapping[str, np.ndarray]) -> Normal:
    if values["normal"] == "Blocks":
        return Blocks(tuple(_normal(v, f"{name}.{c}", arrays) for c, v in enumerate(values["blocks"])))
    kind, _ = _NORMALS[values["normal"]]
    views = (views_from_record(values["views"]),) if "views" in values else ()
    made: Normal = kind(*views, arrays[name])
    return made


def _host(array: Any) -> np.ndarray:
    return np.asarray(
        array.get() if hasattr(array, "get") else array
    )  # CuPy's arrays become NumPy's by get() alone
