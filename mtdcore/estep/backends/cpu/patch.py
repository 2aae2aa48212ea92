"""Patch E-step on the CPU: transforms on a padded torus, or direct sums for small boxes."""

from __future__ import annotations

import math
from collections import deque
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import fft

from ....data.tiles import Tile
from ....model.likelihood import PatchLikelihood
from ...sums import TemplateSums, by_class
from ..collect import Owned, patch_sums
from .direct import direct_patches
from .lanes.emitter import CELL, LANES
from .lanes.fft import Transform, cells, fast_length
from .patch_kernels import patch_statistics

#: Largest box for direct sums. They are faster than transforms up to 11 (bench/README.md), but are compiled for each box size.
DIRECT_BOX = 8


class _Found(NamedTuple):
    """Sums over the patches of a tile."""

    backprojection: np.ndarray
    coverage: np.ndarray
    log_norm: float
    empty_mass: float
    mass: np.ndarray


class _Workspace(NamedTuple):
    """Arrays of :func:`patch_statistics`, each in use by one thread at a time."""

    image: np.ndarray
    seen: np.ndarray
    maps: np.ndarray
    work: np.ndarray


class PatchPlan:
    """Precomputed data of one E-step, used by every tile: templates, energies, pose prior.

    A shift l of docs/model.md 3 is held at index l - (L - 1) of a (2L - 1)^2 array ("centred") or, on the torus
    of the transforms, at l modulo its side; empty poses are summed in closed form.

    Args:
        templates: (K, L, L) templates.
        likelihood: the model.
        dtype: of the correlations.
        memory: bytes that a thread may use for maps of the templates; one map is the minimum.
    """

    def __init__(
        self, templates: np.ndarray, likelihood: PatchLikelihood, dtype: np.dtype, memory: int
    ) -> None:
        self.likelihood, self.dtype, self.memory = likelihood, dtype, memory
        length, variance = likelihood.box_size, likelihood.noise_std**2
        log_empty, log_shown = likelihood.log_prior
        self.log_shown = (log_shown + likelihood.template_bias)[:, None, None]
        self.log_empty = log_empty + math.log((4 * length - 1) * len(templates))
        self.templates, self.energies = templates / variance, 0.5 * templates**2 / variance
        self.bias = self.log_shown - _box_sums(self.energies, range(1 - length, length), length)
        # A torus of 2L - 1 + margin is the smallest on which no two needed shifts or pixels coincide.
        self.side = fast_length(2 * length - 1 + likelihood.margins[1])
        self.padded = -(-self.side // LANES) * LANES
        self.shown = np.r_[0:length, self.side - length + 1 : self.side]
        self._free: deque[_Workspace] = deque()

    def posterior(self, tile: Tile) -> np.ndarray:
        """(patch rows, patch columns, K, 2L, 2L) weights in the order of ``np.roll(ZF, l)``."""
        length, torus = self.likelihood.box_size, (2 * self.likelihood.box_size,) * 2
        pixels, valid = self._pixels(tile)
        patches, seen = (self._cut(a) for a in (pixels, np.ones(pixels.shape) if valid is None else valid))
        empty = np.exp(self.log_empty) / ((4 * length - 1) * len(self.templates))
        weights = np.full((len(patches), len(self.templates), *torus), math.log(empty))
        shown = np.delete(np.arange(2 * length), length)
        inner = np.ix_(np.arange(len(self.templates)), shown, shown)
        spectra, energies = (fft.rfft2(a, s=torus).conj() for a in (self.templates, self.energies))
        for n in range(len(patches)):
            image, visible = fft.rfft2(patches[n], s=torus), fft.rfft2(seen[n], s=torus)
            gain = fft.irfft2(image * spectra - visible * energies, s=torus)
            weights[n][inner] = (gain + self.log_shown)[inner]
            weights[n] = np.exp(weights[n] - weights[n].max())
            weights[n] /= weights[n].sum()
        rows, columns = (s.stop // length - s.start // length for s in tile.owned)
        return weights.reshape(rows, columns, *weights.shape[1:])

    def statistics(self, tile: Tile) -> TemplateSums:
        """Statistics of one tile."""
        length = self.likelihood.box_size
        pixels, valid = self._pixels(tile)
        direct = length <= DIRECT_BOX and valid is None
        found = self._direct(pixels) if direct else self._transformed(pixels, valid)
        return patch_sums(
            self.likelihood,
            Owned.of(tile, self.dtype),
            found.log_norm,
            found.backprojection,
            found.coverage,
            by_class(found.mass, self.likelihood),
            found.empty_mass,
        )

    def _pixels(self, tile: Tile) -> tuple[np.ndarray, np.ndarray | None]:
        """(rows L, columns L) pixels of whole patches, and their validity (1 or 0) unless all are valid."""
        values = np.ascontiguousarray(tile.values[tile.owned], dtype=self.dtype)
        if tile.valid is None or (valid := tile.valid[tile.owned]).all():
            return values, None
        return np.where(valid, values, self.dtype.type(0)), valid.astype(self.dtype, order="C")

    def _cut(self, pixels: np.ndarray) -> np.ndarray:
        """(n, L, L) patches."""
        length = self.likelihood.box_size
        rows, columns = (n // length for n in pixels.shape)
        blocks = pixels.reshape(rows, length, columns, length).swapaxes(1, 2)
        return blocks.reshape(rows * columns, length, length)

    # ---------------------------------------------------------------- direct sums

    @cached_property
    def _flipped(self) -> np.ndarray:
        return np.ascontiguousarray(self.templates[:, ::-1, ::-1], self.dtype)

    def _direct(self, pixels: np.ndarray) -> _Found:
        length, margin, count = self.likelihood.box_size, self.likelihood.margins[1], len(self.templates)
        frame = length + 2 * margin
        backprojection, weight_sum = np.zeros((count, frame, frame)), np.zeros(self.bias.shape)
        log_norm, empty_mass = direct_patches(length, margin)(
            pixels,
            self._flipped,
            np.ascontiguousarray(self.bias, self.dtype),
            self.dtype.type(self.log_empty),
            backprojection,
            weight_sum,
        )
        mass = weight_sum.sum(axis=(1, 2))
        return _Found(backprojection, patch_coverage(weight_sum, length, margin), log_norm, empty_mass, mass)

    # ---------------------------------------------------------------- transforms

    def _transformed(self, pixels: np.ndarray, valid: np.ndarray | None) -> _Found:
        length, margin = self.likelihood.box_size, self.likelihood.margins[1]
        if valid is None:
            bias, energies, valid = self._torus_bias, self._spectra[:0], pixels[:0]
        else:
            bias, energies = self._blank_bias, self._energy_spectra
        plan, space = Transform.of(self.side, self.dtype), self._workspace()
        count, shown = len(self.templates), self.shown.size
        projected = np.zeros((count, self.side, self.padded, 2), self.dtype)
        covered = np.zeros_like(projected[:, :, : self.padded if len(valid) else 0])
        weight_sum = np.zeros((count, shown, self.padded), self.dtype)
        log_norm, empty_mass = patch_statistics(
            pixels,
            valid,
            self._spectra,
            energies,
            bias,
            self.shown,
            self.dtype.type(self.log_empty),
            plan.radices,
            plan.twiddles,
            *space,
            projected,
            covered,
            weight_sum,
        )
        self._free.append(space)
        if len(valid):
            coverage = self._frame(covered)
        else:
            centre = np.argsort((self.shown + length - 1) % self.side)
            centred = weight_sum.transpose(0, 2, 1)[:, self.shown[centre]][:, :, centre]
            coverage = patch_coverage(centred, length, margin)
        mass = weight_sum[:, :, self.shown].sum(axis=(1, 2), dtype=np.float64)
        return _Found(self._frame(projected), coverage, log_norm, empty_mass, mass)

    def _frame(self, spectra: np.ndarray) -> np.ndarray:
        """(K, B, B) float64: real part of the inverse transform, cropped to the frame of the statistics."""
        length, margin = self.likelihood.box_size, self.likelihood.margins[1]
        frame = np.arange(-margin, length + margin) % self.side
        whole = spectra[:, :, : self.side]
        images = fft.ifft2(whole[..., 0] + 1j * whole[..., 1])
        return np.asarray(images.real[:, frame][:, :, frame], dtype=np.float64)

    def _workspace(self) -> _Workspace:
        if self._free:
            return self._free.pop()
        image = (self.padded, self.padded + 1)
        map_bytes = math.prod(image) * CELL * self.dtype.itemsize
        maps = max(1, min(len(self.templates), self.memory // map_bytes))
        return _Workspace(
            cells(*image, dtype=self.dtype),
            cells(*image, dtype=self.dtype),
            cells(maps, *image, dtype=self.dtype).reshape(maps, -1),
            cells(2, self.side, dtype=self.dtype),
        )

    def _conjugate_spectra(self, images: np.ndarray) -> np.ndarray:
        """(K, N, N, 2) real and imaginary parts, scaled such that the unnormalised inverse is the correlation."""
        spectra = fft.fft2(images, s=(self.side, self.side)) / self.side**2
        return np.stack([spectra.real, -spectra.imag], axis=-1).astype(self.dtype)

    @cached_property
    def _spectra(self) -> np.ndarray:
        return self._conjugate_spectra(self.templates)

    @cached_property
    def _energy_spectra(self) -> np.ndarray:
        return self._conjugate_spectra(-self.energies)

    @cached_property
    def _torus_bias(self) -> np.ndarray:
        return self._on_torus(self.bias)

    @cached_property
    def _blank_bias(self) -> np.ndarray:
        """The pose prior without energies, for patches whose energies depend on invalid pixels."""
        return self._on_torus(np.broadcast_to(self.log_shown, self.bias.shape))

    def _on_torus(self, centred: np.ndarray) -> np.ndarray:
        """(K, S, N) centred values by column and row of the torus, log 0 where there is no pose."""
        length = self.likelihood.box_size
        torus = np.full((len(centred), self.shown.size, self.side), -np.inf, self.dtype)
        order = (self.shown + length - 1) % self.side
        torus[:, :, self.shown] = centred.transpose(0, 2, 1)[:, order][:, :, order]
        return torus


def patch_coverage(weight_sum: np.ndarray, length: int, margin: int) -> np.ndarray:
    """(K, B, B): weight of the centred shifts at which target pixel u falls inside the patch."""
    return _box_sums(weight_sum, range(-margin, length + margin), length, origin=length - 1)


def _box_sums(values: np.ndarray, shifts: range, length: int, origin: int = 0) -> np.ndarray:
    """Sums of ``values`` over index ranges [origin - s, origin - s + length) on both axes."""
    side = values.shape[1]
    table = np.zeros((len(values), side + 1, side + 1))
    table[:, 1:, 1:] = values.cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    low = np.clip([origin - s for s in shifts], 0, side)
    high = np.clip([origin - s + length for s in shifts], 0, side)
    rows = table[:, high] - table[:, low]
    return np.asarray(rows[:, :, high] - rows[:, :, low])
