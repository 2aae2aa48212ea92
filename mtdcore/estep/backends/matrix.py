"""The window model as matrix products: for hundreds of templates and more, in array-API terms.

Band-limited templates lie in a small space of images, spanned by r = pi (band L)^2 functions, the sines and cosines of the box. Every window
of a tile has r coefficients in this basis (its *features*). Scores are one matrix product, with T r multiplications per window, compared with
T log(pixels) by transforms; the right side is a second product (docs/model.md 7 and 14).

Features are computed row by row: by a sliding transform along columns, then, for each column frequency, by a banded matrix along rows that
gives several rows of windows at once. Only blocks of windows exist at any time. Everything is computed on the device of the arrays, in any
library with ``matmul`` and ``take``: pixels and the basis are copied there; only scores and sums return.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..._base.numerics.conversion import on_host
from ..._base.typing import Array
from ...model.likelihood.amplitudes import Amplitudes
from .array.backend import ArrayBackend


@dataclass(frozen=True)
class Portions:
    """Sizes of the parts that are computed at once.

    Attributes:
        rows: rows of windows of one banded product; more rows cost multiplications by 0, fewer rows cost calls.
        windows: single windows that are cut out at once.
        scores: scores of one block, which passes through product, maximum, exponential and sum.
    """

    rows: int
    windows: int
    scores: int

    @classmethod
    def of(cls, arrays: ArrayBackend) -> Portions:
        """Sizes for the cache of a CPU, or larger ones for a device, which would wait for its host between small parts."""
        return cls(16, 2048, 1 << 18) if arrays.in_host_memory else cls(64, 8192, 1 << 26)


#: Rows of windows whose column sums are kept at once, a multiple of :attr:`Portions.rows`.
_STRIP = 128


@dataclass(frozen=True, eq=False)
class Basis:
    """Orthonormal functions of a box: the constant, and cosine and sine of each frequency up to a band.

    Attributes:
        box_size: side L in pixels.
        band: highest frequency in cycles per pixel; 1/2 itself is left out, as by :class:`mtdcore.model.volumes.projections.Projections`.
    """

    box_size: int
    band: float

    @cached_property
    def _frequencies(self) -> list[tuple[int, list[int]]]:
        """Column frequencies 0, 1, ... with their row frequencies, in periods per box; k also represents -k."""
        largest = min(self.band * self.box_size + 1e-9, self.box_size / 2 - 1e-9)
        found = []
        for column in range(int(largest) + 1):
            most = int(math.sqrt(largest**2 - column**2))
            found.append((column, list(range(0 if column == 0 else -most, most + 1))))
        return found

    @cached_property
    def functions(self) -> np.ndarray:
        """(r, L, L) float64, orthonormal."""
        at = 2.0 * np.pi * np.arange(self.box_size) / self.box_size
        found = []
        for column, rows in self._frequencies:
            for wave in (np.cos, np.sin):
                for row in rows:
                    if row == column == 0 and wave is np.sin:
                        continue
                    found.append(wave(row * at[:, None] + column * at))
        images = np.array(found)
        return np.asarray(images / np.sqrt((images**2).sum(axis=(1, 2), keepdims=True)))

    @cached_property
    def lengths(self) -> np.ndarray:
        """(r,) float64 length of the frequency of each function, cycles per pixel."""
        found = []
        for column, rows in self._frequencies:
            waves = [math.hypot(row, column) / self.box_size for row in rows]
            found += waves + [length for length in waves if length > 0.0]  # the constant has no sine
        return np.array(found)

    @cached_property
    def _waves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(r, 2) frequencies (along rows, along columns) in periods per box; (r,) index of the sine of a cosine, and of the cosine of a sine;
        (r,) sign of each: + for a cosine.
        """
        waves: list[tuple[int, int]] = []
        other: list[int] = []
        sign: list[float] = []
        for column, rows in self._frequencies:
            first, paired = len(waves), [row for row in rows if row or column]
            alone = len(rows) - len(paired)  # the constant has no sine
            cosines = np.arange(first + alone, first + len(rows))
            waves += [(row, column) for row in (*rows, *paired)]
            other += [*range(first, first + alone), *(cosines + len(paired)), *cosines]
            sign += [1.0] * len(rows) + [-1.0] * len(paired)
        return np.array(waves, np.float64), np.array(other), np.array(sign)

    @property
    def size(self) -> int:
        """Number r of functions."""
        return len(self.functions)

    def between(self, offset: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The functions moved down and to the right by an offset in pixels, in a periodic box, each as a sum of two functions of the basis.

        ``cos k(x - o) = cos ko cos kx + sin ko sin kx`` and ``sin k(x - o) = cos ko sin kx - sin ko cos kx``.

        Returns:
            (r,) factor of the function itself, (r,) factor of the other function, (r,) index of the other function.
        """
        waves, other, sign = self._waves
        turn = 2.0 * np.pi / self.box_size * (waves @ np.asarray(offset))
        return np.cos(turn), sign * np.sin(turn), other

    def coefficients(self, templates: np.ndarray) -> np.ndarray:
        """(T, L, L) band-limited images -> (T, r)."""
        return np.asarray(templates.reshape(len(templates), -1) @ self.functions.reshape(self.size, -1).T)

    def images(self, coefficients: np.ndarray) -> np.ndarray:
        """(T, r) -> (T, L, L): the transpose of :meth:`coefficients`, and its inverse on the band."""
        flat = coefficients @ self.functions.reshape(self.size, -1)
        return np.asarray(flat.reshape(-1, self.box_size, self.box_size))

    @cached_property
    def across(self) -> np.ndarray:
        """(L, 2 m) float64: cosines, then sines, of the m column frequencies."""
        at = 2.0 * np.pi * np.arange(self.box_size) / self.box_size
        angle = at[:, None] * np.array([column for column, _ in self._frequencies])
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)

    @cached_property
    def along(self) -> list[np.ndarray]:
        """For each column frequency (functions, 2, L) float64: factors of its column sums, cosine and sine, at the rows of a window.

        ``cos(a + b) = cos a cos b - sin a sin b`` and ``sin(a + b) = sin a cos b + cos a sin b``, a along rows, b across.
        """
        side, found = self.box_size, []
        at = 2.0 * np.pi * np.arange(side) / side
        for column, waves in self._frequencies:
            turn = np.array(waves)[:, None] * at
            blocks = np.concatenate(
                [
                    np.stack([np.cos(turn), -np.sin(turn)], axis=1),
                    np.stack([np.sin(turn), np.cos(turn)], axis=1)[1 if column == 0 else 0 :],
                ]
            )  # the constant has no sine
            scale = (
                np.where(np.arange(len(blocks)) == 0, 1.0, math.sqrt(2.0)) if column == 0 else math.sqrt(2.0)
            )
            found.append(blocks * (np.broadcast_to(scale, len(blocks))[:, None, None] / side))
        return found


def _banded(factors: np.ndarray, rows: int, arrays: ArrayBackend) -> Array:
    """(functions * rows, 2 (rows + L - 1)): the factors of each row of windows at its own rows of pixels, and zeros."""
    xp, (count, _, side) = arrays.xp, factors.shape
    padded = arrays.moved(np.pad(factors, ((0, 0), (0, 0), (0, 1))), arrays.precision)
    place = np.arange(rows + side - 1) - np.arange(rows)[:, None]
    place[(place < 0) | (place > side)] = side  # the zero after the factors
    banded = xp.take(padded, arrays.moved(place.ravel(), "int64"), axis=2)
    banded = xp.permute_dims(xp.reshape(banded, (count, 2, rows, -1)), (0, 2, 1, 3))
    return xp.reshape(banded, (count * rows, -1))


class Features:
    """The windows of one tile in a basis.

    Args:
        values: (H, W) host pixels, 0 where invalid.
        basis: of the templates.
        arrays: library, device and precision of the computation.
    """

    def __init__(self, values: np.ndarray, basis: Basis, arrays: ArrayBackend) -> None:
        self.basis, self.arrays, self.xp = basis, arrays, arrays.xp
        self._values = arrays.moved(values, arrays.precision)
        self.shape = (values.shape[0] - basis.box_size + 1, values.shape[1] - basis.box_size + 1)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """(windows in row-major order, their (r, n) features), a few rows of windows at a time."""
        xp, side = self.xp, self.basis.box_size
        rows, columns = self.shape
        step = min(Portions.of(self.arrays).rows, rows)
        along = [_banded(factors, step, self.arrays) for factors in self.basis.along]
        for strip in range(0, rows, _STRIP):
            last = min(strip + _STRIP, rows)
            above = min(strip, rows - step)  # a strip with too few rows overlaps the one before
            sums = self._across(slice(above, last + side - 1))
            for start in range(strip, last, step):
                first = min(start, last - step) if last - step >= above else above
                parts = []
                for wave, matrix in enumerate(along):
                    near = sums[wave, :, first - above : first - above + step + side - 1, :]
                    parts.append(xp.reshape(matrix @ xp.reshape(near, (-1, columns)), (-1, step, columns)))
                fresh = xp.concat(parts)[:, start - first :, :]
                yield (
                    slice(start * columns, (first + step) * columns),
                    xp.reshape(fresh, (self.basis.size, -1)),
                )

    def at(self, windows: np.ndarray) -> Array:
        """(r, n) features of single windows, given by (n,) host indices in row-major order."""
        xp, side, arrays = self.xp, self.basis.box_size, self.arrays
        width = self._values.shape[1]
        inside = arrays.moved((np.arange(side)[:, None] * width + np.arange(side)).ravel(), "int64")
        corner = arrays.moved(windows // self.shape[1] * width + windows % self.shape[1], "int64")
        places = xp.reshape(inside[:, None] + corner[None, :], (-1,))
        cut = xp.take(xp.reshape(self._values, (-1,)), places)
        return self._functions @ xp.reshape(cut, (side * side, len(windows)))

    def moved(self, features: Array, offset: tuple[float, float]) -> Array:
        """(r, n) features of windows in the functions moved by an offset, for copies between pixels, see :meth:`Basis.between`."""
        if offset == (0.0, 0.0):
            return features
        arrays, (own, its, other) = self.arrays, self.basis.between(offset)
        own, its = (arrays.moved(factor[:, None], arrays.precision) for factor in (own, its))
        return own * features + its * self.xp.take(features, arrays.moved(other, "int64"), axis=0)

    @cached_property
    def _functions(self) -> Array:
        """(r, L L) functions of the basis."""
        flat = self.basis.functions.reshape(self.basis.size, -1)
        return self.arrays.moved(flat, self.arrays.precision)

    def _across(self, strip: slice) -> Array:
        """(m, 2, h, Q) column sums: each row of pixels of a strip times the column waves, at each place of the window."""
        xp, side = self.xp, self.basis.box_size
        values, columns = self._values[strip, :], self.shape[1]
        places = (np.arange(columns)[:, None] + np.arange(side)).ravel()
        windows = xp.reshape(xp.take(values, self.arrays.moved(places, "int64"), axis=1), (-1, side))
        sums = windows @ self.arrays.moved(self.basis.across, self.arrays.precision)
        return xp.permute_dims(xp.reshape(sums, (values.shape[0], columns, 2, -1)), (3, 2, 0, 1))


class Scores:
    """Log-odds of T templates at windows, from features.

    Args:
        coefficients: (T, r) float64 of the templates.
        noise_std: noise standard deviation of a pixel.
        log_prior: (T,) float64 or a number, log (lam / T) of each template.
        arrays: library, device and precision that compute.
        amplitudes: of the copies; None: all are 1.
    """

    def __init__(
        self,
        coefficients: np.ndarray,
        noise_std: float,
        log_prior: np.ndarray | float,
        arrays: ArrayBackend,
        amplitudes: Amplitudes | None = None,
    ) -> None:
        self._arrays, self.xp, self.count = arrays, arrays.xp, len(coefficients)
        self._amplitudes, self._variance = amplitudes, noise_std**2
        energy = ((coefficients**2).sum(axis=1) / noise_std**2)[:, None]
        prior = np.broadcast_to(log_prior, self.count)[:, None]
        self._filters = arrays.moved(coefficients / noise_std**2, arrays.precision)
        self._energy = arrays.moved(energy, arrays.precision)
        # if all amplitudes are 1, the energies are constants per template, like the prior
        self._bias = arrays.moved(prior - (0.5 * energy if amplitudes is None else 0.0), arrays.precision)
        self._block = max(128, Portions.of(arrays).scores // self.count)

    def log_odds(self, features: Array) -> Array:
        """(n,) log of the sum over templates, by blocks of windows."""
        xp = self.xp
        found = []
        for _, seen in self._seen(features):
            scores = self._ratios(self._filters @ seen) + self._bias
            peak = xp.max(scores, axis=0)
            found.append(peak + xp.log(xp.sum(xp.exp(scores - peak), axis=0)))
        return xp.concat(found)

    def best(self, features: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) int64, float64, float64 on the host: template of the highest score at each window, its score, its posterior mean amplitude."""
        xp, found, highest, means = self.xp, [], [], []
        for _, seen in self._seen(features):
            gains = self._filters @ seen
            scores = self._ratios(gains) + self._bias
            found.append(on_host(xp.argmax(scores, axis=0), np.int64))
            highest.append(on_host(xp.max(scores, axis=0), np.float64))
            mean = on_host(self._moment(1, gains))
            means.append(np.take_along_axis(np.broadcast_to(mean, gains.shape), found[-1][None], axis=0)[0])
        return np.concatenate(found), np.concatenate(highest), np.concatenate(means).astype(np.float64)

    def matched(self, features: Array, templates: np.ndarray) -> np.ndarray:
        """(n,) float64 on the host: ``<F, y> / sigma^2`` of each window and its template, given by (n,) host indices."""
        filters = self.xp.take(self._filters, self._arrays.moved(templates, "int64"), axis=0)
        return on_host(self.xp.sum(self.xp.matrix_transpose(filters) * features, axis=0), np.float64)

    def nothing(self) -> tuple[Array, Array]:
        """The sums of no window, see :meth:`project`."""
        return self._arrays.moved(np.zeros(self._filters.shape)), self._arrays.moved(
            np.zeros((3, self.count))
        )

    def project(self, features: Array, log_norm: Array) -> tuple[Array, Array]:
        """Posterior-weighted sums, float64: (T, r) features times amplitudes; (3, T) expected counts, amplitudes, and squares of amplitudes.

        Args:
            features: (r, n).
            log_norm: (n,) log (1 + S) at the windows.
        """
        xp = self.xp
        wide, copies = self.nothing()
        for block, seen in self._seen(features):
            gains = self._filters @ seen
            weights = self._weights(gains, log_norm[block])
            count = xp.sum(weights, axis=1, dtype=xp.float64)
            shown, sums = weights, [count] * 3
            if self._amplitudes is not None:
                shown = weights * self._moment(1, gains)
                more = (shown, weights * self._moment(2, gains))
                sums = [count, *(xp.sum(one, axis=1, dtype=xp.float64) for one in more)]
            wide = wide + xp.astype(shown @ xp.matrix_transpose(seen), xp.float64)
            copies = copies + xp.stack(sums)
        return wide, copies

    def explained(self, wide: Array, squares: Array) -> float:
        """Energy that the copies explain, ``sum_t 2 <c_t, b_t> - n_t ||c_t||^2``.

        Args:
            wide: (T, r) b as :meth:`project` gives it.
            squares: (T,) n, sums of the squared amplitudes of the copies.
        """
        xp = self.xp
        shown = xp.sum(xp.astype(self._filters, xp.float64) * wide)
        own = xp.sum(xp.astype(self._energy[:, 0], xp.float64) * squares)
        return self._variance * float(2.0 * shown - own)

    def expected(self, features: Array, log_norm: Array) -> Array:
        """(r, n) float64 coefficients of the posterior mean of the copy at each window; arguments as of :meth:`project`."""
        xp, found = self.xp, []
        for block, seen in self._seen(features):
            gains = self._filters @ seen
            weights = self._weights(gains, log_norm[block]) * self._moment(1, gains)
            shown = xp.matrix_transpose(self._filters) @ weights
            found.append(xp.astype(shown, xp.float64) * self._variance)
        return xp.concat(found, axis=1)

    def _ratios(self, gains: Array) -> Array:
        """(T, n) log-likelihood ratios; if all amplitudes are 1, without half the energy."""
        amplitudes = self._amplitudes
        return gains if amplitudes is None else amplitudes.log_ratio(gains, self._energy)

    def _weights(self, gains: Array, log_norm: Array) -> Array:
        """(T, n) posterior weights."""
        shift = self.xp.astype(log_norm, self._filters.dtype)
        return self.xp.exp(self._ratios(gains) + (self._bias - shift))

    def _moment(self, order: int, gains: Array) -> Array:
        """Posterior mean of the amplitude to the power ``order``, (T, n) or a 1 that broadcasts."""
        if self._amplitudes is None:
            return self.xp.ones((1, 1), dtype=gains.dtype)
        return self._amplitudes.moment(order, gains, self._energy)

    def _seen(self, features: Array) -> Iterator[tuple[slice, Array]]:
        """Blocks of windows, and their features."""
        windows = features.shape[1]
        for start in range(0, windows, self._block):
            block = slice(start, min(start + self._block, windows))
            yield block, features[:, block]
