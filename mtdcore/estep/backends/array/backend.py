"""The E-step of both models in array-API terms: any array library with an FFT is a backend.

Templates and patches are processed in chunks that bound the memory; scores that do not fit are computed twice. Chunks depend on
shapes and ``max_memory`` only.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, cast

import numpy as np
from array_api_compat import array_namespace

from ...._base.numerics.conversion import on_host
from ...._base.typing import Array, Precision
from ....data.tiles import Tile
from ....errors import DeviceError, ParameterError
from ....model.likelihood import Likelihood, WindowLikelihood
from ...sums import TemplateSums
from ..base import Backend, Moment
from ..library import ALL, FEW_TILES, check_settings, checked_norm, host, window_model
from .patches import Patches
from .scored import EStep
from .windows import Windows

_log = logging.getLogger(__name__)

#: Bytes of a chunk of scores with their spectra, unless one template of one tile or patch takes more.
_CHUNK_BYTES = 1 << 28

#: kDLCPU of the DLPack header.
_CPU = 1


class ArrayBackend:
    """Arrays of any library that follows the array API; see :class:`Backend` for the contract.

    Args:
        xp: the library, for instance ``numpy`` or ``torch``; it needs the ``fft`` extension.
        precision: dtype of the correlations, raised to float64 where the signal is so strong that rounding alone would
            move log-weights by more than 0.01 nats.
        device: device of the arrays, as the library names it ("cuda:0"); None: its default.
        max_memory: bytes that a chunk of scores may take.

    Raises:
        ParameterError: an argument outside its domain, or a library without transforms.
        DeviceError: the library does not have this device.
    """

    def __init__(
        self,
        xp: Array = np,
        precision: Precision = "float32",
        device: str | None = None,
        max_memory: int = _CHUNK_BYTES,
    ) -> None:
        check_settings(precision, max_memory)
        try:
            self.xp = array_namespace(xp.zeros(()))  # CuPy's own asarray takes no device
            self.xp.asarray(0.0, device=device)
        except Exception as error:  # libraries share no exception type
            raise DeviceError(f"{xp.__name__} should have a device {device!r}; it says: {error}.") from error
        if not hasattr(self.xp, "fft"):
            raise ParameterError(f"the array library should have an FFT; {xp.__name__} has none.")
        library = xp.__name__.rpartition(".")[2]
        self.name = ("array" if library == "numpy" else library) + (f":{device}" if device else "")
        self.precision: str = precision
        self.device, self.max_memory = device, max_memory

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name of the library: modules cannot be pickled."""
        return _opened, (type(self), self.xp.__name__, self.precision, self.device, self.max_memory)

    def asarray(self, array: Array) -> Array:
        """A float64 array of this library; see :meth:`Backend.asarray`."""
        if isinstance(array, type(self.xp.zeros(()))):
            return self.xp.asarray(array, dtype=self.xp.float64, device=self.device)
        return self.moved(host(array))

    def to_host(self, array: Array) -> np.ndarray:
        """A NumPy array of the same values."""
        return on_host(array)

    threads, tiles_together = 1, FEW_TILES

    def alone(self) -> Self:
        """The backend itself: the library has its own threads."""
        return self

    def active(self) -> AbstractContextManager[None]:
        """An empty context: the device is passed with every new array."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait for the device by fetching a number, which arrives after all earlier work."""
        self.to_host(self.xp.zeros((), device=self.device))

    @functools.cached_property
    def in_host_memory(self) -> bool:
        """Whether the CPU computes: small blocks then stay in its cache, while a device needs few large ones."""
        return int(self.xp.zeros(0, device=self.device).__dlpack_device__()[0]) == _CPU

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """0: the cut of the likelihood is kept, which bounds the memory of one template."""
        return 0

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> TemplateSums:
        """Sum of the statistics of the tiles; see :meth:`Backend.accumulate`."""
        step = EStep(self, templates, likelihood)
        zeros = TemplateSums.zeros(len(step.bias), likelihood)
        total = zeros.moved(self.asarray)
        for tile in tiles:
            total = total + _scored(step, tile).statistics()
        return total

    def posterior(
        self, tile: Tile, templates: Array, likelihood: Likelihood, moment: Moment = 0
    ) -> np.ndarray:
        """Posterior weights of one tile; see :meth:`Backend.posterior`."""
        return _scored(EStep(self, templates, likelihood), tile).posterior(moment)

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """Log-odds of a copy at each corner; see :meth:`Backend.log_odds`."""
        scored = Windows(EStep(self, templates, window_model(likelihood), part), tile)
        return self.to_host(scored.log_odds())

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> TemplateSums:
        """Statistics of some templates; see :meth:`Backend.project`."""
        scored = Windows(EStep(self, templates, window_model(likelihood), part), tile)
        return scored.statistics(self.moved(checked_norm(log_norm, tile), scored.precision))

    def moved(self, array: np.ndarray, dtype: str = "float64") -> Array:
        """A copy of a host array in this library, of this dtype."""
        return self.xp.asarray(np.array(array, dtype=dtype, order="C"), device=self.device)


def general(backend: Backend, likelihood: Likelihood) -> ArrayBackend | None:
    """The array E-step in the library of a backend whose kernels need square boxes, for other boxes; None: the box is a square.

    Args:
        backend: gives the library and the precision.
        likelihood: gives the box.
    """
    if likelihood.square:
        return None
    _tell(backend.name, likelihood.views.box_shape)
    return arrays_of(backend)


def arrays_of(backend: Backend) -> ArrayBackend:
    """The arrays of a backend: its library, device and precision; the current device where the backend has :meth:`Backend.active`."""
    if isinstance(backend, ArrayBackend):
        return backend
    return ArrayBackend(backend.xp, cast(Precision, backend.precision))


@functools.cache
def _tell(name: str, box: tuple[int, int]) -> None:
    _log.info(
        "%s: its kernels are for square boxes; the E-step in array-API terms scores boxes of %d x %d",
        name,
        *box,
    )


def _opened(
    kind: type[ArrayBackend], library: str, precision: Precision, device: str | None, max_memory: int
) -> ArrayBackend:
    return kind(importlib.import_module(library), precision, device, max_memory)


def _scored(step: EStep, tile: Tile) -> Windows | Patches:
    """A tile with its scores."""
    return Windows(step, tile) if step.likelihood.localises else Patches(step, tile)
