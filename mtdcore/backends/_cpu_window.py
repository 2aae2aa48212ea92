"""Window E-step on the CPU: local exclusion in the log domain over correlation maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import fft

from .._typing import Array
from ..likelihood import Tile, WindowLikelihood
from ..statistics import Statistics
from . import _cpu_kernels as kernels

#: Largest box for which direct sums beat the transforms (measured crossover, see bench/README.md).
DIRECT_BOX = 8


#: Log-odds below which sums over a neighbourhood stay inside float32.
_LARGEST_EXPONENT = 60.0


class Correlator(Protocol):
    """Correlates tiles with templates and back-projects weights, by one method or another."""

    def image(self, values: np.ndarray) -> Array:
        """The tile in the form that the other operations take."""
        ...

    def correlate(self, image: Array, templates: np.ndarray, k: int) -> np.ndarray:
        """Map whose entry x is ``sum_u image[x + u] template_k[u]``; a fresh array, larger than needed or not."""
        ...

    def templates(self, turned: np.ndarray) -> np.ndarray:
        """(K, L, L) templates in the form that :meth:`correlate` takes."""
        ...

    def backproject(self, image: Array, weights: np.ndarray, owned: tuple[slice, slice], k: int) -> None:
        """Add ``sum_x weights[x] image[x + u]`` to the running sum of rotation k; ``weights`` is consumed."""
        ...

    def result(self) -> np.ndarray:
        """(K, B, B) float64 running sums."""
        ...


class FourierCorrelator:
    """Correlations as products on a torus that holds a tile and its margin."""

    def __init__(self, torus: tuple[int, int], rotations: int, frame: np.ndarray, dtype: np.dtype) -> None:
        self.torus, self.frame = torus, frame
        shape = (rotations, torus[0], torus[1] // 2 + 1)
        self.sums = np.zeros(shape, np.result_type(dtype, np.complex64))

    def image(self, values: np.ndarray) -> np.ndarray:
        """(1, R, C) spectrum."""
        return np.asarray(fft.rfft2(values, s=self.torus))[None]

    def templates(self, turned: np.ndarray) -> np.ndarray:
        """(K, R, C) conjugate spectra."""
        return np.asarray(fft.rfft2(turned, s=self.torus).conj())

    def correlate(self, image: np.ndarray, templates: np.ndarray, k: int) -> np.ndarray:
        """(N, N') circular correlation; entries that wrap around are never owned."""
        return np.asarray(fft.irfft2(image[0] * templates[k], s=self.torus, overwrite_x=True))

    def backproject(self, image: np.ndarray, weights: np.ndarray, owned: tuple[slice, slice], k: int) -> None:
        """Accumulate in the spectral domain."""
        spectrum = fft.rfft2(weights, overwrite_x=True)
        kernels.accumulate_spectra(self.sums[k : k + 1], image, spectrum[None, None])

    def result(self) -> np.ndarray:
        """Inverse transform of the sums, cropped to the frame; one rotation at a time to spare memory."""
        crop = np.ix_(self.frame % self.torus[0], self.frame % self.torus[1])
        return np.stack([fft.irfft2(s, s=self.torus)[crop] for s in self.sums]).astype(np.float64)


class DirectCorrelator:
    """Plain sums over the pixels of the box, for small boxes."""

    def __init__(self, rotations: int, frame: np.ndarray) -> None:
        self.margin = int(-frame[0])
        self.sums = np.zeros((rotations, frame.size, frame.size))

    def image(self, values: np.ndarray) -> np.ndarray:
        """The tile with its margin."""
        return np.pad(values, self.margin)

    def templates(self, turned: np.ndarray) -> np.ndarray:
        """The templates themselves."""
        return turned

    def correlate(self, image: np.ndarray, templates: np.ndarray, k: int) -> np.ndarray:
        """(P, Q) correlation at every corner of the tile."""
        length, m = templates.shape[1], self.margin
        out = np.empty(tuple(n - 2 * m - length + 1 for n in image.shape), image.dtype)
        kernels.window_correlate(image[m:, m:], templates[k], out)
        return out

    def backproject(self, image: np.ndarray, weights: np.ndarray, owned: tuple[slice, slice], k: int) -> None:
        """Sum over the owned corners."""
        rows, columns = owned
        kernels.window_backproject(image[rows.start :, columns.start :], weights[owned], self.sums[k])

    def result(self) -> np.ndarray:
        """The sums themselves."""
        return self.sums


class WindowPlan:
    """What one E-step prepares once and every tile uses: templates, energies, activity."""

    #: Tiles whose sums share one float32 accumulator: the closing transform is then a quarter per tile.
    group = 4

    def __init__(
        self,
        turned: np.ndarray,
        likelihood: WindowLikelihood,
        dtype: np.dtype,
        largest_read: tuple[int, int],
    ) -> None:
        self.likelihood, self.dtype = likelihood, dtype
        self.turned = (turned / likelihood.noise_std**2).astype(dtype)
        energies = 0.5 * turned**2 / likelihood.noise_std**2
        self.energy = energies.sum(axis=(1, 2))
        self.energies = energies.astype(dtype)
        self.log_rate = likelihood.log_activity - math.log(len(turned)) + likelihood.template_bias
        self.torus = tuple(fft.next_fast_len(n + likelihood.margin, real=True) for n in largest_read)
        self.templates = self._correlator().templates(self.turned)

    def statistics(self, tiles: Sequence[Tile]) -> Statistics:
        """Sum of the statistics of the tiles."""
        likelihood = self.likelihood
        projected = self._correlator()
        covered: Correlator | None = None
        interior = np.zeros(len(self.turned))
        evidence = count = energy = 0.0
        sites = pixels = 0
        for tile in tiles:
            image, seen, maps, offsets, log_norm, gain = self._compete(tile, projected)
            top, left = (s.start for s in tile.owned)
            for k, scores in enumerate(maps):
                mass = kernels.window_weights(scores, self.dtype.type(offsets[k]), log_norm, top, left)
                count += mass
                if seen is None:
                    interior[k] += mass
                else:
                    covered = covered or self._correlator()
                    covered.backproject(seen, scores.copy(), tile.owned, k)
                projected.backproject(image, scores, tile.owned, k)
            evidence += gain
            sites += log_norm.size
            tile_energy, tile_pixels = owned_energy(tile)
            energy, pixels = energy + tile_energy, pixels + tile_pixels
        coverage = interior[:, None, None] + (0.0 if covered is None else covered.result())
        backprojection = projected.result()
        return Statistics(
            backprojection,
            np.broadcast_to(coverage, backprojection.shape).copy(),
            log_likelihood=evidence,
            energy=energy,
            expected_count=count,
            empty_mass=0.0,
            sites=sites,
            pixels=pixels,
            noise_std=likelihood.noise_std,
            box_size=likelihood.box_size,
        )

    def posterior(self, tile: Tile) -> np.ndarray:
        """(K, owned rows, owned columns) weights."""
        _, _, maps, offsets, log_norm, _ = self._compete(tile, self._correlator())
        top, left = (s.start for s in tile.owned)
        owned = (slice(top, top + log_norm.shape[0]), slice(left, left + log_norm.shape[1]))
        for scores, offset in zip(maps, offsets, strict=True):
            kernels.window_weights(scores, self.dtype.type(offset), log_norm, top, left)
        return np.stack([scores[owned] for scores in maps])

    def log_odds(self, tile: Tile) -> np.ndarray:
        """(P, Q) log-odds of a copy at every corner of the pixels of the tile, before they compete."""
        return self._score(tile, self._correlator())[-1]

    def _correlator(self) -> Correlator:
        likelihood = self.likelihood
        frame = np.arange(-likelihood.margin, likelihood.box_size + likelihood.margin)
        if likelihood.box_size <= DIRECT_BOX:
            return DirectCorrelator(len(self.turned), frame)
        return FourierCorrelator(self.torus, len(self.turned), frame, self.dtype)

    def _compete(
        self, tile: Tile, correlator: Correlator
    ) -> tuple[Array, Array | None, list[np.ndarray], np.ndarray, np.ndarray, float]:
        """Score every corner and let neighbours compete.

        Returns what :meth:`_score` does, but for the log-odds log(1 + S) at the owned corners and their evidence.
        """
        image, seen, maps, offsets, log_odds = self._score(tile, correlator)
        log_norm = self._log_partition(log_odds, tile)
        gain = log_norm.sum(dtype=np.float64) - self.likelihood.blank(tile)
        return image, seen, maps, offsets, log_norm, float(gain) / self.likelihood.neighbourhood

    def _score(
        self, tile: Tile, correlator: Correlator
    ) -> tuple[Array, Array | None, list[np.ndarray], np.ndarray, np.ndarray]:
        """Score every corner.

        Returns the image and the valid mask as the correlator holds them (None where every pixel that the
        statistics touch is valid), the score maps, the constant to add to each for log a_k, and their
        log-sum-exp over templates.
        """
        likelihood = self.likelihood
        corners = tuple(n - likelihood.box_size + 1 for n in tile.values.shape)
        values, valid = np.asarray(tile.values, dtype=self.dtype), tile.valid
        masked = valid is not None and not valid.all()
        if valid is not None and masked:
            values = np.where(valid, values, self.dtype.type(0))
        image = correlator.image(np.ascontiguousarray(values))
        maps = [correlator.correlate(image, self.templates, k) for k in range(len(self.turned))]
        seen = None
        if masked or not self._margin_inside(tile):
            ones = np.ones(values.shape, self.dtype) if valid is None else valid.astype(self.dtype)
            seen = correlator.image(ones)
        if masked:
            energies = correlator.templates(self.energies)
            for k, scores in enumerate(maps):
                scores -= correlator.correlate(seen, energies, k)
            offsets = self.log_rate
        else:
            offsets = self.log_rate - self.energy
        peak = np.full(corners, kernels.LOG_ZERO, self.dtype)
        total = np.zeros(corners, self.dtype)
        for scores, offset in zip(maps, offsets, strict=True):
            kernels.fold_log_sum(scores, self.dtype.type(offset), peak, total)
        kernels.finish_log_sum(peak, total)
        return image, seen, maps, offsets, peak

    def _log_partition(self, log_odds: np.ndarray, tile: Tile) -> np.ndarray:
        """log(1 + S) at the owned corners; ``log_odds`` is consumed.

        Plain sums while no number can overflow, which is faster; in the log domain otherwise.
        """
        reach = self.likelihood.separation - 1
        logarithmic = not float(log_odds.max()) < _LARGEST_EXPONENT
        if not logarithmic:
            kernels.exponentiate(log_odds)
        rows, columns = tile.owned
        down = kernels.slide_sum(log_odds, reach, logarithmic)[rows]
        across = kernels.slide_sum(np.ascontiguousarray(down.T), reach, logarithmic)
        log_norm = np.ascontiguousarray(across[columns].T)
        kernels.log_partition(log_norm, logarithmic)
        return log_norm

    def _margin_inside(self, tile: Tile) -> bool:
        """Whether the margin around every owned window lies inside the micrograph."""
        margin, reach = self.likelihood.margin, tile.geometry.reach
        return all(
            owned.start >= margin and owned.stop + reach + margin <= length
            for owned, length in zip(tile.region.owned, tile.micrograph_shape, strict=True)
        )


def owned_energy(tile: Tile) -> tuple[float, int]:
    """Energy and number of the valid pixels that this tile alone counts."""
    cut = tile.owned_pixels
    values = np.asarray(tile.values[cut])
    kept = None if tile.valid is None else tile.valid[cut]
    if kept is not None:
        values = np.where(kept, values, values.dtype.type(0))
    # rows in the precision of the tile, their sum in float64: no float64 copy of the tile
    energy = np.einsum("ij,ij->i", values, values).sum(dtype=np.float64)
    return float(energy), values.size if kept is None else int(kept.sum())
