"""Versions of packages and resources of the machine, for run records and ``mtd doctor``."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

#: Packages that every run uses.
_PACKAGES = ("mtdcore", "numpy", "scipy", "numba", "zarr", "click", "matplotlib")


def versions() -> dict[str, str | None]:
    """Versions of the packages that every run uses."""
    return {name: version_of(name) for name in _PACKAGES}


def version_of(name: str) -> str | None:
    """Installed version of a package, None where it is missing; CuPy's distributions carry the CUDA version in their names."""
    names = ("cupy", "cupy-cuda12x", "cupy-cuda13x") if name == "cupy" else (name,)
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def machine() -> dict[str, Any]:
    """Cores this process may use, threads of Numba, memory in GiB."""
    import numba

    from mtdcore._base.cores import usable_cores

    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": usable_cores(),
        "numba_threads": numba.config.NUMBA_NUM_THREADS,  # type: ignore[attr-defined]
        "memory_gib": round(pages * page / 2**30, 1),
    }
