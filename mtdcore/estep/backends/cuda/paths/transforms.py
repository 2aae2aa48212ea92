"""The E-step of both models through a library's transforms: any box, any precision, invalid pixels, amplitudes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from array_api_compat import array_namespace

from ....._base.typing import Array
from ...base import Moment
from ..device import Device
from ..kernels import Amplitudes, Kernels
from ..models import Items, Model
from .sums import Sums, scaled, with_classes

#: Largest share of the free memory in which the spectra of all templates are kept.
_KEPT_SHARE = 0.1

#: Bytes of spectra in flight: enough to fill the device and to hide launches. Smaller chunks, which would stay in the cache of
#: the device, were slower (docs/gpu.md).
_CHUNK_BYTES = 256 << 20


class SpectralPath:
    """Both models: correlate, normalise, back-project, on one torus.

    The maps of a batch hold all templates, as the normaliser needs them; spectra exist for a few templates at a time.
    The back-projection is summed over the M items of a batch before its inverse transform. The transforms of templates and
    sums are therefore few: 2 / M of those per item and template, or 1 / M if all pixels are valid.
    """

    torus: tuple[int, int] | None = None

    def __init__(
        self, device: Device, kernels: Kernels, templates: Array, model: Model, torus: tuple[int, int]
    ) -> None:
        self._device, self._kernels, self._model, self._torus = device, kernels, model, torus
        likelihood = model.likelihood
        self._targets, self._squares = (
            (a / math.prod(torus)).astype(kernels.real) for a in scaled(templates, likelihood.noise_std)
        )
        lags = np.arange(-likelihood.margins[1], likelihood.box_size + likelihood.margins[1])
        bias = kernels.xp.asarray(likelihood.template_bias)
        self._bias = bias.astype(kernels.real) if likelihood.template_bias.any() else None
        energy = (templates**2).sum(axis=(1, 2)) / (2.0 * likelihood.noise_std**2)
        self._amplitudes: Amplitudes | None = None
        if likelihood.amplitudes is not None:
            variance = likelihood.amplitudes.variance
            self._amplitudes = Amplitudes(variance, energy.astype(kernels.real), bias.astype(kernels.real))
        self._level = (bias - energy).astype(
            kernels.real
        )  # of the gains where energies are the same everywhere
        self._transformed: tuple[Array, Array | None] | None = None
        self._rows, self._columns = (kernels.xp.asarray(lags % n) for n in torus)
        self._half = (torus[0], torus[1] // 2 + 1)
        self._spectrum_bytes = math.prod(self._half) * kernels.complex.itemsize
        # maps and energies; pixels and validity with their spectra; odds, sums along rows, competition
        maps = len(templates) * (1 if self._amplitudes is None else 2)
        self.bytes_per_item = self._spectrum_bytes * (maps + 7)

    def sums(self, items: Items) -> Sums:
        """See :meth:`Path.sums`."""
        maps, pixels, valid, amplitudes = self._gains(items)
        xp, likelihood = self._kernels.xp, self._model.likelihood
        scores, normaliser = self._model.normalise(maps, items, self._kernels, amplitudes)
        cuts = self._cuts(len(items))
        if amplitudes is None:
            found = [self._backproject(maps, cut, normaliser, pixels, valid) for cut in cuts]
        else:
            assert normaliser is not None  # the window model
            found = [self._apart(maps, cut, normaliser, pixels, valid, amplitudes) for cut in cuts]
        frames, mass = (
            xp.concatenate(parts, axis=-3 if i == 0 else -1)
            for i, parts in enumerate(zip(*found, strict=True))
        )
        if amplitudes is None:
            return Sums(frames, with_classes(scores, mass, likelihood))
        scores = with_classes(scores, mass[0], likelihood)
        return Sums(frames, array_namespace(scores).concat((scores, mass[1:].sum(axis=1))))

    def weights(self, items: Items, moment: Moment = 0) -> Array:
        """(K, M, N1, N2) posterior weights at each shift or corner, times the posterior mean of a power of the amplitude."""
        maps, _, _, amplitudes = self._gains(items)
        _, normaliser = self._model.normalise(maps, items, self._kernels, amplitudes)
        if normaliser is not None:
            self._model.weigh(maps, normaliser, maps, self._kernels, amplitudes, moment)
        return maps

    def log_odds(self, items: Items) -> Array:
        """(M, N1, N2) log-likelihood ratios and bias of all templates at each shift, summed in the log domain."""
        maps, _, _, amplitudes = self._gains(items)
        xp, closed = self._kernels.xp, self._model.likelihood.amplitudes
        if amplitudes is not None and closed is not None:
            lost = amplitudes.lost if amplitudes.lost.ndim > 1 else amplitudes.lost[:, None, None, None]
            maps = closed.log_ratio(maps, 2.0 * lost) + amplitudes.bias[:, None, None, None]
        peak = maps.max(axis=0)
        return peak + xp.log(xp.exp(maps - peak).sum(axis=0))

    def _constant_coverage(self, items: Items) -> bool:
        """Whether the whole torus is valid: energies and coverages are then the same at every shift."""
        return items.valid is None and tuple(items.pixels.shape[1:]) == self._torus

    def _gains(self, items: Items) -> tuple[Array, Array, Array | None, Amplitudes | None]:
        """Maps (K, M, N1, N2) of the gains, the spectra of pixels and validity (None: constant coverage), and amplitudes (None: alike).

        Half the energies are subtracted from the gains; if amplitudes differ, they are returned with the amplitudes instead.
        """
        constant = self._constant_coverage(items)
        pixels = self._spectra(items.pixels)
        valid, level = None, self._level
        if not constant:
            box = self._kernels.xp.ones((1, *items.pixels.shape[1:]), dtype=np.uint8)
            valid, level = self._spectra(box if items.valid is None else items.valid), self._bias
        maps, apart = self._empty((len(self._targets), len(items), *self._torus)), self._amplitudes
        lost = None
        if apart is not None:
            level = None
            if valid is not None:
                lost = self._empty(maps.shape)
                apart = apart._replace(lost=lost)
        chunk = self._chunk(len(items), complex_=True)
        for cut in self._cuts(len(items)):
            targets, squares = self._template_spectra(cut, constant)
            bias = None if level is None else level[cut]
            for some in self._ranges(len(items)):
                own = valid if valid is None or len(valid) == 1 else valid[some]
                spectra = _part(chunk, len(targets), some)
                if apart is None:
                    self._kernels.correlate_spectra(pixels[some], own, targets, squares, spectra, bias)
                else:
                    self._kernels.correlate_spectra(pixels[some], None, targets, None, spectra)
                self._device.irfft2(_flat(spectra), _flat(maps[cut, some]))
                if lost is not None:
                    self._kernels.correlate_spectra(own, None, squares, None, spectra)
                    self._device.irfft2(_flat(spectra), _flat(lost[cut, some]))
        return maps, pixels, valid, apart

    def _template_spectra(self, cut: slice, constant: bool) -> tuple[Array, Array | None]:
        """Spectra of some templates and of their squares (None: constant coverage).

        They are kept from batch to batch of an E-step if all of them take a small share of the memory.
        """
        count = len(self._targets)
        if self._transformed is None or (self._transformed[1] is None) != constant:
            self._transformed = None
            if (2 - constant) * count * self._spectrum_bytes > _KEPT_SHARE * self._device.free_bytes():
                return self._spectra(self._targets[cut]), None if constant else self._spectra(
                    self._squares[cut]
                )
            squares = None if constant else self._spectra(self._squares)
            self._transformed = self._spectra(self._targets), squares
        targets, squares = self._transformed
        return targets[cut], None if squares is None else squares[cut]

    def _backproject(
        self, maps: Array, cut: slice, normaliser: Array | None, pixels: Array, valid: Array | None
    ) -> tuple[Array, Array]:
        """(2, k, B, B) float64 frames of some templates, and their posterior mass (k,) float64."""
        kernels, items, found = self._kernels, len(pixels), None
        chunk = self._chunk(items, complex_=True)
        scratch = None if normaliser is None else self._chunk(items)
        for some in self._ranges(items):
            weights = maps[cut, some]
            if normaliser is not None:
                weighed = _part(scratch, len(weights), some)
                self._model.weigh(weights, normaliser[some], weighed, kernels)
                weights = weighed
            spectra = _part(chunk, len(weights), some)
            self._device.rfft2(_flat(weights), _flat(spectra))
            own = valid if valid is None or len(valid) == 1 else valid[some]
            found = kernels.backproject_spectra(pixels[some], own, spectra, found)
        assert found is not None
        sums, mass = found
        seen, mass = self._frames(sums), mass.sum(axis=0)
        if valid is None:
            covered = kernels.xp.ones_like(seen) * mass[:, None, None]
            seen = kernels.xp.concatenate((seen, covered))
        return seen, mass

    def _apart(
        self,
        maps: Array,
        cut: slice,
        normaliser: Array,
        pixels: Array,
        valid: Array | None,
        amplitudes: Amplitudes,
    ) -> tuple[Array, Array]:
        """As :meth:`_backproject`, if amplitudes differ; (3, k) sums of weights, weights times amplitudes, and times their squares."""
        kernels, items, xp = self._kernels, len(pixels), self._kernels.xp
        chunk, scratch = self._chunk(items, complex_=True), self._chunk(items)
        seen: tuple[Array, Array] | None = None
        covered: tuple[Array, Array] | None = None
        mass = xp.zeros((3, len(self._targets[cut])), dtype=np.float64)
        for some in self._ranges(items):
            gains, own = maps[cut, some], amplitudes.part(cut, some)
            weights = _part(scratch, len(gains), some)
            spectra = _part(chunk, len(gains), some)
            moments: tuple[Moment, ...] = (0, 1, 2)
            for moment in moments:
                self._model.weigh(gains, normaliser[some], weights, kernels, own, moment)
                mass[moment] += weights.sum(axis=(1, 2, 3), dtype=np.float64)
                if moment == 0 or (moment == 2 and valid is None):
                    continue
                self._device.rfft2(_flat(weights), _flat(spectra))
                if moment == 1:
                    seen = kernels.backproject_spectra(pixels[some], None, spectra, seen)
                else:
                    assert valid is not None
                    covered = kernels.backproject_spectra(valid[some], None, spectra, covered)
        assert seen is not None
        found = self._frames(seen[0])
        whole = xp.ones_like(found) * mass[2][:, None, None] if covered is None else self._frames(covered[0])
        return xp.concatenate((found, whole)), mass

    def _frames(self, sums: Array) -> Array:
        """(S, k, B, B) float64 from spectra (S, G, k, ...) of partial sums."""
        maps = self._empty((*sums.shape[:3], *self._torus))
        self._device.irfft2(_flat(sums), _flat(maps))
        frames = maps[..., self._rows[:, None], self._columns].astype(np.float64)
        return frames.sum(axis=1) / math.prod(self._torus)

    def _spectra(self, images: Array) -> Array:
        """Spectra of zero-padded images."""
        count, rows, columns = images.shape
        padded = self._kernels.xp.zeros((count, *self._torus), dtype=self._kernels.real)
        padded[:, :rows, :columns] = images
        spectra = self._empty((count, *self._half), complex_=True)
        self._device.rfft2(padded, spectra)
        return spectra

    def _cuts(self, items: int) -> Iterator[slice]:
        """Slices of templates whose spectra exist at one time."""
        rotations = len(self._targets)
        step = max(1, _CHUNK_BYTES // (items * self._spectrum_bytes))
        return (slice(k, min(k + step, rotations)) for k in range(0, rotations, step))

    def _ranges(self, items: int) -> Iterator[slice]:
        """Slices of items whose spectra exist at one time: all items, unless they are too many for a single template."""
        step = max(1, min(items, _CHUNK_BYTES // self._spectrum_bytes))
        return (slice(m, min(m + step, items)) for m in range(0, items, step))

    def _chunk(self, items: int, complex_: bool = False) -> Array:
        """Buffer of the planes in flight, spectra or maps, one after another."""
        cut, some = next(self._cuts(items)), next(self._ranges(items))
        count = (cut.stop - cut.start) * (some.stop - some.start)
        return self._empty((count, *(self._half if complex_ else self._torus)), complex_)

    def _empty(self, shape: tuple[int, ...], complex_: bool = False) -> Array:
        dtype = self._kernels.complex if complex_ else self._kernels.real
        return self._kernels.xp.empty(shape, dtype=dtype)


def _flat(planes: Array) -> Array:
    """(batch, N1, N2) view."""
    return planes.reshape(-1, *planes.shape[-2:])


def _part(chunk: Array, rotations: int, items: slice) -> Array:
    """(k, m, N1, N2) view of the first planes of a chunk."""
    count = items.stop - items.start
    return chunk[: rotations * count].reshape(rotations, count, *chunk.shape[1:])
