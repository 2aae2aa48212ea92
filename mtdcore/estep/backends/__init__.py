"""Backends: the reference definition, array libraries, the CPU and CUDA, chosen by name."""

from __future__ import annotations

import logging

import numpy as np

from ..._base.optional import optional
from ..._base.plugins import plugin, plugin_names
from ..._base.typing import Precision
from ...errors import DependencyError, DeviceError, ParameterError
from .base import Backend

__all__ = ["Backend", "Precision", "get_backend"]


_log = logging.getLogger(__name__)


def get_backend(
    name: str | Backend = "auto",
    precision: Precision = "float32",
    threads: int | None = None,
) -> Backend:
    """The backend of this name; a backend object is returned as it is.

    Args:
        name: "cpu", "cuda", "cuda:1", "reference"; "array" (NumPy in array-API terms), "torch", "torch:cuda:1" and
            similar ones; or "auto": the first CUDA device if there is a usable one, the CPU otherwise.
        precision: dtype of the correlations.
        threads: number of tiles processed at once on the CPU; None: all available cores.

    Raises:
        ParameterError: unknown name.
        DeviceError, DependencyError: the device, CuPy or torch is missing.
    """
    if not isinstance(name, str):
        return name
    if name == "reference":
        from .reference import ReferenceBackend

        return ReferenceBackend()
    if name == "auto":
        return _first_usable(precision, threads)
    if name == "cpu":
        from .cpu.backend import CpuBackend

        return CpuBackend(precision, threads)
    kind, _, index = name.partition(":")
    if name == "array" or kind == "torch":
        from .array.backend import ArrayBackend

        library = optional("torch", "torch") if kind == "torch" else np
        return ArrayBackend(library, precision, index or None)
    if kind == "cuda" and (name == "cuda" or index.isdecimal()):
        from .cuda.backend import CudaBackend

        return CudaBackend.open(int(index) if index else None, precision)
    own = plugin("mtdcore.backends", kind)
    if own is not None:
        made: Backend = own(name, precision, threads)
        return made
    shipped = ["auto", "cpu", "cuda", "cuda:<index>", "array", "torch", "torch:<device>", "reference"]
    listed = ", ".join(f'"{each}"' for each in [*shipped, *plugin_names("mtdcore.backends")])
    raise ParameterError(f"backend must be one of {listed}; got {name!r}.")


def _first_usable(precision: Precision, threads: int | None) -> Backend:
    """The first CUDA device, or the CPU with the reason in the log."""
    from .cpu.backend import CpuBackend
    from .cuda.backend import CudaBackend

    try:
        return CudaBackend.open(None, precision)
    except (DependencyError, DeviceError) as reason:
        _log.debug("using the CPU: %s", reason)
        return CpuBackend(precision, threads)
