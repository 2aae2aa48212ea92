"""An array library that refuses what CuPy refuses, computed by NumPy: code that runs on it mixes no host arrays in.

Arrays convert to NumPy by ``get()`` alone, take no NumPy array as an operand, and live on a device object that
``array_api_compat`` knows nothing of: its ``fftfreq`` and ``rfftfreq`` reject it, other creation functions pass it on.
The module itself is the namespace, as ``array_api_compat.cupy`` is CuPy's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy as host
import numpy as np

newaxis, pi, inf, nan = None, host.pi, host.inf, host.nan


class Device:
    """The only device."""

    def __repr__(self) -> str:
        return "<CUDA Device 0>"


DEVICE = Device()


class ndarray:
    """A NumPy array that does not pass for one."""

    __array_priority__ = 100

    def __init__(self, raw: np.ndarray) -> None:
        self.raw = raw

    @property
    def device(self) -> Device:
        return DEVICE

    def get(self) -> np.ndarray:
        return self.raw.copy()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _wrapped(getattr(ufunc, method)(*_opened(inputs), **_opened(options)))

    def __array_function__(self, *_: Any) -> Any:
        raise TypeError("a NumPy function was called with an array of the device.")

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return sys.modules[__name__]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # no protocol of NumPy's slips through
            raise AttributeError(name)
        found = getattr(self.raw, name)
        return _device_function(found) if callable(found) else _wrapped(found)

    def __getitem__(self, key: Any) -> Any:
        return _wrapped(self.raw[_index(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.raw[_index(key)] = _opened(value)

    def __len__(self) -> int:
        return len(self.raw)

    def __float__(self) -> float:
        return float(self.raw)

    def __int__(self) -> int:
        return int(self.raw)

    def __bool__(self) -> bool:
        return bool(self.raw)

    def __repr__(self) -> str:
        return f"device {self.raw!r}"

    __hash__ = None  # type: ignore[assignment]


def _install(name: str) -> None:
    def method(self: ndarray, *others: Any) -> Any:
        if any(isinstance(other, np.ndarray) for other in others):
            raise TypeError(f"Unsupported type {np.ndarray}")
        return _wrapped(getattr(self.raw, name)(*_opened(others)))

    setattr(ndarray, name, method)


for _symbol in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    for _prefix in ("", "r"):
        _install(f"__{_prefix}{_symbol}__")
for _symbol in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert"):
    _install(f"__{_symbol}__")


def _opened(value: Any) -> Any:
    """The NumPy arrays inside; those that were handed over as they are get refused."""
    if isinstance(value, ndarray):
        return value.raw
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}")
    if isinstance(value, tuple | list):
        return type(value)(_opened(v) for v in value)
    if isinstance(value, dict):
        return {k: _opened(v) for k, v in value.items()}
    return value


def _index(key: Any) -> Any:
    """CuPy moves NumPy arrays that are indices, and them alone."""
    if isinstance(key, tuple):
        return tuple(k if isinstance(k, np.ndarray) else _opened(k) for k in key)
    return key if isinstance(key, np.ndarray) else _opened(key)


def _wrapped(value: Any) -> Any:
    """Arrays of this library; CuPy has no scalars, only arrays of no axes."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple | list):
        return type(value)(_wrapped(v) for v in value)
    return value


def _device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if options.get("device") is DEVICE:
            del options["device"]
        return _wrapped(function(*_opened(arguments), **_opened(options)))

    return call


def asarray(values: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> ndarray:
    """The one way in for host arrays."""
    assert device in (None, DEVICE)
    raw = values.raw if isinstance(values, ndarray) else np.array(values, dtype=dtype)
    return ndarray(host.asarray(raw, dtype=dtype, copy=copy))


def _frequencies(function: Callable[..., np.ndarray]) -> Callable[..., ndarray]:
    def call(n: int, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> ndarray:
        if device not in ("cpu", None):  # as array_api_compat has it
            raise ValueError(f"Unsupported device {device!r}")
        return _wrapped(function(n, d=d, dtype=dtype))

    return call


fft = SimpleNamespace(
    **{
        name: _device_function(getattr(host.fft, name))
        for name in host.fft.__all__
        if not name.startswith("_")
    }
)
fft.fftfreq, fft.rfftfreq = _frequencies(host.fft.fftfreq), _frequencies(host.fft.rfftfreq)
linalg = SimpleNamespace(
    **{name: _device_function(getattr(host.linalg, name)) for name in ("solve", "eigh", "vector_norm")}
)


def __getattr__(name: str) -> Any:
    found = getattr(host, name)
    if isinstance(found, type) or not callable(found):  # dtypes and constants
        return found
    return _device_function(found)
