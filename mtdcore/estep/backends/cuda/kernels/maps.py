"""Launches for the transforms of a library: spectra, and the posterior of maps (``kernels.cu``, ``kernels_amplitudes.cu``)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ....._base.typing import Array
from .....errors import ParameterError
from .launching import NULL, SCRATCH, THREADS, Launcher

#: Shared memory of a block of ``slide_log_sum``, so that a multiprocessor holds several.
_SLIDE_SHARED = 36 << 10


class Amplitudes(NamedTuple):
    """Energies and priors that go with maps if copies differ in amplitude; the maps then hold gains without energies.

    Attributes:
        variance: v > 0 of the amplitudes.
        lost: half the energy of each template, (K,) real; of the shape of the maps if invalid pixels change it.
        bias: (K,) real, added to the log-likelihood ratios of each template.
    """

    variance: float
    lost: Array
    bias: Array

    def part(self, cut: slice, items: slice) -> Amplitudes:
        """The same for some templates and items."""
        lost = self.lost[cut] if self.lost.ndim == 1 else self.lost[cut, items]
        return Amplitudes(self.variance, lost, self.bias[cut])


class MapKernels(Launcher):
    """From spectra to gains, from gains to weights, from weights to spectra of sums."""

    def correlate_spectra(
        self,
        pixels: Array,
        valid: Array | None,
        targets: Array,
        squares: Array | None,
        out: Array,
        level: Array | None = None,
    ) -> None:
        """Spectra of the gains, ``out[k, m] = pixels[m] conj(targets[k]) - valid[m] conj(squares[k])``.

        Args:
            pixels: (M, N1, N2 / 2 + 1) complex.
            valid: the same, or (1, ...) shared by all items; None, like ``squares``: without the second term.
            targets: (K, N1, N2 / 2 + 1) complex.
            squares: the same.
            out: (K, M, N1, N2 / 2 + 1) complex, written.
            level: (K,) real, added to the frequency 0 of each rotation.
        """
        rotations, items, *plane = out.shape
        self._check("pixels", pixels, self.complex, (items, *plane))
        self._check("targets", targets, self.complex, (rotations, *plane))
        masks = self._check_valid(valid, items, plane)
        if squares is not None:
            self._check("squares", squares, self.complex, (rotations, *plane))
        second = (NULL, NULL) if valid is None or squares is None else (valid, squares)
        self._check("out", out, self.complex, (rotations, items, *plane))
        packs = self._packs(plane, 2)
        columns, rows = self._grid(packs), min(rotations, self.grid_limit)
        depth = min(max(1, self._blocks // (columns * rows)), items, self.grid_limit)
        if level is not None:
            self._check("level", level, self.real, (rotations,))
        arrays = (pixels, second[0], targets, second[1], NULL if level is None else level, out)
        self._launch("correlate_spectra", (columns, rows, depth), arrays, (rotations, items, masks, packs))

    def backproject_spectra(
        self, pixels: Array, valid: Array | None, weights: Array, before: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        """Spectra of back-projection and coverage, summed over items in G groups.

        Args:
            pixels: (M, N1, N2 / 2 + 1) complex.
            valid: the same, or (1, ...) shared by all items; None: no spectra of coverage.
            weights: (K, M, N1, N2 / 2 + 1) complex.
            before: result of an earlier call for other items, to which this one is added.

        Returns:
            (2, G, K, N1, N2 / 2 + 1) complex, (1, ...) without coverage, and the sums of all weights (G, K) float64; the
            sums over G are left to the caller, in float64.
        """
        rotations, items, *plane = weights.shape
        self._check("pixels", pixels, self.complex, (items, *plane))
        masks = self._check_valid(valid, items, plane)
        self._check("weights", weights, self.complex, (rotations, items, *plane))
        packs = self._packs(plane, 2)
        columns, rows = self._grid(packs), min(rotations, self.grid_limit)
        kinds = 1 if valid is None else 2
        if before is None:
            groups = min(max(1, self._blocks // (columns * rows)), -(-items // 16), self.grid_limit)
            sums = self.xp.empty((kinds, groups, rotations, *plane), dtype=self.complex)
            mass = self.xp.empty((groups, rotations), dtype=np.float64)
        else:
            sums, mass = before
            groups = sums.shape[1]
            self._check("before", sums, self.complex, (kinds, groups, rotations, *plane))
            self._check("before", mass, np.dtype(np.float64), (groups, rotations))
        arrays = (pixels, NULL if valid is None else valid, weights, sums, mass)
        sizes = (rotations, items, masks, packs, before is not None)
        self._launch("backproject_spectra", (columns, rows, groups), arrays, sizes)
        return sums, mass

    def _check_valid(self, valid: Array | None, items: int, plane: list[int]) -> int:
        """Number of spectra of validity."""
        if valid is None:
            return 1
        masks = int(valid.shape[0])
        self._check("valid", valid, self.complex, (1 if masks == 1 else items, *plane))
        return masks

    def patch_posterior(
        self, maps: Array, box_size: int, log_shown: float, log_empty: float
    ) -> tuple[Array, Array]:
        """Convert gains to posterior weights in place, normalised over all poses of each patch.

        Args:
            maps: (K, M, N, N) real, N >= 2 L - 1; shift l at l modulo N. Empty poses become 0.
            box_size: side L of the target.
            log_shown: log prior of one pose that shows the target.
            log_empty: log prior of all empty poses together.

        Returns:
            Log-evidence (M,) against "empty" and posterior mass of the empty poses (M,), float64.
        """
        rotations, items, side, width = maps.shape
        self._check("maps", maps, self.real, (rotations, items, side, side))
        if width < 2 * box_size - 1:
            raise ParameterError(f"maps should be at least {2 * box_size - 1} pixels wide; got {width}.")
        self._packs((rotations, side, side), 4)
        evidence = self.xp.empty(items, dtype=np.float64)
        empty = self.xp.empty(items, dtype=np.float64)
        arguments = (maps, evidence, empty, self.real.type(log_shown), self.real.type(log_empty))
        grid = (min(items, 2**31 - 1), 1, 1)
        self._launch("patch_posterior", grid, arguments, (rotations, items, side, box_size), SCRATCH)
        return evidence, empty

    def window_posterior(
        self,
        maps: Array,
        corners: Array,
        log_activity: float,
        separation: int,
        amplitudes: Amplitudes | None = None,
    ) -> tuple[Array, Array]:
        """The posterior of a copy at each corner, in competition with its neighbours; :meth:`window_weights` is the next step.

        Args:
            maps: (K, M, N1, N2) real, Lambda at every corner; gains if amplitudes differ.
            corners: (M, 6) int32 per tile: numbers of rows and columns of corners, then first and last owned row, first
                and last owned column (half-open).
            log_activity: log lambda.
            separation: minimum separation d in pixels.
            amplitudes: if copies differ in amplitude.

        Returns:
            (M, N1, N2) real, log(1 + S) at owned corners and infinity elsewhere, and (M, G, 2) float64 partial sums:
            log(1 + S) - log(1 + S_0) over owned corners, and the sum of w.
        """
        rotations, items, rows, columns = maps.shape
        self._check("maps", maps, self.real, (rotations, items, rows, columns))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        packs, line_packs = self._packs((rows, columns), 4), self._packs((columns,), 4)
        if separation < 1 or line_packs < 1:
            raise ParameterError(f"the minimum separation must be at least 1 pixel; got {separation}.")
        log_prior = self.real.type(log_activity - math.log(rotations))
        odds = self.xp.empty((items, rows, columns), dtype=self.real)
        grid = (self._grid(packs), min(items, self.grid_limit), 1)
        sizes = (rotations, items, rows, columns)
        if amplitudes is None:
            self._launch("window_odds", grid, (maps, corners, odds, log_prior), sizes)
        else:
            arrays, numbers = self._apart(amplitudes, maps, (corners, odds), log_prior)
            self._launch("amplitude_odds", grid, (maps, *arrays), (*numbers, *sizes))
        return self.compete(odds, corners, log_activity, separation)

    def _apart(
        self, amplitudes: Amplitudes, maps: Array, others: tuple[Array, ...], log_prior: np.floating
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Arguments of the kernels for amplitudes: arrays and reals, then whether energies differ between windows."""
        everywhere = amplitudes.lost.ndim > 1
        self._check("lost", amplitudes.lost, self.real, tuple(maps.shape) if everywhere else (len(maps),))
        self._check("bias", amplitudes.bias, self.real, (len(maps),))
        variance = self.real.type(amplitudes.variance)
        return (amplitudes.lost, amplitudes.bias, *others, variance, log_prior), (everywhere,)

    def window_weights(
        self,
        maps: Array,
        normaliser: Array,
        log_prior: float,
        out: Array,
        amplitudes: Amplitudes | None = None,
        moment: int = 0,
    ) -> None:
        """Convert gains to posterior weights.

        Args:
            maps: (k, M, N1, N2) real, some of the maps of :meth:`window_posterior`.
            normaliser: (M, N1, N2) real, log(1 + S) of these items.
            log_prior: log(lambda / K), K the number of all rotations.
            out: like ``maps``, or the same array; becomes w at owned corners and 0 elsewhere.
            amplitudes: of these maps, if copies differ in amplitude.
            moment: power of the amplitude whose posterior mean multiplies the weights.
        """
        rotations, items, *plane = maps.shape
        self._check("maps", maps, self.real, (rotations, items, *plane))
        self._check("normaliser", normaliser, self.real, (items, *plane))
        self._check("out", out, self.real, (rotations, items, *plane))
        packs, layers = self._packs(plane, 4), min(items, self.grid_limit)
        grid = (self._grid(packs), layers, min(rotations, max(1, self._blocks // layers)))
        prior = self.real.type(log_prior)
        if amplitudes is None:
            self._launch("window_weights", grid, (maps, normaliser, out, prior), (rotations, items, packs))
        else:
            arrays, numbers = self._apart(amplitudes, maps, (normaliser, out), prior)
            sizes = (*numbers, moment, rotations, items, packs)
            self._launch("amplitude_weights", grid, (maps, *arrays), sizes)

    def compete(
        self, odds: Array, corners: Array, log_activity: float, separation: int
    ) -> tuple[Array, Array]:
        """The competition between corners.

        Args:
            odds: (M, N1, N2) real, log-odds A(x) of a copy at each corner, log 0 where there is no corner.
            corners: as in :meth:`window_posterior`.
            log_activity: log lambda.
            separation: minimum separation d in pixels.

        Returns:
            (M, N1, N2) log(1 + S) at owned corners and infinity elsewhere, and the sums of :meth:`window_posterior`.
        """
        items, rows, columns = odds.shape
        self._check("odds", odds, self.real, (items, rows, columns))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        layers = min(items, self.grid_limit)
        along, competition = (self.xp.empty((items, rows, columns), dtype=self.real) for _ in range(2))
        self._slide(odds, along, separation, axis=1)
        self._slide(along, competition, separation, axis=2)
        grid = (min(self._grid(rows * columns), max(1, self._blocks // layers)), layers, 1)
        sums = self.xp.empty((items, grid[0], 2), dtype=np.float64)
        arguments = (odds, competition, corners, sums, self.real.type(log_activity))
        self._launch("window_normaliser", grid, arguments, (separation, items, rows, columns), SCRATCH)
        return competition, sums

    def _slide(self, values: Array, out: Array, separation: int, axis: int) -> None:
        items, rows, columns = values.shape
        along_rows = (columns, 1, rows, columns)  # lines, their stride, length, stride along the line
        lines, line_stride, length, stride = along_rows if axis == 1 else (rows, columns, columns, 1)
        together, spans, shared = self._slide_blocks(lines, length, separation, line_stride == 1)
        window = 2 * separation - 1
        sizes = (
            items,
            np.int64(rows * columns),
            lines,
            line_stride,
            length,
            stride,
            separation,
            together,
            spans,
        )
        blocks = -(-lines // together) * -(-length // (spans * window))
        grid = (blocks, min(items, self.grid_limit), 1)
        self._launch("slide_log_sum", grid, (values, out), sizes, shared)

    def _slide_blocks(self, lines: int, length: int, separation: int, across: bool) -> tuple[int, int, int]:
        """Numbers of lines and spans of a block of :meth:`_slide`, and its bytes of shared memory.

        As few spans as cover the line, and as many threads, lines times spans, as fit.
        """
        window, whole = 2 * separation - 1, -(-length // (2 * separation - 1))

        def shared(together: int, spans: int) -> int:
            extents = (spans + 1) * window - 1, spans * window
            return self.real.itemsize * sum(together * (n if across else n | 1) for n in extents)

        def fits(together: int, spans: int) -> bool:
            return shared(together, spans) <= _SLIDE_SHARED

        together, spans = (32, 1) if across else (1, whole)
        while together > 1 and not fits(together, spans):
            together //= 2
        while spans > 1 and not fits(together, spans):
            spans -= 1
        while across and spans < whole and together * (spans + 1) <= THREADS and fits(together, spans + 1):
            spans += 1
        while (
            not across
            and 2 * together <= lines
            and 2 * together * spans <= THREADS
            and fits(2 * together, spans)
        ):
            together *= 2
        return together, spans, shared(together, spans)
