"""Finding a device, and saying clearly why there is none. CuPy is played by a stand-in."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mtdcore.errors import DependencyError, DeviceError, ParameterError
from mtdcore.estep.backends.cuda import backend as cuda
from mtdcore.estep.backends.cuda import workers as _cuda_workers
from mtdcore.estep.backends.cuda.backend import (
    CudaBackend,
    choose_device,
    describe_devices,
    device_executor,
)


class _RuntimeError(RuntimeError):
    pass


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(name, major, minor) of the devices that a stand-in for CuPy sees; a test fills it."""
    found: list[tuple[str, int, int]] = []

    def properties(index: int) -> dict[str, Any]:
        name, major, minor = found[index]
        return {"name": name.encode(), "major": major, "minor": minor, "totalGlobalMem": 8 << 30}

    cupy: Any = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(
        runtime=SimpleNamespace(
            CUDARuntimeError=_RuntimeError,
            getDeviceCount=lambda: len(found),
            getDeviceProperties=properties,
            driverGetVersion=lambda: 13020,
        ),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 5)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return found


def test_without_cupy_the_error_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for attempt in (describe_devices, choose_device, CudaBackend.open, device_executor):
        with pytest.raises(DependencyError, match=r"mtdcore\[cuda12\].*mtdcore\[cuda13\]"):
            attempt()


def test_without_a_driver(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise _RuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", fail)  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match=r"NVIDIA driver.*InsufficientDriver"):
        CudaBackend.open(0)


def test_without_a_device(cards: Any) -> None:
    with pytest.raises(DeviceError, match="sees none"):
        CudaBackend.open()


def test_devices_that_are_too_old_or_not_there(cards: Any) -> None:
    cards.append(("Old card", 7, 0))
    with pytest.raises(DeviceError, match=r"7\.5 or newer; cuda:0 \(Old card\) has 7\.0"):
        CudaBackend.open()
    with pytest.raises(DeviceError, match=r"7\.5 or newer"):
        CudaBackend.open(0)
    with pytest.raises(DeviceError, match="should be 0 to 0 on this machine; got 3"):
        CudaBackend.open(3)


def test_the_first_usable_device_is_taken_and_logged(cards: Any, caplog: pytest.LogCaptureFixture) -> None:
    cards += [("Old card", 6, 1), ("Turing card", 7, 5), ("Hopper card", 9, 0)]
    assert [d.usable for d in describe_devices()] == [False, True, True]
    with caplog.at_level(logging.INFO, "mtdcore.cuda"):
        assert choose_device().index == 1
    assert (
        "took cuda:1 (Turing card, compute capability 7.5, 8 GiB): the first usable of 3 devices"
        in caplog.text
    )


def test_one_worker_per_device(cards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cards += [("Old card", 6, 1), ("Turing card", 7, 5), ("Hopper card", 9, 0)]
    with device_executor() as workers:
        assert workers._max_workers == 2
    for indices in ([], [1, 1]):
        with pytest.raises(ParameterError, match="distinct"):
            device_executor(indices)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    assert [_cuda_workers._visible_name(i) for i in (0, 1)] == ["4", "GPU-7"]
    monkeypatch.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": ""})
    assert not _cuda_workers.sees_one_device()
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    _cuda_workers._see_one_device(SimpleNamespace(get=lambda: "3"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert handlers == {signal.SIGINT: signal.SIG_IGN}
    assert _cuda_workers.sees_one_device()


@pytest.mark.parametrize(("own", "expected"), [(False, 2), (True, 0)])
def test_a_backend_that_travels_opens_the_device_of_its_worker(
    monkeypatch: pytest.MonkeyPatch, own: bool, expected: int
) -> None:
    monkeypatch.setattr(cuda, "sees_one_device", lambda: own)
    monkeypatch.setattr(cuda, "CupyDevice", lambda index: SimpleNamespace(name=f"cuda:{index}", xp=None))
    backend = CudaBackend(cuda.CupyDevice(2))
    assert pickle.loads(pickle.dumps(backend)).name == f"cuda:{expected}"
    cuda._opened.cache_clear()
