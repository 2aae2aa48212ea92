"""All uses of CuPy: the device, its transforms, streams, memory and compiler. CuPy is imported lazily."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...._base.typing import Array
from ....errors import DependencyError, DeviceError
from . import kernels as _cuda_kernels

_LOG = logging.getLogger("mtdcore.cuda")

#: Lowest compute capability for which the kernels are compiled.
OLDEST = (7, 5)

#: CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F and CUBLAS_GEMM_DEFAULT of the CUDA headers.
_HALF, _FLOAT, _SUMMED_IN_FLOAT, _ANY_ALGORITHM = 2, 0, 68, -1


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Wait on the host until the stream has passed it."""
        ...


class Device(Protocol):
    """The interface of a device; in the tests the host takes its place.

    Attributes:
        name: "cuda:<index>".
        xp: array library.
        blocks: blocks of 256 threads that fill the device.
        shared_bytes: largest shared memory of a block, on request.

    A failed allocation raises MemoryError.
    """

    name: str
    xp: Array
    blocks: int
    shared_bytes: int

    def active(self) -> AbstractContextManager[Any]:
        """Makes this the current device."""
        ...

    def kernel(self, name: str, precision: str) -> Callable[..., None]:
        """A compiled kernel, called like ``cupy.RawKernel``."""
        ...

    def rfft2(self, values: Array, out: Array) -> None:
        """Unnormalised transforms of (batch, N1, N2) real into (batch, N1, N2 / 2 + 1) complex."""
        ...

    def irfft2(self, spectra: Array, out: Array) -> None:
        """Inverse of :meth:`rfft2`, unnormalised; may overwrite ``spectra``."""
        ...

    def products(self, x: Array, y: Array, out: Array) -> None:
        """``out = x y^T``: (n, p) and (t, p) float16 into (n, t) float32, summed in float32; p, t multiples of 8.

        Each may be a range of columns of a wider matrix that starts at a multiple of 8.
        """
        ...

    def sums(self, x: Array, y: Array, out: Array) -> None:
        """``out = x^T y``: (n, t) and (n, p) float16 into (t, p) float32; otherwise like :meth:`products`."""
        ...

    def pinned(self, size: int) -> np.ndarray:
        """Page-locked bytes on the host."""
        ...

    def upload(self, host: np.ndarray, out: Array, after: Event | None) -> Event:
        """Copy bytes concurrently with the computation, once ``after`` has passed; returns the end of the copy."""
        ...

    def wait(self, event: Event) -> None:
        """Hold the computation until ``event``."""
        ...

    def record(self) -> Event:
        """The end of the computation so far."""
        ...

    def total_bytes(self) -> int:
        """Memory of the card."""
        ...

    def free_bytes(self) -> int:
        """Memory that allocations can still get."""
        ...

    def release(self) -> None:
        """Hand cached memory back to the device."""
        ...

    def synchronize(self) -> None:
        """Wait for the computation."""
        ...


