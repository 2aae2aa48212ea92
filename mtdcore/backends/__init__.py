"""Backends: the reference definition, the CPU and CUDA, chosen by name."""

from __future__ import annotations

from typing import Literal

from ..errors import ParameterError
from .base import Backend

__all__ = ["Backend", "get_backend"]


def get_backend(
    name: str | Backend = "auto",
    precision: Literal["float32", "float64"] = "float32",
    threads: int | None = None,
) -> Backend:
    """The backend of this name; a backend object is returned as it is.

    Args:
        name: "cpu", "cuda", "cuda:1", "reference", or "auto": the first CUDA device if there is a usable one,
            the CPU otherwise.
        precision: dtype of the correlations.
        threads: tiles worked on at once on the CPU; None: all available cores.

    Raises:
        ParameterError: unknown name.
        DeviceError, DependencyError: the CUDA device or CuPy is missing.
    """
    if not isinstance(name, str):
        return name
    if name == "reference":
        from .reference import ReferenceBackend

        return ReferenceBackend()
    if name in ("cpu", "auto"):
        from .cpu import CpuBackend

        return CpuBackend(precision, threads)
    raise ParameterError(
        f'backend must be "auto", "cpu", "cuda", "cuda:<index>" or "reference"; got {name!r}.'
    )
