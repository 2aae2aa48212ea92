"""The CUDA backend without a GPU: the kernels compiled as C++ (cuda_shim.h), NumPy in the place of CuPy."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtdcore.errors import DependencyError, DeviceError
from mtdcore.estep.backends.cuda import kernels as _cuda_kernels
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.backends.cuda.device import Event
from mtdcore.estep.backends.cuda.kernels import Kernels

_HERE = Path(__file__).parent

sys.path.insert(0, str(_HERE.parent))
import cupy_like  # noqa: E402

_REAL = {"float32": "float", "float64": "double"}


class Shim:
    """The kernels of one precision as host code, called like ``cupy.RawKernel``.

    Attributes:
        order: 0 runs threads and blocks in ascending order, 1 descending, anything else is the seed of a shuffle.
    """

    def __init__(self, library: Path) -> None:
        self._launch = ctypes.CDLL(str(library)).shim_launch
        self._launch.restype = ctypes.c_char_p
        self.order = 0

    def function(self, name: str) -> Callable[..., None]:
        """The kernel of this name."""

        def run(
            grid: tuple[int, int, int],
            block: tuple[int, int, int],
            arguments: tuple[Any, ...],
            shared_mem: int = 0,
        ) -> None:
            raw = [getattr(a, "raw", a) for a in arguments]  # of the arrays of cupy_like
            values = [np.uintp(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in raw]
            boxes = [np.array([v]) for v in values]
            pointers = (ctypes.c_void_p * len(boxes))(*(b.ctypes.data for b in boxes))
            error = self._launch(
                name.encode(),
                (ctypes.c_uint * 3)(*grid),
                ctypes.c_uint(block[0]),
                ctypes.c_size_t(shared_mem),
                pointers,
                ctypes.c_size_t(len(boxes)),
                ctypes.c_uint(self.order),
            )
            if error is not None:
                raise RuntimeError(error.decode())

        return run


class _Copy:
    """An upload that happens only when somebody waits for it: a buffer overwritten too early shows."""

    def __init__(self, host: np.ndarray, out: np.ndarray) -> None:
        self._work: tuple[np.ndarray, np.ndarray] | None = (host, out)

    def synchronize(self) -> None:
        if self._work is not None:
            host, out = self._work
            out[...] = host
            self._work = None


class HostDevice:
    """NumPy and the host kernels behind the :class:`mtdcore.estep.backends.cuda.device.Device` protocol."""

    name = "cuda:0"
    blocks = 6
    shared_bytes = 227 << 10

    def __init__(self, shims: dict[str, Shim], xp: Any = np, memory: int = 1 << 30) -> None:
        self.shims, self.xp, self.memory = shims, xp, memory
        self.released = 0

    def active(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def kernel(self, name: str, precision: str) -> Callable[..., None]:
        return self.shims[precision].function(name)

    def rfft2(self, values: np.ndarray, out: np.ndarray) -> None:
        values, out = (getattr(a, "raw", a) for a in (values, out))
        assert values.flags.c_contiguous
        assert out.shape == (*values.shape[:2], values.shape[2] // 2 + 1)
        out[...] = np.fft.rfft2(values)

    def irfft2(self, spectra: np.ndarray, out: np.ndarray) -> None:
        spectra, out = (getattr(a, "raw", a) for a in (spectra, out))
        assert spectra.shape == (*out.shape[:2], out.shape[2] // 2 + 1)
        out[...] = np.fft.irfft2(spectra, s=out.shape[1:], norm="forward")
        spectra[...] = np.nan  # cuFFT may leave anything here

    def products(self, x: Any, y: Any, out: Any) -> None:
        x, y, out = (getattr(a, "raw", a) for a in (x, y, out))
        assert x.dtype == y.dtype == np.float16
        assert all(a.shape[1] % 8 == 0 for a in (x, y, out))
        out[...] = x.astype(np.float32) @ y.astype(np.float32).T

    def sums(self, x: Any, y: Any, out: Any) -> None:
        x, y, out = (getattr(a, "raw", a) for a in (x, y, out))
        assert x.dtype == y.dtype == np.float16
        assert all(a.shape[1] % 8 == 0 for a in (x, y, out))
        out[...] = x.astype(np.float32).T @ y.astype(np.float32)

    def pinned(self, size: int) -> np.ndarray:
        return np.full(size, 0xFF, np.uint8)

    def upload(self, host: np.ndarray, out: np.ndarray, after: Event | None) -> Event:
        return _Copy(host, getattr(out, "raw", out))

    def wait(self, event: Event) -> None:
        event.synchronize()

    def record(self) -> Event:
        return _Copy(np.empty(0), np.empty(0))

    def total_bytes(self) -> int:
        return self.memory

    def free_bytes(self) -> int:
        return self.memory

    def release(self) -> None:
        self.released += 1

    def synchronize(self) -> None:
        pass


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Shim]]:
    """Compiles kernel sources as host libraries, side by side: one Shim per (source, precision)."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: the host build of the CUDA kernels is not tested here")
    folder = tmp_path_factory.mktemp("cuda_shim")

    def compile_all(*wanted: tuple[Path, str]) -> list[Shim]:
        builds = []
        for source, precision in wanted:
            out = folder / f"{source.stem}_{precision}.so"
            command = [compiler, "-O1", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
            command += [
                "-shared",
                "-fPIC",
                "-DHOST_SHIM",
                f"-DREAL={_REAL[precision]}",
                f'-DKERNELS="{source}"',
            ]
            command += [f"-I{_HERE}", str(_HERE / "shim.cpp"), "-o", str(out)]
            builds.append((out, subprocess.Popen(command)))
        assert all(process.wait() == 0 for _, process in builds)
        return [Shim(out) for out, _ in builds]

    return compile_all


@pytest.fixture(scope="session")
def shims(build: Callable[..., list[Shim]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shim]:
    """The kernels on the host, by precision."""
    kernels = tmp_path_factory.mktemp("kernels") / "kernels.cu"
    kernels.write_text(_cuda_kernels.source(), encoding="utf-8")
    return dict(zip(_REAL, build(*((kernels, precision) for precision in _REAL)), strict=True))


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[0, 1, 7], ids=["ascending", "descending", "shuffled"])
def kernels(request: pytest.FixtureRequest, shims: dict[str, Shim], precision: str) -> Kernels:
    """Host kernels whose threads run in different orders."""
    shims[precision].order = request.param
    return Kernels(np, shims[precision].function, precision, blocks=6)


@pytest.fixture
def host_device(shims: dict[str, Shim]) -> HostDevice:
    for shim in shims.values():
        shim.order = 0
    return HostDevice(shims)


@pytest.fixture(params=["like CuPy", pytest.param("device", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> CudaBackend:
    """In float64: on an array library that refuses what CuPy refuses, and on the device."""
    if request.param == "device":
        try:
            return CudaBackend.open(None, "float64")
        except (DependencyError, DeviceError) as error:
            pytest.skip(str(error))
    device = request.getfixturevalue("host_device")
    device.xp = cupy_like
    return CudaBackend(device, "float64")
