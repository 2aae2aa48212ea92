"""The CUDA backend: cuFFT for the transforms, our own kernels for everything between them."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, Self, TypeAlias, cast

import numpy as np

from ...._base.numerics.conversion import on_host
from ...._base.typing import Array, Precision
from ....data.tiles import Tile
from ....errors import DeviceError
from ....model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ...sums import TemplateSums
from ..array.backend import ArrayBackend, arrays_of, general
from ..base import Moment
from ..collect import Owned, owned_sites
from ..library import ALL, check_settings, checked, host, window_model
from ..precision import needed_precision
from .device import CupyDevice, Device, DeviceInfo, choose_device, describe_devices
from .kernels import Kernels
from .models import Items, Model, PatchModel, WindowModel
from .paths.matrices import MatrixPath, exact_enough
from .paths.matrices import faster as matrix_is_faster
from .paths.pairs import PairsPath, suitable_torus
from .paths.patch_matrices import PatchMatrixPath
from .paths.patch_matrices import faster as patch_matrix_is_faster
from .paths.patch_pairs import PatchPairsPath
from .paths.patch_pairs import suits as suits_patch_pairs
from .paths.registers import DirectPath
from .paths.sums import Path, Sums
from .paths.transforms import SpectralPath
from .resident import Resident
from .staging import grouped, staged
from .workers import device_executor, sees_one_device

__all__ = ["CudaBackend", "DeviceInfo", "choose_device", "describe_devices", "device_executor"]

_LOG = logging.getLogger("mtdcore.cuda")

#: Share of the free memory for a batch; the rest is for transforms, templates and other libraries.
_MEMORY_SHARE = 0.6

#: Sides of a torus, and the largest halo (pixels, both sides together) up to which each is faster than the next, see
#: docs/gpu.md. Transforms of powers of two are twice as fast as others.
_TORUS = ((512, 40), (1024, 300), (2048, 800), (4096, math.inf))

#: Largest side of a tile of windows for matrix products.
_LARGEST_TILE = 2048

#: Side of a tile of patches; any side would do, as batches join the patches of tiles.
_PATCH_TILE = 1024

#: Number of tiles that a batch should hold, so that they share the transforms of templates and of sums.
_TILES = 8


#: Number of tiles of one call, which share the transforms of templates and of sums: about a micrograph of 4096 x 4096.
_TOGETHER = 40


#: Ways through an E-step (docs/gpu.md).
Way: TypeAlias = Literal["registers", "pairs", "matrices", "transforms"]


class CudaBackend:
    """CuPy arrays on one device; see :class:`Backend` for the contract.

    Args:
        device: the device; :meth:`open` makes it from an index.
        precision: dtype of the correlations. Like the CPU backend, float32 is raised to float64 where the signal is
            so strong that rounding alone would move log-weights by more than 0.01 nats.
    """

    tiles_together = _TOGETHER

    def __init__(self, device: Device, precision: Precision = "float32") -> None:
        check_settings(precision)
        self.device, self.name, self.xp = device, device.name, device.xp
        self.precision: Precision = precision
        self._batch_bytes: int | None = None  # set when memory ran out
        self._resident = Resident()

    @classmethod
    def open(cls, index: int | None = None, precision: Precision = "float32") -> Self:
        """The backend of the device with this index; None: the first usable one.

        Raises:
            DependencyError: CuPy is not installed.
            DeviceError: there is no driver, no such device, or it is too old.
        """
        return cls(CupyDevice(choose_device().index if index is None else index), precision)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the index of the device: handles cannot be pickled, and each worker opens the device once."""
        return _opened, (int(self.name.partition(":")[2]), self.precision)

    def asarray(self, array: Array) -> Array:
        """A float64 array on the device."""
        with self.device.active():
            own = isinstance(array, self.xp.ndarray)
            return self.xp.asarray(array if own else host(array), dtype=np.float64)

    def to_host(self, array: Array) -> np.ndarray:
        """A NumPy copy of an array of the device."""
        with self.device.active():
            return on_host(array)

    @property
    def threads(self) -> int:
        """One: the host processes one tile at a time."""
        return 1

    def alone(self) -> CudaBackend:
        """The backend itself, which has one thread."""
        return self

    def synchronize(self) -> None:
        """Wait for the current stream of the device."""
        with self.device.active():
            self.device.synchronize()

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """A power of two minus the margin: large compared with the halo, small enough for a batch of several tiles."""
        if not likelihood.square:
            return self._arrays.tile_pixels(likelihood)
        if not likelihood.localises:
            return _PATCH_TILE
        margin = likelihood.margins[1]
        halo = 2 * likelihood.geometry.halos[1] + likelihood.geometry.reaches[1]
        if likelihood.amplitudes is None and matrix_is_faster(likelihood.box_size, likelihood.templates):
            # scores are kept between the two matrix products
            held = _MEMORY_SHARE * self.device.total_bytes() / (5 * likelihood.templates)
            return min(_LARGEST_TILE, math.isqrt(int(held)))
        share = _MEMORY_SHARE * self.device.total_bytes() / _TILES
        maps = likelihood.templates * (1 if likelihood.amplitudes is None else 2)
        per_pixel = np.dtype(self.precision).itemsize * (maps + 7)
        side = next(side for side, most in _TORUS if halo <= most)
        while side > _TORUS[0][0] and side**2 * per_pixel > share:
            side //= 2
        return side - margin

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> TemplateSums:
        """Sum of the statistics of the tiles; see :meth:`Backend.accumulate`."""
        with self.active():
            arrays = general(self, likelihood)
            if arrays is not None:
                return arrays.accumulate(tiles, templates, likelihood)
            step = _EStep(self.device, self._held(templates, likelihood), likelihood, self.precision)
            total = step.zeros()
            energy, summed, pixels, sites = self.xp.zeros((), dtype=np.float64), 0.0, 0, 0
            for group, sent in self._resident.groups(self.device, tiles, step.key):
                path = step.path(group.precision, group.tiles[0])
                items = step.model.gather(sent, self.xp, path.torus)
                total = total + self._sums(path, items)
                energy = energy + step.model.energy(sent, items)
                for tile in group.tiles:
                    summed += tile.total
                    pixels += step.valid_pixels(tile)
                    sites += owned_sites(tile)
            owned = Owned(float(energy), summed, sites, pixels)
            return step.model.statistics(total.frames, self.to_host(total.scores), owned)

    def posterior(
        self, tile: Tile, templates: Array, likelihood: Likelihood, moment: Moment = 0
    ) -> np.ndarray:
        """Posterior weights of one tile; see :meth:`Backend.posterior`."""
        with self.active():
            arrays = general(self, likelihood)
            if arrays is not None:
                return arrays.posterior(tile, templates, likelihood, moment)
            step = _EStep(self.device, self._held(templates, likelihood), likelihood, self.precision)
            ((group, sent),) = staged(self.device, grouped([tile], step.key))
            path = step.spectral_path(group.precision, tile)
            maps = path.weights(step.model.gather(sent, self.xp), moment)
            return step.model.posterior(self.to_host(maps), tile)

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """Log-odds of a copy at each corner; see :meth:`Backend.log_odds`."""
        with self.active():
            if part != ALL or not likelihood.square:
                return self._arrays.log_odds(tile, templates, likelihood, part)
            window_model(likelihood)
            step = _EStep(self.device, self._held(templates, likelihood), likelihood, self.precision)
            ((group, sent),) = staged(self.device, grouped([tile], step.key))
            gains = step.spectral_path(group.precision, tile).log_odds(step.model.gather(sent, self.xp))
            rows, columns = (n - likelihood.box_size + 1 for n in tile.values.shape)
            log_rate = likelihood.log_activity - math.log(likelihood.templates)
            return self.to_host(gains[0, :rows, :columns]) + log_rate

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> TemplateSums:
        """Sums of some templates; see :meth:`Backend.project`."""
        with self.active():
            return self._arrays.project(tile, templates, likelihood, log_norm, part)

    @property
    def _arrays(self) -> ArrayBackend:
        """The E-step in array-API terms on the same device."""
        return arrays_of(self)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See :meth:`Backend.active`; lack of memory that smaller batches do not cure raises DeviceError."""
        try:
            with self.device.active():
                yield
        except MemoryError as error:
            raise DeviceError(
                f"{self.name} should hold at least one tile with all its rotations; it is out of memory ({error}): use "
                "smaller tiles, fewer rotations, or the cpu backend."
            ) from error

    def _held(self, templates: Array, likelihood: Likelihood) -> Array:
        """The templates in float64."""
        return checked(templates, likelihood, self.xp).astype(np.float64)

    def _sums(self, path: Path, items: Items) -> Sums:
        """Sums over all items, in batches that fit; halves the batch when memory runs out."""
        budget = int(_MEMORY_SHARE * self.device.free_bytes())
        limit = max(1, min(budget, self._batch_bytes or budget) // path.bytes_per_item)
        total: Sums | None = None
        start = 0
        while start < len(items):
            try:
                batch = path.sums(items[slice(start, start + limit)])
            except MemoryError as error:
                cause = str(error)  # the error itself would keep the arrays of its frames alive
            else:
                total = batch if total is None else total + batch
                start += limit
                continue
            limit = self._halved(min(limit, len(items) - start), cause)
            self._batch_bytes = limit * path.bytes_per_item
        assert total is not None
        return total

    def _halved(self, limit: int, cause: str) -> int:
        self._resident.clear()
        self.device.release()
        if limit == 1:
            raise MemoryError(cause)
        _LOG.warning("%s: out of memory; batch halved from %d to %d items", self.name, limit, limit // 2)
        return limit // 2


@functools.cache
def _opened(index: int, precision: Precision) -> CudaBackend:
    return CudaBackend.open(0 if sees_one_device() else index, precision)


class _EStep:
    """Precomputed data of one E-step: the model, and a path per precision and torus, made at first use."""

    def __init__(self, device: Device, templates: Array, likelihood: Likelihood, precision: str) -> None:
        self._device, self._templates, self._precision = device, templates, precision
        self.likelihood = likelihood
        self.model: Model = (
            WindowModel(cast(WindowLikelihood, likelihood))
            if likelihood.localises
            else PatchModel(cast(PatchLikelihood, likelihood))
        )
        self._norm = float((templates**2).sum(axis=(1, 2)).max()) ** 0.5
        self._paths: dict[tuple[str, tuple[object, Way]], Path] = {}

    def key(self, tile: Tile) -> tuple[str, tuple[object, Way]]:
        """Precision, torus and way of a tile; tiles with equal keys can share a batch."""
        precision = needed_precision(self._precision, self._norm, self.likelihood.noise_std, [tile])
        way = self._way(precision, tile)
        torus = self._pairs_torus(tile) if way == "pairs" else None
        return precision, (torus or self.model.torus(tile), way)

    def _way(self, precision: str, tile: Tile) -> Way:
        """The fastest way that is accurate enough. Windows with invalid pixels, amplitudes or float64 take the transforms of the library."""
        model, likelihood = self.model, self.likelihood
        if isinstance(model, PatchModel):
            if DirectPath.suits(self._kernels(precision), likelihood):
                return "registers"
            if precision == "float64" or tile.valid is not None:
                return "transforms"
            if suits_patch_pairs(model.likelihood, self._device.shared_bytes):
                return "pairs"
            in_pairs = False
            patches = math.prod(n // likelihood.box_size for n in tile.micrograph_shape)
            memory, pixels = self._device.total_bytes(), math.prod(model.torus(tile))
            faster = patch_matrix_is_faster(model.likelihood, patches, pixels, memory)
        else:
            assert isinstance(model, WindowModel)
            alike = likelihood.amplitudes is None and model.sees_valid_pixels_only(tile)
            if precision == "float64" or not alike:
                return "transforms"
            in_pairs = self._pairs_torus(tile) is not None
            faster = matrix_is_faster(likelihood.box_size, likelihood.templates, in_pairs)
        if faster and exact_enough(self._norm, likelihood.box_size, likelihood.noise_std, [tile]):
            return "matrices"
        return "pairs" if in_pairs else "transforms"

    def _pairs_torus(self, tile: Tile) -> tuple[int, int] | None:
        """Torus of our own transforms; None: those of the library are faster, or the tile is of patches, which have their own kernel."""
        model = self.model
        return (
            suitable_torus(model.least(tile), model.torus(tile)) if isinstance(model, WindowModel) else None
        )

    def zeros(self) -> Sums:
        """The sums of no tile."""
        side = self.likelihood.box_size + 2 * self.likelihood.margins[1]
        xp = self._device.xp
        frames = xp.zeros((2, self.likelihood.templates, side, side), dtype=np.float64)
        classes, apart = self.likelihood.classes, self.likelihood.amplitudes is not None
        scores = 2 + (classes if classes > 1 else 0) + 2 * apart
        return Sums(frames, xp.zeros(scores, dtype=np.float64))

    def path(self, precision: str, tile: Tile) -> Path:
        """The path of tiles with the key of this one."""
        key = self.key(tile)
        if key not in self._paths:
            self._paths[key] = self._new_path(precision, tile, key[1][1])
        return self._paths[key]

    def _new_path(self, precision: str, tile: Tile, way: Way) -> Path:
        kernels, model = self._kernels(precision), self.model
        if way == "transforms":
            return self.spectral_path(precision, tile)
        if isinstance(model, PatchModel):
            if way == "registers":
                return DirectPath(kernels, self._templates, model)
            if way == "matrices":
                return PatchMatrixPath(self._device, kernels, self._templates, model)
            return PatchPairsPath(
                self._device, kernels, self._templates, model, self.spectral_path(precision, tile)
            )
        assert isinstance(model, WindowModel)
        if way == "matrices":
            return MatrixPath(self._device, kernels, self._templates, model)
        torus = self._pairs_torus(tile)
        assert torus is not None
        return PairsPath(kernels, self._templates, model, torus)

    def spectral_path(self, precision: str, tile: Tile) -> SpectralPath:
        """The path of transforms, for any box."""
        kernels = self._kernels(precision)
        return SpectralPath(self._device, kernels, self._templates, self.model, self.model.torus(tile))

    def valid_pixels(self, tile: Tile) -> int:
        """Number of valid pixels that this tile counts."""
        cut = tile.owned_pixels
        return int(tile.values[cut].size if tile.valid is None else np.count_nonzero(tile.valid[cut]))

    def _kernels(self, precision: str) -> Kernels:
        xp, device = self._device.xp, self._device
        return Kernels(xp, lambda name: device.kernel(name, precision), precision, device.blocks)
