"""What the CUDA backend does beyond the contract of every backend: memory, chunks, precision, refusals."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtdcli.commands.doctor import _TIMED
from mtdcore.data.array import ArrayMeasurement
from mtdcore.errors import DeviceError, ParameterError
from mtdcore.estep.backends.cuda.backend import CudaBackend, _EStep
from mtdcore.estep.backends.cuda.models import fast_length
from mtdcore.estep.backends.cuda.paths import transforms as _cuda_paths
from mtdcore.estep.backends.reference import ReferenceBackend
from mtdcore.model.likelihood import PatchLikelihood, WindowLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.testing import Case, assert_same_statistics

_PATCH = Case("patch tied", 9, 2, margin=2, masked=True)
_WINDOW = Case("window overlapping", 6, 3, margin=1, masked=True)
_APART = replace(_WINDOW, amplitude_std=0.6)
_DIRECT, _SMALL = Case("patch", 4, 3, margin=1), Case("patch", 4, 3)


def _assert_right(backend: CudaBackend, case: Case) -> None:
    found = case.accumulate(backend, small_tiles=True)
    expected = case.accumulate(ReferenceBackend())
    assert_same_statistics(found, expected, 1e-5 if backend.precision == "float32" else 1e-11)


@pytest.mark.parametrize("case", [_PATCH, _WINDOW, _APART], ids=str)
def test_one_rotation_at_a_time(
    host_device: Any, precision: Any, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cuda_paths, "_CHUNK_BYTES", 1)
    _assert_right(CudaBackend(host_device, precision), case)


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        (_DIRECT, "patch_direct"),
        (_SMALL, "patch_small_4"),
        (_PATCH, "patch_posterior"),
        (_WINDOW, "window_weights"),
        (_APART, "amplitude_weights"),
    ],
    ids=str,
)
def test_the_path_follows_from_the_box(host_device: Any, case: Case, kernel: str) -> None:
    launched, compiled = [], host_device.kernel
    host_device.kernel = lambda name, precision: launched.append(name) or compiled(name, precision)
    _assert_right(CudaBackend(host_device), case)
    assert kernel in launched
    assert ("correlate_spectra" in launched) == (case.box_size > 8 or case in (_WINDOW, _APART))


def test_matrices_leave_copies_of_different_amplitude_to_the_transforms(host_device: Any) -> None:
    """Their rows know one amplitude: a path that ignored it would be quietly wrong."""
    launched, compiled = set(), host_device.kernel
    host_device.kernel = lambda name, precision: launched.add(name) or compiled(name, precision)
    case = Case("window", 6, 136, noise_std=6.0)
    case.accumulate(CudaBackend(host_device))
    assert "row_shares" in launched
    launched.clear()
    _assert_right(CudaBackend(host_device), replace(case, amplitude_std=0.6))
    assert "amplitude_weights" in launched
    assert "row_shares" not in launched


def test_many_rotations_of_a_small_box_take_the_transforms(host_device: Any) -> None:
    """Their posterior would not fit in shared memory."""
    launched, compiled = set(), host_device.kernel
    host_device.kernel = lambda name, precision: launched.add(name) or compiled(name, precision)
    Case("patch", 8, 40).accumulate(CudaBackend(host_device))
    assert "patch_posterior" in launched
    assert "patch_direct" not in launched


def test_a_strong_signal_is_scored_in_float64(host_device: Any) -> None:
    for noise_std, same in ((1e-3, True), (1.0, False)):
        case = replace(_PATCH, noise_std=noise_std)
        one, two = (case.accumulate(CudaBackend(host_device, p)) for p in ("float32", "float64"))  # type: ignore[arg-type]
        assert (one.log_likelihood == two.log_likelihood) == same


def test_arrays_of_another_library_and_wrong_shapes_are_refused(host_device: Any) -> None:
    backend, likelihood, templates = CudaBackend(host_device), _DIRECT.likelihood(), _DIRECT.templates()
    with pytest.raises(ParameterError, match="array of numpy"):
        backend.accumulate([], templates.tolist(), likelihood)
    with pytest.raises(ParameterError, match=r"shape \(3, 4, 4\)"):
        backend.accumulate([], templates[:2], likelihood)
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


@pytest.mark.parametrize(("case", "limit"), [(_PATCH, 8000), (_WINDOW, 15_000)], ids=str)
def test_a_full_device_halves_the_batch_and_says_so(
    host_device: Any, case: Case, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    host_device.xp = memory = _SmallMemory(limit)
    backend = CudaBackend(host_device)
    with caplog.at_level(logging.WARNING, "mtdcore.cuda"):
        _assert_right(backend, case)
        halvings = memory.failures
        assert halvings == host_device.released == len(caplog.records) > 0
        assert "batch halved from" in caplog.text
        _assert_right(backend, case)
    assert memory.failures == halvings  # the size that fits is remembered


def test_a_device_that_cannot_hold_one_item_is_an_error(host_device: Any) -> None:
    host_device.xp = _SmallMemory(1000)
    with pytest.raises(DeviceError, match="smaller tiles, fewer rotations"):
        _WINDOW.accumulate(CudaBackend(host_device))


def test_batches_are_bounded_by_free_memory(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, sums = [], _cuda_paths.SpectralPath.sums
    monkeypatch.setattr(
        _cuda_paths.SpectralPath, "sums", lambda path, items: sizes.append(len(items)) or sums(path, items)
    )
    _assert_right(CudaBackend(host_device), _PATCH)
    assert sizes == [4]
    host_device.memory = 1
    _assert_right(CudaBackend(host_device), _PATCH)
    assert sizes == [4, 1, 1, 1, 1]


def test_the_wanted_tile_is_a_power_of_two_that_suits_halo_and_card(host_device: Any) -> None:
    backend = CudaBackend(host_device)
    few, many = Case("window", 64, 4).likelihood(), Case("window", 64, 360).likelihood()
    host_device.memory = 140 << 30
    assert backend.tile_pixels(few) == backend.tile_pixels(many) == 1024
    assert backend.tile_pixels(Case("window", 12, 4).likelihood()) == 512
    assert backend.tile_pixels(Case("window", 64, 4, margin=3).likelihood()) == 1024 - 3
    assert backend.tile_pixels(Case("window", 128, 4).likelihood()) == 2048
    host_device.memory = 8 << 30
    assert backend.tile_pixels(many) == 512
    assert backend.tile_pixels(few) == 1024


def test_the_torus_is_a_power_of_two_where_one_is_near() -> None:
    assert [fast_length(n) for n in (3, 55, 63, 200, 390, 700, 790, 1000, 1024, 1400, 1600, 2049, 3100)] == [
        4, 56, 64, 200, 512, 700, 1024, 1024, 1024, 1400, 2048, 2100, 4096,
    ]  # fmt: skip


def test_a_worker_opens_the_device_once(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host_device.name = "cuda:77"
    opened: list[tuple[int, str]] = []
    monkeypatch.setattr(
        CudaBackend, "open", classmethod(lambda cls, index, precision: opened.append((index, precision)))
    )
    remake, arguments = CudaBackend(host_device, "float64").__reduce__()
    for _ in range(2):
        remake(*arguments)  # type: ignore[operator]
    assert opened == [(77, "float64")]


@pytest.mark.parametrize("name", list(_TIMED))
def test_mtd_doctor_times_the_ways_that_it_names(host_device: Any, name: str) -> None:
    model, box, count, side = _TIMED[name]
    host_device.memory, host_device.shared_bytes = 80 << 30, 227 << 10
    measurement = ArrayMeasurement(np.zeros((1, side, side), np.float32))
    views, way = Rotations(count, box), name.split()[-1]
    likelihood = PatchLikelihood(views, 1.0) if model == "patch" else WindowLikelihood(views, 1.0, 100.0)
    bound, backend = likelihood.bind(measurement.shape), CudaBackend(host_device)
    tile = next(measurement.tiles(bound.geometry.enlarged(backend.tile_pixels(bound))))
    step = _EStep(host_device, np.full((count, box, box), 1.0 / box), bound, "float32")
    assert step.key(tile)[1][1] == way
