"""``mtd doctor``: what is installed, what this machine offers, and whether the engine works here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from typing import Any

import click

from .console import emit, json_option

_PACKAGES = ("mtdcore", "numpy", "scipy", "numba", "zarr", "click", "matplotlib")
_OPTIONAL = {
    "torch": "torch",
    "cupy": "cuda12 or cuda13",
    "mrcfile": "em",
    "tifffile": "em",
}


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Versions, devices and a small self-test: the cpu backend against the reference definition.

    Exit code 69 if the self-test fails.
    """
    test = self_test()
    emit(
        {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "packages": versions(),
            "optional": {
                name: _version(name) or f"not installed; pip install 'mtdcore[{extra}]'"
                for name, extra in _OPTIONAL.items()
            },
            "machine": machine(),
            "devices": devices(),
            "self_test": test,
        },
        as_json,
    )
    ctx.exit(0 if test["passed"] else 69)


def versions() -> dict[str, str | None]:
    """Versions of the packages that every run uses."""
    return {name: _version(name) for name in _PACKAGES}


def machine() -> dict[str, Any]:
    """Cores this process may use, threads of Numba, memory in GiB."""
    import numba

    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "numba_threads": numba.get_num_threads(),
        "memory_gib": round(pages * page / 2**30, 1),
    }


def devices() -> list[str]:
    """Names that ``--device`` accepts here."""
    from mtdcore.errors import MtdError

    found = ["cpu"]
    if importlib.util.find_spec("cupy") is not None:
        from mtdcore import get_backend

        try:
            found.append(get_backend("cuda").name)
        except MtdError as problem:
            found.append(f"cuda (unusable: {problem})")
    return found


def self_test() -> dict[str, Any]:
    """One E-step of each likelihood on a small simulation, float64: cpu against reference."""
    import numpy as np

    import mtdcore as mtd

    target = mtd.datasets.glyphs(1, box_size=8)[0].astype(np.float64)
    simulation = mtd.simulate(target, side=24, count=2, snr=1.0, separation=1, seed=0)
    likelihoods = (
        mtd.PatchLikelihood(box_size=8, rotations=2, noise_std=simulation.noise_std),
        mtd.WindowLikelihood(box_size=8, rotations=2, noise_std=simulation.noise_std, expected_count=2),
    )
    started, worst = time.perf_counter(), 0.0
    for likelihood in likelihoods:
        found, expected = (
            mtd.e_step(
                simulation.measurement, target, likelihood, backend=mtd.get_backend(name, precision="float64")
            )
            for name in ("cpu", "reference")
        )
        scale = float(np.abs(expected.backprojection).max())
        worst = max(worst, float(np.abs(found.backprojection - expected.backprojection).max()) / scale)
    return {"passed": worst < 1e-9, "relative_difference": worst, "seconds": time.perf_counter() - started}


def _version(name: str) -> str | None:
    """Installed version of a package; CuPy's distributions carry the CUDA version in their names."""
    names = ("cupy", "cupy-cuda12x", "cupy-cuda13x") if name == "cupy" else (name,)
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
