"""``mtd doctor``: what is installed, what this machine offers, and whether the engine works here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from typing import Any

import click

from ..terminal.console import emit, json_option

_PACKAGES = ("mtdcore", "numpy", "scipy", "numba", "zarr", "click", "matplotlib")
_OPTIONAL = {
    "torch": "torch",
    "cupy": "cuda12 or cuda13",
    "mrcfile": "em",
    "tifffile": "em",
    "imagecodecs": "em",
    "distributed": "dask",
}

#: In the place of the self-test of a device whose compute capability the kernels do not support.
_TOO_OLD = "not run: too old"


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Versions, devices and a small self-test of each: its backend against the reference definition.

    Exit code 69 if a self-test fails.
    """
    test, cuda = self_test(), cuda_devices()
    tests = [test] if isinstance(cuda, str) else [test, *(device["self_test"] for device in cuda.values())]
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
            "devices": {"cpu": {"self_test": test}, "cuda": cuda},
        },
        as_json,
    )
    ctx.exit(69 if any(not t["passed"] for t in tests if t != _TOO_OLD) else 0)


def versions() -> dict[str, str | None]:
    """Versions of the packages that every run uses."""
    return {name: _version(name) for name in _PACKAGES}


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


def cuda_devices() -> dict[str, Any] | str:
    """Every CUDA device with its memory, driver, compiler and self-test, or why there is none."""
    from mtdcore.errors import MtdError
    from mtdcore.estep.backends.cuda.backend import describe_devices

    try:
        found = describe_devices()
    except MtdError as problem:
        return f"not available: {problem}"
    return {
        f"cuda:{device.index}": {
            "name": device.name,
            "compute_capability": "{}.{}".format(*device.compute_capability),
            "memory_gib": round(device.memory / 2**30, 1),
            "driver": f"CUDA {device.driver // 1000}.{device.driver % 1000 // 10}",
            "nvrtc": "{}.{}".format(*device.nvrtc),
            "self_test": _tried(f"cuda:{device.index}") if device.usable else _TOO_OLD,
        }
        for device in found
    }


def _tried(name: str) -> dict[str, Any]:
    """The self-test of a device; whatever goes wrong there is a finding, not a crash."""
    try:
        return self_test(name)
    except Exception as problem:
        return {"passed": False, "error": f"{type(problem).__name__}: {problem}"}


def self_test(name: str = "cpu") -> dict[str, Any]:
    """One E-step of each likelihood on a small simulation, float64: a backend against the reference."""
    import numpy as np

    import mtdcore as mtd

    target = mtd.datasets.glyphs(1, box_size=8)[0].astype(np.float64)
    simulation = mtd.simulate(target, side=24, count=2, snr=1.0, separation=1, seed=0)
    likelihoods = (
        mtd.PatchLikelihood(box_size=8, rotations=2, noise_std=simulation.noise_std),
        mtd.WindowLikelihood(box_size=8, rotations=2, noise_std=simulation.noise_std, expected_count=2),
    )
    tested, defining = (mtd.get_backend(each, precision="float64") for each in (name, "reference"))
    started, worst = time.perf_counter(), 0.0
    for likelihood in likelihoods:
        found, expected = (
            engine.to_host(
                mtd.e_step(simulation.measurement, target, likelihood, backend=engine).backprojection
            )
            for engine in (tested, defining)
        )
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
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
