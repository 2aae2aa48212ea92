"""Patch E-step on the CPU: transforms on a padded torus, or direct sums for small boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import fft

from .._typing import Array
from ..likelihood import PatchLikelihood, Tile
from ..statistics import Statistics
from . import _cpu_kernels as kernels

#: Largest box for which direct sums beat the transforms (measured crossover, see bench/README.md).
DIRECT_BOX = 8

#: Correlation values scored at once: a batch of patches stays within the second-level cache.
_BATCH_VALUES = 2**18


class PatchPlan:
    """What one E-step prepares once and every tile uses: templates, energies, pose prior.

    A shift l of SPEC 3 is held at index l - (L - 1) of a (2L - 1)^2 array ("centred") or, on the torus of the
    transforms, at l modulo its side; empty poses are summed in closed form.
    """

    #: Tiles whose sums share one float32 accumulator.
    group = 1

    def __init__(self, turned: np.ndarray, likelihood: PatchLikelihood, dtype: np.dtype) -> None:
        self.likelihood, self.dtype = likelihood, dtype
        length, variance = likelihood.box_size, likelihood.noise_std**2
        log_empty, log_shown = likelihood.log_prior
        self.log_shown = (log_shown + likelihood.template_bias)[:, None, None]
        self.log_empty = log_empty + math.log((4 * length - 1) * len(turned))
        self.templates = (turned / variance).astype(dtype)
        self.flipped = np.ascontiguousarray(self.templates[:, ::-1, ::-1])
        self.energies = 0.5 * turned**2 / variance
        self.direct = length <= DIRECT_BOX
        # A torus of 2L - 1 + margin is the smallest on which no two needed shifts or pixels coincide.
        self.side = fft.next_fast_len(2 * length - 1 + likelihood.margin, real=True)
        self.centre = np.arange(1 - length, length) % self.side
        self.bias = (self.log_shown - centred_energy(self.energies)).astype(dtype)
        self.torus_bias = self._on_torus(self.bias)
        self.spectra = fft.rfft2(self.templates, s=(self.side, self.side)).conj()

    def statistics(self, tiles: Sequence[Tile]) -> Statistics:
        """Sum of the statistics of one or more tiles."""
        total = self._tile(tiles[0])
        for tile in tiles[1:]:
            total = total + self._tile(tile)
        return total

    def posterior(self, tile: Tile) -> np.ndarray:
        """(patch rows, patch columns, K, 2L, 2L) weights in the order of ``np.roll(ZF, l)``."""
        length = self.likelihood.box_size
        patches, valid = self._cut(tile)
        weights = np.empty((len(patches), len(self.templates), 2 * length, 2 * length))
        for n in range(len(patches)):
            one = slice(n, n + 1)
            scores = self._scores(
                fft.rfft2(patches[one], s=(self.side, self.side)), None if valid is None else valid[one]
            )
            bias = self.torus_bias if valid is None else self._blank_bias()
            _, empty = kernels.normalise_patches(scores, bias, self.log_empty, np.zeros(bias.shape))
            weights[n] = empty / ((4 * length - 1) * len(self.templates))
            rolled = np.arange(1 - length, length) % (2 * length)
            weights[n][np.ix_(np.arange(len(self.templates)), rolled, rolled)] = scores[0][self._centred()]
        rows, columns = (s.stop // length - s.start // length for s in tile.owned)
        return weights.reshape(rows, columns, *weights.shape[1:])

    def _tile(self, tile: Tile) -> Statistics:
        likelihood = self.likelihood
        length, margin, sigma = likelihood.box_size, likelihood.margin, likelihood.noise_std
        patches, valid = self._cut(tile)
        direct = self.direct and valid is None
        backprojection, coverage, log_norm, empty_mass = (
            self._direct(patches) if direct else self._transformed(patches, valid)
        )
        # rows in the precision of the patches, their sum in float64: no float64 copy
        energy = float(np.einsum("nij,nij->n", patches, patches).sum(dtype=np.float64))
        pixels = patches.size if valid is None else int(valid.sum())
        inner = slice(margin, margin + length)
        return Statistics(
            backprojection,
            coverage,
            log_likelihood=log_norm
            - energy / (2.0 * sigma**2)
            - 0.5 * pixels * math.log(2.0 * math.pi * sigma**2),
            energy=energy,
            expected_count=float(coverage[:, inner, inner].sum()) / length**2,
            empty_mass=empty_mass,
            sites=len(patches),
            pixels=pixels,
            noise_std=sigma,
            box_size=length,
        )

    def _cut(self, tile: Tile) -> tuple[np.ndarray, np.ndarray | None]:
        """(n, L, L) patches, and their validity unless all pixels are valid."""
        length = self.likelihood.box_size

        def cut(array: Array) -> np.ndarray:
            rows, columns = (n // length for n in array.shape)
            blocks = array.reshape(rows, length, columns, length).swapaxes(1, 2)
            return np.asarray(blocks.reshape(rows * columns, length, length))

        values = np.asarray(tile.values[tile.owned], dtype=self.dtype)
        if tile.valid is None or (valid := tile.valid[tile.owned]).all():
            return cut(values), None
        return cut(np.where(valid, values, self.dtype.type(0))), cut(valid)

    def _direct(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
        length, margin = self.likelihood.box_size, self.likelihood.margin
        count = len(patches)
        groups = -(-count // kernels.LANES)
        lanes = np.zeros((groups * kernels.LANES, length, length), self.dtype)
        lanes[:count] = patches
        lanes = np.ascontiguousarray(
            lanes.reshape(groups, kernels.LANES, length, length).transpose(0, 2, 3, 1)
        )
        frame = length + 2 * margin
        backprojection = np.zeros((len(self.templates), frame, frame))
        weight_sum = np.zeros(self.bias.shape)
        log_norm, empty_mass = kernels.direct_patches(
            lanes,
            count,
            self.flipped,
            self.bias,
            self.dtype.type(self.log_empty),
            margin,
            backprojection,
            weight_sum,
        )
        coverage = patch_coverage(weight_sum, length, margin)
        return (
            backprojection,
            coverage,
            float(log_norm.reshape(-1)[:count].sum()),
            float(empty_mass.reshape(-1)[:count].sum()),
        )

    def _transformed(
        self, patches: np.ndarray, valid: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, float, float]:
        length, margin, torus = self.likelihood.box_size, self.likelihood.margin, (self.side, self.side)
        complex_dtype = np.result_type(self.dtype, np.complex64)
        projected = np.zeros(self.spectra.shape, complex_dtype)
        covered = np.zeros_like(projected) if valid is not None else None
        weight_sum = np.zeros(self.torus_bias.shape, self.dtype)
        bias = self.torus_bias if valid is None else self._blank_bias()
        batch = max(1, _BATCH_VALUES // weight_sum.size)
        log_norm = empty_mass = 0.0
        for first in range(0, len(patches), batch):
            cut = slice(first, first + batch)
            seen = None if valid is None else valid[cut]
            spectra = fft.rfft2(patches[cut], s=torus)
            scores = self._scores(spectra, seen)
            norm, empty = kernels.normalise_patches(scores, bias, self.dtype.type(self.log_empty), weight_sum)
            log_norm, empty_mass = log_norm + norm, empty_mass + empty
            weights = fft.rfft2(scores, overwrite_x=True)
            kernels.accumulate_spectra(projected, spectra, weights)
            if seen is not None:
                kernels.accumulate_spectra(covered, fft.rfft2(seen.astype(self.dtype), s=torus), weights)
        frame = np.arange(-margin, length + margin) % self.side
        crop = np.ix_(np.arange(len(projected)), frame, frame)
        backprojection = fft.irfft2(projected, s=torus)[crop].astype(np.float64)
        if covered is None:
            coverage = patch_coverage(weight_sum[self._centred()].astype(np.float64), length, margin)
        else:
            coverage = fft.irfft2(covered, s=torus)[crop].astype(np.float64)
        return backprojection, coverage, log_norm, empty_mass

    def _scores(self, spectra: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        """(n, K, N, N) correlations over sigma^2, less the energy of the pixels seen where some are invalid."""
        torus = (self.side, self.side)
        scores = fft.irfft2(spectra[:, None] * self.spectra, s=torus, overwrite_x=True)
        if valid is not None:
            seen = fft.rfft2(valid.astype(self.dtype), s=torus)
            energy = fft.rfft2(self.energies.astype(self.dtype), s=torus).conj()
            scores -= fft.irfft2(seen[:, None] * energy, s=torus, overwrite_x=True)
        return np.asarray(scores)

    def _centred(self) -> tuple[np.ndarray, ...]:
        """Index of the centred shifts on the torus."""
        return np.ix_(np.arange(len(self.templates)), self.centre, self.centre)

    def _on_torus(self, centred: np.ndarray) -> np.ndarray:
        """Centred values at their place on the torus, log 0 elsewhere."""
        torus = np.full((len(centred), self.side, self.side), -np.inf, self.dtype)
        torus[self._centred()] = centred
        return torus

    def _blank_bias(self) -> np.ndarray:
        """Pose prior alone, for patches whose energy depends on their invalid pixels."""
        return self._on_torus(np.broadcast_to(self.log_shown, self.bias.shape).astype(self.dtype))


def centred_energy(energies: np.ndarray) -> np.ndarray:
    """(K, 2L-1, 2L-1): sum of the (K, L, L) template energies inside the patch at each centred shift."""
    length = energies.shape[1]
    return _box_sums(energies, range(1 - length, length), length)


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
