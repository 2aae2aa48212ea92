"""Whole runs on other array libraries than NumPy: the strictest one, and torch, find what NumPy finds."""

from functools import cache, partial

import array_api_strict
import numpy as np
import pytest

from mtdcore import GaussianPrior, Micrographs, WindowLikelihood, e_step, recover, simulate
from mtdcore.estep import local
from mtdcore.estep.backends import get_backend
from mtdcore.estep.backends.array.backend import ArrayBackend
from mtdcore.model.rotations import Rotations
from mtdcore.testing import assert_same_statistics

HOST = ArrayBackend(precision="float64")
TRANSFER = np.stack([np.ones(9), np.linspace(0.5, 1.0, 9)])
RUNS = {
    "patches": {"likelihood": "patch", "rotations": 4},
    "windows, a prior, exact rotations": {"rotations": 4, "prior": GaussianPrior(0.5)},
    "interpolated rotations": {"rotations": 3},
    "classes": {"rotations": 4, "classes": 2},
    "micrographs with a transfer": {
        "rotations": 4,
        "micrographs": Micrographs(np.ones(2), transfer=TRANSFER),
    },
    "local search": {"rotations": 24, "coarse_rotations": 8, "prior": GaussianPrior(0.5)},
}


@pytest.fixture(params=["array_api_strict", "torch"])
def backend(request):
    if request.param == "torch":
        pytest.importorskip("torch")
        return get_backend("torch", "float64")
    return ArrayBackend(array_api_strict, "float64")


@pytest.fixture(scope="module")
def made():
    """Two micrographs of a lopsided target."""
    target = np.random.default_rng(0).uniform(size=(8, 8)) + np.linspace(0, 2, 8)[:, None]
    return simulate(target, shape=(64, 80), count=12, snr=4.0, separation=1, micrographs=2, dtype="float64")


@pytest.fixture(scope="module")
def run(made):
    """A short run by its name, each only once on NumPy."""

    def on(backend, name):
        common = {"box_size": 8, "noise_std": made.noise_std, "iterations": 3, "seed": 1}
        return recover(made.measurement, backend=backend, **common, **RUNS[name])

    of_numpy = cache(lambda name: on(HOST, name))
    return lambda backend, name: (on(backend, name), of_numpy(name))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_finds_what_numpy_finds(backend, run, name):
    ours, host = run(backend, name)
    assert isinstance(ours.target, np.ndarray)
    np.testing.assert_allclose(ours.target, host.target, rtol=0, atol=1e-8 * np.abs(host.target).max())
    assert ours.expected_count == pytest.approx(host.expected_count, rel=1e-8)


def test_local_search_stays_in_the_library(backend, made, monkeypatch):
    """Of sharp tiles, which are not left to the inner backend."""
    searched = []

    sparse = simulate(made.target, side=120, count=5, snr=20.0, rotations=24, dtype="float64")
    likelihood = WindowLikelihood(Rotations(24, 8), sparse.noise_std, 5.0)
    monkeypatch.setattr(local, "local_sums", partial(_counted, searched, local.local_sums))
    ours, host = (
        e_step(sparse.measurement, sparse.target, likelihood, b, coarse=12).moved(b.to_host)
        for b in (backend, HOST)
    )
    assert len(searched) == 2
    assert_same_statistics(ours, host, 1e-9)


def _counted(seen, function, *arguments):
    seen.append(1)
    return function(*arguments)