@dataclass(frozen=True)
class DeviceInfo:
    """One CUDA device, and the software that drives it.

    Attributes:
        index: N of "cuda:N".
        name: of the product.
        compute_capability: (major, minor).
        memory: bytes on the card.
        driver: newest CUDA version the driver supports, 1000 * major + 10 * minor.
        nvrtc: (major, minor) version of the compiler that builds the kernels.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory: int
    driver: int
    nvrtc: tuple[int, int]

    @property
    def usable(self) -> bool:
        """Whether the kernels run on it."""
        return self.compute_capability >= OLDEST


def import_cupy() -> Array:
    """The CuPy module.

    Raises:
        DependencyError: it is not installed, or cannot be loaded.
    """
    try:
        import cupy
    except ImportError as error:
        raise DependencyError(
            "the CUDA backend needs CuPy, which could not be imported "
            f"({error}): pip install 'mtdcore[cuda12]' or 'mtdcore[cuda13]', to match your driver, or use the cpu backend."
        ) from error
    return cupy


def describe_devices() -> list[DeviceInfo]:
    """The CUDA devices of this machine, in the order of their index.

    Raises:
        DependencyError: CuPy is not installed.
        DeviceError: there is no driver, or no device.
    """
    cupy = import_cupy()
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"the CUDA backend needs an NVIDIA driver and a device; the driver says: {error}: use the cpu backend."
        ) from error
    if count == 0:
        raise DeviceError(
            "the CUDA backend needs an NVIDIA device; the driver sees none: use the cpu backend."
        )
    return [_describe(cupy, index) for index in range(count)]


def _describe(cupy: Array, index: int) -> DeviceInfo:
    """Describe a device without a context, which would take memory on it."""
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    return DeviceInfo(
        index=index,
        name=properties["name"].decode(),
        compute_capability=(properties["major"], properties["minor"]),
        memory=properties["totalGlobalMem"],
        driver=cupy.cuda.runtime.driverGetVersion(),
        nvrtc=cupy.cuda.nvrtc.getVersion(),
    )


def choose_device() -> DeviceInfo:
    """The first usable device; the choice and its reason are logged to "mtdcore.cuda".

    Raises:
        DependencyError, DeviceError: there is none.
    """
    devices = describe_devices()
    for device in devices:
        if device.usable:
            major, minor = device.compute_capability
            _LOG.info(
                "took cuda:%d (%s, compute capability %d.%d, %.0f GiB): the first usable of %d devices",
                device.index,
                device.name,
                major,
                minor,
                device.memory / 2**30,
                len(devices),
            )
            return device
    raise DeviceError(_too_old(devices[0]))


def _too_old(device: DeviceInfo) -> str:
    major, minor = device.compute_capability
    return (
        f"the CUDA backend needs compute capability {OLDEST[0]}.{OLDEST[1]} or newer; cuda:{device.index} ({device.name}) has "
        f"{major}.{minor}: use the cpu backend."
    )


class CupyDevice:
    """One CUDA device through CuPy; see :class:`Device`.

    Raises:
        DependencyError: CuPy is not installed.
        DeviceError: there is no driver, no such device, or it is too old.
    """

    def __init__(self, index: int) -> None:
        devices = describe_devices()
        if not 0 <= index < len(devices):
            raise DeviceError(
                f"the device index should be 0 to {len(devices) - 1} on this machine; got {index}."
            )
        if not devices[index].usable:
            raise DeviceError(_too_old(devices[index]))
        self._cupy = import_cupy()
        self._device = self._cupy.cuda.Device(index)
        self.name, self.xp = f"cuda:{index}", self._cupy
        multiprocessors = int(self._device.attributes["MultiProcessorCount"])
        self.blocks = _cuda_kernels.BLOCKS_PER_MULTIPROCESSOR * multiprocessors
        self.shared_bytes = int(self._device.attributes["MaxSharedMemoryPerBlockOptin"])
        with self._device:
            self._copies = self._cupy.cuda.Stream(non_blocking=True)
        self._plan = functools.lru_cache(maxsize=32)(self._make_plan)

    def active(self) -> AbstractContextManager[Any]:
        """Makes this the current device of the thread."""
        return self._device  # type: ignore[no-any-return]

    def kernel(self, name: str, precision: str) -> Callable[..., None]:
        """A compiled kernel; the module is compiled at the first request for one of its kernels."""
        function: Callable[..., None] = _kernel(self.name, name, precision)
        return function

    def rfft2(self, values: Array, out: Array) -> None:
        """See :meth:`Device.rfft2`."""
        cufft = self._cupy.cuda.cufft
        kind = cufft.CUFFT_R2C if values.dtype == np.float32 else cufft.CUFFT_D2Z
        self._plan(kind, False, *values.shape).fft(values, out, cufft.CUFFT_FORWARD)

    def irfft2(self, spectra: Array, out: Array) -> None:
        """See :meth:`Device.irfft2`."""
        cufft = self._cupy.cuda.cufft
        kind = cufft.CUFFT_C2R if out.dtype == np.float32 else cufft.CUFFT_Z2D
        self._plan(kind, True, *out.shape).fft(spectra, out, cufft.CUFFT_INVERSE)

    def _make_plan(self, kind: int, inverse: bool, batch: int, rows: int, columns: int) -> Any:
        """A cuFFT plan of contiguous planes; it runs on the current stream, which CuPy sets at each call."""
        half = columns // 2 + 1
        real, spectral = ((rows, columns), rows * columns), ((rows, half), rows * half)
        (before, step), (after, stride) = (spectral, real) if inverse else (real, spectral)
        last = columns if inverse else half
        cufft = self._cupy.cuda.cufft
        try:
            return cufft.PlanNd((rows, columns), before, 1, step, after, 1, stride, kind, batch, "C", 2, last)
        except cufft.CuFFTError as error:
            if "ALLOC_FAILED" in str(error):
                raise MemoryError(f"cuFFT has no memory for {batch} transforms") from error
            raise

    def products(self, x: Array, y: Array, out: Array) -> None:
        """See :meth:`Device.products`."""
        (n, p), t = x.shape, y.shape[0]
        # cuBLAS is column-major: it sees the transposes of these arrays, and computes out^T = y x^T
        self._multiply(True, False, t, n, p, y, _stride(y), x, _stride(x), out, _stride(out))

    def sums(self, x: Array, y: Array, out: Array) -> None:
        """See :meth:`Device.sums`."""
        (n, t), p = x.shape, y.shape[1]
        self._multiply(False, True, p, t, n, y, _stride(y), x, _stride(x), out, _stride(out))

    def _multiply(self, first_turned: bool, second_turned: bool, *rest: Any) -> None:
        """CublasGemmEx column-major: ``c (m, n) = op(a) op(b)``, float16 in, float32 sums and output."""
        from cupy.cuda import device as cupy_device
        from cupy_backends.cuda.libs import cublas

        m, n, k, a, a_stride, b, b_stride, c, c_stride = rest
        turned = cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T
        one, zero = (
            np.ones(1, np.float32),
            np.zeros(1, np.float32),
        )  # host memory, read before the call returns
        cublas.gemmEx(
            cupy_device.get_cublas_handle(),
            turned[first_turned],
            turned[second_turned],
            m,
            n,
            k,
            one.ctypes.data,
            a.data.ptr,
            _HALF,
            a_stride,
            b.data.ptr,
            _HALF,
            b_stride,
            zero.ctypes.data,
            c.data.ptr,
            _FLOAT,
            c_stride,
            _SUMMED_IN_FLOAT,
            _ANY_ALGORITHM,
        )

    def pinned(self, size: int) -> np.ndarray:
        """See :meth:`Device.pinned`."""
        import cupyx

        return cupyx.empty_pinned(size, dtype=np.uint8)  # type: ignore[no-any-return]

    def upload(self, host: np.ndarray, out: Array, after: Event | None) -> Event:
        """See :meth:`Device.upload`."""
        if after is not None:
            self._copies.wait_event(after)
        out.set(host, stream=self._copies)
        return self._copies.record(self._cupy.cuda.Event(disable_timing=True))  # type: ignore[no-any-return]

    def wait(self, event: Event) -> None:
        """See :meth:`Device.wait`."""
        self._cupy.cuda.get_current_stream().wait_event(event)

    def record(self) -> Event:
        """See :meth:`Device.record`."""
        stream = self._cupy.cuda.get_current_stream()
        return stream.record(self._cupy.cuda.Event(disable_timing=True))  # type: ignore[no-any-return]

    def total_bytes(self) -> int:
        """See :meth:`Device.total_bytes`."""
        return int(self._device.mem_info[1])

    def free_bytes(self) -> int:
        """Free on the device or in CuPy's pool."""
        return int(self._device.mem_info[0] + self._cupy.get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Drop the plans, which hold work areas, and return the free blocks of the pool."""
        self._plan.cache_clear()
        self._cupy.get_default_memory_pool().free_all_blocks()

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self._cupy.cuda.get_current_stream().synchronize()


def _stride(matrix: Array) -> int:
    """Numbers from one row to the next."""
    return int(matrix.strides[0]) // int(matrix.itemsize)


@functools.cache
def _module(device: str, precision: str) -> Any:
    """The kernels for the current device, one module per device and precision in this process."""
    real = {"float32": "float", "float64": "double"}[precision]
    _LOG.debug("compiling the %s kernels for %s", precision, device)
    return import_cupy().RawModule(
        code=_cuda_kernels.source(), backend="nvrtc", options=("-std=c++17", f"-DREAL={real}")
    )


@functools.cache
def _kernel(device: str, name: str, precision: str) -> Any:
    return _module(device, precision).get_function(name)
