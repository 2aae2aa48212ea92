"""Backends: the reference definition, the CPU, CUDA and those of plug-ins, chosen by name."""

from __future__ import annotations

import logging

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
        name: "cpu", "cuda", "cuda:1", "reference", or "auto": the first CUDA device if there is a usable one,
            the CPU otherwise. Any other name is that of a plug-in, up to its first colon: the function behind the entry
            point ``mtdcore.backends`` is called with the whole name, the precision and the threads.
        precision: dtype of the correlations.
        threads: tiles worked on at once on the CPU; None: all available cores.

    Raises:
        ParameterError: unknown name; the message lists those there are.
        DeviceError, DependencyError: the CUDA device, CuPy or what a plug-in needs is missing.
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
    if kind == "cuda" and (name == "cuda" or index.isdecimal()):
        from .cuda.backend import CudaBackend

        return CudaBackend.open(int(index) if index else None, precision)
    own = plugin("mtdcore.backends", kind)
    if own is not None:
        made: Backend = own(name, precision, threads)
        return made
    known = ["auto", "cpu", "cuda", "cuda:<index>", "reference", *plugin_names("mtdcore.backends")]
    listed = ", ".join(f'"{each}"' for each in known)
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
