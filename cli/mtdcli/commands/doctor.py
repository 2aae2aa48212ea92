"""``mtd doctor``: installed packages, devices of this machine, and a self-test of the engine on each."""

from __future__ import annotations

import platform
import time
from typing import Any

import click

from ..terminal.console import emit, json_option
from ..terminal.installation import machine, version_of, versions

_OPTIONAL = {
    "torch": "torch",
    "cupy": "cuda12 or cuda13",
    "mrcfile": "em",
    "tifffile": "em",
    "gemmi": "em",
    "imagecodecs": "em",
    "distributed": "dask",
}

#: Result for a device whose compute capability the kernels do not support.
_TOO_OLD = "not run: too old"

#: E-steps that are timed on a card, one for each kernel path (docs/gpu.md): likelihood, box, templates, side in pixels.
_TIMED: dict[str, tuple[str, int, int, int]] = {
    "patches in registers": ("patch", 5, 4, 2048),
    "patches in pairs": ("patch", 28, 4, 2048),
    "patches as matrices": ("patch", 28, 8, 2048),
    "windows in pairs": ("window", 28, 4, 2048),
    "windows as matrices": ("window", 28, 1024, 1024),
    "windows by transforms": ("window", 112, 4, 2048),
}


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Versions, devices and a small self-test of each: its backend against the reference definition.

    Of each card also how many poses (templates at pixels) an E-step scores in a second, for every way it may take; an H100
    does 1e10 and more. Exit code 69 if a self-test fails.
    """
    test, cuda = self_test(), cuda_devices()
    tests = [test] if isinstance(cuda, str) else [test, *(device["self_test"] for device in cuda.values())]
    emit(
        {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "packages": versions(),
            "optional": {
                name: version_of(name) or f"not installed; pip install 'mtdcore[{extra}]'"
                for name, extra in _OPTIONAL.items()
            },
            "machine": machine(),
            "devices": {"cpu": {"self_test": test}, "cuda": cuda},
        },
        as_json,
    )
    ctx.exit(69 if any(not t["passed"] for t in tests if t != _TOO_OLD) else 0)


def cuda_devices() -> dict[str, Any] | str:
    """Every CUDA device with its memory, driver, compiler and self-test; or the reason why there is none."""
    from mtdcore.errors import MtdError
    from mtdcore.estep.backends.cuda.backend import describe_devices

    try:
        found = describe_devices()
    except MtdError as problem:
        return f"not available: {problem}"
    return {f"cuda:{device.index}": _described(device) for device in found}


def _described(device: Any) -> dict[str, Any]:
    """One device, with its speeds if the self-test passes."""
    name = f"cuda:{device.index}"
    test = _tried(name) if device.usable else None
    facts: dict[str, Any] = {
        "name": device.name,
        "compute_capability": "{}.{}".format(*device.compute_capability),
        "memory_gib": round(device.memory / 2**30, 1),
        "driver": f"CUDA {device.driver // 1000}.{device.driver % 1000 // 10}",
        "nvrtc": "{}.{}".format(*device.nvrtc),
        "self_test": test or _TOO_OLD,
    }
    if test is not None and test["passed"]:
        facts["pixel_poses_per_second"] = speeds(name)
    return facts


def _tried(name: str) -> dict[str, Any]:
    """The self-test of a device; an exception is reported as a failed test."""
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
        mtd.PatchLikelihood(views=mtd.Rotations(2, 8), noise_std=simulation.noise_std),
        mtd.WindowLikelihood(views=mtd.Rotations(2, 8), noise_std=simulation.noise_std, expected_count=2),
    )
    tested, defining = (mtd.get_backend(each, precision="float64") for each in (name, "reference"))
    started, worst = time.perf_counter(), 0.0
    for likelihood in likelihoods:
        found, expected = (
            engine.to_host(mtd.e_step(simulation.measurement, target, likelihood, backend=engine).right)
            for engine in (tested, defining)
        )
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return {"passed": worst < 1e-9, "relative_difference": worst, "seconds": time.perf_counter() - started}


def speeds(name: str) -> dict[str, float]:
    """Pixel-poses per second of an E-step on noise, the best of three, for each kernel path."""
    import numpy as np

    import mtdcore as mtd

    engine, found = mtd.get_backend(name), {}
    for way, (model, box_size, templates, side) in _TIMED.items():
        noise = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
        measurement = mtd.open_measurement(noise)
        views = mtd.Rotations(templates, box_size)
        likelihood = (
            mtd.PatchLikelihood(views=views, noise_std=1.0)
            if model == "patch"
            else mtd.WindowLikelihood(views=views, noise_std=1.0, expected_count=100.0)
        )
        target = np.full((box_size, box_size), 1.0 / box_size)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            mtd.e_step(measurement, target, likelihood, backend=engine)
            engine.synchronize()
            seconds.append(time.perf_counter() - started)
        found[way] = float(f"{side**2 * templates / min(seconds):.3g}")
    return found
