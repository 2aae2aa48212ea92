"""The whole backend class equals the reference: on the host build always, on a device with ``-m gpu``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mtdcore.likelihood.patch
import mtdcore.likelihood.window
from mtdcore.backends import _cuda_paths
from mtdcore.backends.cuda import CudaBackend
from mtdcore.backends.reference import ReferenceBackend
from mtdcore.errors import DeviceError, ParameterError
from mtdcore.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from mtdcore.measurement import open_measurement
from mtdcore.rotation import RotationSet

_LIKELIHOODS = {
    "patch": PatchLikelihood(4, 4, 0.8),
    "patch, one pixel": PatchLikelihood(1, 1, 1.0),
    "patch, tied, odd, margin": PatchLikelihood(5, 3, 0.8, empty_probability=0.7, margin=2),
    "patch, transforms": PatchLikelihood(9, 2, 1.0),
    "patch, transforms, margin": PatchLikelihood(10, 1, 1.0, empty_probability=0.2, margin=5),
    "window": WindowLikelihood(5, 4, 0.8, expected_count=3),
    "window, close, margin": WindowLikelihood(6, 2, 0.8, expected_count=5, min_separation=2, margin=3),
    "window, one rotation, far": WindowLikelihood(4, 1, 0.8, expected_count=2, min_separation=9),
}
_MEASUREMENTS = {
    "one": (1, 20, 22),
    "several, one pixel invalid or more": (2, 25, 21),
}


class _Case:
    """One measurement under one likelihood."""

    def __init__(self, likelihood: Likelihood, shape: tuple[int, int, int]) -> None:
        rng = np.random.default_rng(likelihood.box_size)
        values = rng.normal(size=shape)
        if shape[0] > 1:
            values[0, 3:6, 7:12] = values[1, 0, 0] = np.nan
        self.measurement = open_measurement(values)
        self.likelihood = likelihood.bind(self.measurement.shape)
        target = rng.normal(size=(likelihood.box_size, likelihood.box_size))
        self.turned = RotationSet(likelihood.rotations, likelihood.box_size).apply(target)

    @property
    def tiles(self) -> Any:
        return self.measurement.tiles(self.likelihood.geometry)

    def statistics(self, backend: Any) -> Any:
        return backend.accumulate(self.tiles, backend.asarray(self.turned), self.likelihood)


_EXPECTED: dict[tuple[str, str], tuple[_Case, Any, np.ndarray]] = {}


def _expected(model: str, measurement: str) -> tuple[_Case, Any, np.ndarray]:
    """The case, its statistics and the posterior of its first tile by the reference, computed once."""
    if (model, measurement) not in _EXPECTED:
        case, reference = _Case(_LIKELIHOODS[model], _MEASUREMENTS[measurement]), ReferenceBackend()
        posterior = reference.posterior(next(iter(case.tiles)), case.turned, case.likelihood)
        _EXPECTED[model, measurement] = case, case.statistics(reference), posterior
    return _EXPECTED[model, measurement]


@pytest.fixture(params=["host", pytest.param("device", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest, precision: str) -> CudaBackend:
    if request.param == "host":
        return CudaBackend(request.getfixturevalue("host_device"), precision)  # type: ignore[arg-type]
    try:
        return CudaBackend.open(None, precision)  # type: ignore[arg-type]
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, with halos, in a micrograph of 20 pixels."""
    monkeypatch.setattr(mtdcore.likelihood.patch, "_TILE_PIXELS", 12)
    monkeypatch.setattr(mtdcore.likelihood.window, "_TILE_PIXELS", 16)


def _assert_equal(found: Any, expected: Any, backend: CudaBackend) -> None:
    tolerance = 1e-5 if backend.precision == "float32" else 1e-11
    for field in dataclasses.fields(expected):
        value, truth = (getattr(s, field.name) for s in (found, expected))
        if field.name in ("backprojection", "coverage"):
            assert isinstance(value, backend.xp.ndarray)
            value = backend.to_host(value)
            assert value.dtype == np.float64
        scale = np.abs(truth).max()
        np.testing.assert_allclose(value, truth, rtol=tolerance, atol=tolerance * scale, err_msg=field.name)


@pytest.mark.parametrize("measurement", _MEASUREMENTS)
@pytest.mark.parametrize("model", _LIKELIHOODS)
def test_equals_the_reference(backend: CudaBackend, model: str, measurement: str) -> None:
    case, expected, posterior = _expected(model, measurement)
    _assert_equal(case.statistics(backend), expected, backend)
    first = next(iter(case.tiles))
    found = backend.posterior(first, backend.asarray(case.turned), case.likelihood)
    np.testing.assert_allclose(found, posterior, atol=1e-5 if backend.precision == "float32" else 1e-12)


