"""The GPU benchmark measures what it says: run on the host build, tiny."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mtdcore import get_backend
from mtdcore.data.array import ArrayMeasurement
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.model.rotations import Rotations


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[3] / "bench" / "speed" / "gpu.py"
    spec = importlib.util.spec_from_file_location("bench_gpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_gpu"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "side", "kernels"),
    [
        ("patch-5-4", 40, {"patch_small_5"}),
        ("patch-28-4", 84, {"patch_fused_64_2"}),
        (
            "window-28-4",
            90,
            {
                "correlate_spectra",
                "irfft2",
                "window_odds",
                "slide_log_sum",
                "window_normaliser",
                "window_weights",
                "rfft2",
                "backproject_spectra",
            },
        ),
    ],
)
def test_rows(host_device: Any, bench: ModuleType, name: str, side: int, kernels: set[str]) -> None:
    backend = CudaBackend(host_device)
    found = bench.row(backend, replace(bench.CASES[name], side=side), repeats=1, bandwidth=1e9)
    assert set(found["kernels"]) == kernels
    assert all(k["bytes"] > 0 and k["seconds"] > 0 for k in found["kernels"].values())
    expected = side**2 * 4 if found["unit"] == "pixel-poses" else (side // int(name.split("-")[1])) ** 2 * 4
    assert math.isclose(found["units_per_second"] * found["resident_seconds"], expected)
    assert ("ratio_to_transforms" in found) == name.startswith("window")
    assert found["times_faster_than_numpy"] > 0


def test_a_row_of_many_templates(host_device: Any, bench: ModuleType) -> None:
    case = replace(bench._window(6, 136, 24), name="tiny")
    found = bench.row(CudaBackend(host_device), case, repeats=1, bandwidth=1e9)
    assert found["path"] == "MatrixPath"
    assert {"products", "sums", "cut_windows", "row_log_sums", "row_shares"} < set(found["kernels"])
    assert found["times_faster_than_transforms"] > 0


def test_the_simple_patch_step_computes_the_same(host_device: Any, bench: ModuleType) -> None:
    likelihood = bench.CASES["patch-5-4"].likelihood
    rng = np.random.default_rng(0)
    patches, templates = rng.normal(size=(7, 5, 5)), rng.normal(size=(4, 5, 5))
    step = bench._EStep(host_device, templates, likelihood, "float64")
    priors = step.model.log_shown, step.model.log_empty
    spectra, _ = bench.simple_patch_step(patches, *bench.scaled(templates, 1.0), *priors)
    path = step.path(
        "float64", bench.ArrayMeasurement(np.zeros((1, 5, 5))).tiles(likelihood.geometry).__next__()
    )
    frames = path.sums(bench.Items(patches)).frames[0]
    np.testing.assert_allclose(np.fft.irfft2(spectra, s=(10, 10))[:, :5, :5], frames, atol=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_simple_window_step_computes_the_same(bench: ModuleType, library: str) -> None:
    xp = pytest.importorskip(library)
    rng = np.random.default_rng(0)
    image, target = rng.normal(size=(50, 61)), rng.normal(size=(6, 6))
    likelihood = bench.WindowLikelihood(Rotations(4, 6), 1.0, 20.0, 4).bind((1, *image.shape))
    templates = bench.Rotations(4, 6).apply(target)
    found = bench.simple_window_step(
        *(xp.asarray(np.ascontiguousarray(a)) for a in (image, templates)), likelihood
    )
    tiles = ArrayMeasurement(image).tiles(likelihood.geometry)
    expected = get_backend("cpu", "float64").accumulate(tiles, templates, likelihood).backprojection
    np.testing.assert_allclose(np.stack([np.asarray(a) for a in found]), expected, atol=1e-10)