def test_the_cases_have_several_tiles_per_micrograph() -> None:
    counts = {
        name: _Case(likelihood, (1, 20, 22)).likelihood.geometry.count((20, 22))
        for name, likelihood in _LIKELIHOODS.items()
    }
    assert (
        min(counts["patch"], counts["patch, transforms"], counts["window"], counts["window, close, margin"])
        > 1
    )


@pytest.mark.parametrize("model", ["patch", "patch, transforms", "window"])
def test_no_tile_gives_zeros(backend: CudaBackend, model: str) -> None:
    case = _Case(_LIKELIHOODS[model], (1, 20, 22))
    found = backend.accumulate([], backend.asarray(case.turned), case.likelihood)
    assert found.sites == found.pixels == found.log_likelihood == found.energy == 0
    assert float(abs(found.backprojection).sum() + abs(found.coverage).sum()) == 0
    _assert_equal(found + case.statistics(backend), case.statistics(ReferenceBackend()), backend)


@pytest.mark.parametrize("model", ["patch, transforms", "window"])
def test_rotations_in_several_chunks(
    backend: CudaBackend, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, expected, _ = _expected(model, "one")
    monkeypatch.setattr(_cuda_paths, "_CHUNK_BYTES", 1)
    _assert_equal(case.statistics(backend), expected, backend)


def test_a_strong_signal_is_scored_in_float64(host_device: Any) -> None:
    backend, case = CudaBackend(host_device, "float32"), _Case(_LIKELIHOODS["patch, transforms"], (1, 20, 22))
    case.likelihood = case.likelihood.with_noise_std(1e-3)
    wide = CudaBackend(host_device, "float64")
    assert case.statistics(backend).log_likelihood == case.statistics(wide).log_likelihood
    case.likelihood = case.likelihood.with_noise_std(1.0)
    assert case.statistics(backend).log_likelihood != case.statistics(wide).log_likelihood


def test_arrays_of_another_library_and_wrong_shapes_are_refused(host_device: Any) -> None:
    backend, case = CudaBackend(host_device), _Case(_LIKELIHOODS["patch"], (1, 20, 22))
    with pytest.raises(ParameterError, match="array of numpy"):
        backend.accumulate(case.tiles, case.turned.tolist(), case.likelihood)
    with pytest.raises(ParameterError, match=r"shape \(4, 4, 4\)"):
        backend.accumulate(case.tiles, case.turned[:3], case.likelihood)
    with pytest.raises(ParameterError, match="precision"):
        CudaBackend(host_device, "float16")  # type: ignore[arg-type]


class _SmallMemory:
    """NumPy whose ``empty`` fails beyond a number of bytes, as a full device does; uploads (bytes) are spared."""

    def __init__(self, limit: int) -> None:
        self.limit, self.failures = limit, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        if dtype != np.uint8 and np.prod(shape) * np.dtype(dtype).itemsize > self.limit:
            self.failures += 1
            raise MemoryError(f"no room for {shape}")
        return np.empty(shape, dtype)


@pytest.mark.parametrize(("model", "limit"), [("patch, transforms", 8000), ("window", 20_000)])
def test_a_full_device_halves_the_batch_and_says_so(
    host_device: Any, model: str, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    case, expected, _ = _expected(model, "several, one pixel invalid or more")
    host_device.xp = memory = _SmallMemory(limit)
    backend = CudaBackend(host_device, "float32")
    with caplog.at_level(logging.WARNING, "mtdcore.cuda"):
        found = case.statistics(backend)
        halvings = memory.failures
        assert halvings == host_device.released == len(caplog.records) > 0
        assert "batch halved from" in caplog.text
        case.statistics(backend)
    assert memory.failures == halvings  # the size that fits is remembered
    backend.xp = np
    _assert_equal(found, expected, backend)


def test_a_device_that_cannot_hold_one_item_is_an_error(host_device: Any) -> None:
    case = _Case(_LIKELIHOODS["window"], (1, 20, 22))
    host_device.xp = _SmallMemory(1000)
    with pytest.raises(DeviceError, match="smaller tiles, fewer rotations"):
        case.statistics(CudaBackend(host_device))


def test_batches_are_bounded_by_free_memory(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case, expected, _ = _expected("patch, transforms", "one")
    sizes: list[int] = []
    sums: Callable[..., Any] = _cuda_paths.SpectralPath.sums
    monkeypatch.setattr(
        _cuda_paths.SpectralPath, "sums", lambda path, items: sizes.append(len(items)) or sums(path, items)
    )
    host_device.memory = 1
    backend = CudaBackend(host_device)
    _assert_equal(case.statistics(backend), expected, backend)
    assert sizes == [1, 1, 1, 1]


def test_the_name_finds_the_backend_again(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    again = SimpleNamespace(opened=[])
    monkeypatch.setattr(
        CudaBackend,
        "open",
        classmethod(lambda cls, index, precision: again.opened.append((index, precision))),
    )
    remake, arguments = CudaBackend(host_device, "float64").__reduce__()
    remake(*arguments)
    remake(*arguments)
    assert again.opened == [(0, "float64")]  # once per process
