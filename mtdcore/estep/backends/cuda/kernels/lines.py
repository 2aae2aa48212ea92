"""Launches of our own transforms, two templates at a time (``kernels_pairs.cu``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....._base.typing import Array
from .....errors import ParameterError
from .launching import Launcher

#: Lengths of the transforms; points of a thread, columns of a block, points of the rows of a block.
LINE_LENGTHS = (512, 1024)
_POINTS, _LANES, _LINES = 8, 4, 2048


class LineKernels(Launcher):
    """Transforms of lines of planes, fused with the steps before and after them."""

    def correlate_lines(self, pixels: Array, pairs: Array, corners: Array, out: Array) -> None:
        """Products of spectra and their inverse transform along the columns: ``out[p, m] = ifft(pixels[m] conj(pairs[p]), axis=0)``, not divided.

        Args:
            pixels: (M, N1, N2) complex spectra of the tiles.
            pairs: (P, N1, N2) complex spectra of the templates 2 p minus i times those of 2 p + 1.
            corners: as in :meth:`window_posterior`; rows without a corner are left as they are.
            out: (P, M, N1, N2) complex, written.
        """
        count, items, side, columns = self._check_pairs(pixels, corners, out)
        self._check("pairs", pairs, self.complex, (count, side, columns))
        grid = (columns // _LANES * count, self._groups(columns // _LANES * count, items), 1)
        self._lines("correlate_lines", side, grid, (pixels, pairs, corners, out), (count, items, columns))

    def odds_lines(self, planes: Array, level: Array, corners: Array, log_prior: float) -> Array:
        """Gains of two templates per plane by the inverse transform along the rows, in place, and the log-odds of a copy at each corner.

        Args:
            planes: (P, M, N1, N2) complex, of :meth:`correlate_lines`.
            level: (2 P,) real, added to the gains of each template.
            corners: as in :meth:`window_posterior`.
            log_prior: log(lambda / K).

        Returns:
            (M, N1, N2) real, log 0 where there is no corner.
        """
        count, items, rows, side = planes.shape
        self._check("planes", planes, self.complex, (count, items, rows, side))
        self._check("level", level, self.real, (2 * count,))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        odds = self.xp.empty((items, rows, side), dtype=self.real)
        arguments = (planes, level, corners, odds, self.real.type(log_prior))
        grid = (-(-rows // (_LINES // side)), items, 1)
        self._lines("odds_lines", side, grid, arguments, (count, items, rows))
        return odds

    def weigh_lines(self, planes: Array, normaliser: Array, corners: Array, log_prior: float) -> None:
        """Convert gains to weights, as :meth:`window_weights`, and transform them along the rows, in place; owned rows only."""
        count, items, rows, side = planes.shape
        self._check("planes", planes, self.complex, (count, items, rows, side))
        self._check("normaliser", normaliser, self.real, (items, rows, side))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        arguments = (planes, normaliser, corners, self.real.type(log_prior))
        across = -(-rows // (_LINES // side))
        grid = (across, items, min(count, max(1, self._blocks // (across * items)), self.grid_limit))
        self._lines("weigh_lines", side, grid, arguments, (count, items, rows))

    def backproject_lines(
        self, planes: Array, pixels: Array, corners: Array, before: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        """Spectra of the back-projections of two templates at a time, summed over items in G groups.

        Args:
            planes: (P, M, N1, N2) complex, of :meth:`weigh_lines`.
            pixels: (M, N1, N2) complex spectra of the tiles.
            corners: as in :meth:`window_posterior`.
            before: result of an earlier call for the same number of items, to which this one is added.

        Returns:
            (G, P, N1, N2) complex, spectra of the frames of the templates 2 p minus i times those of 2 p + 1, and the sums of all
            weights (G, 2 P) float64.
        """
        count, items, side, columns = self._check_pairs(pixels, corners, planes)
        groups = self._groups(columns // _LANES * count, items)
        if before is None:
            sums = self.xp.empty((groups, count, side, columns), dtype=self.complex)
            mass = self.xp.empty((groups, 2 * count), dtype=np.float64)
        else:
            sums, mass = before
            self._check("before", sums, self.complex, (groups, count, side, columns))
            self._check("before", mass, np.dtype(np.float64), (groups, 2 * count))
        grid = (columns // _LANES * count, groups, 1)
        sizes = (count, items, columns, before is not None)
        self._lines("backproject_lines", side, grid, (planes, pixels, corners, sums, mass), sizes)
        return sums, mass

    def _groups(self, blocks: int, items: int) -> int:
        """Number of groups, each of 16 items or fewer, such that their blocks fill the device."""
        return min(items, max(-(-items // 16), self._blocks // blocks), self.grid_limit)

    def _check_pairs(self, pixels: Array, corners: Array, planes: Array) -> tuple[int, int, int, int]:
        """Numbers of pairs, items, rows and columns."""
        count, items, side, columns = planes.shape
        self._check("planes", planes, self.complex, (count, items, side, columns))
        self._check("pixels", pixels, self.complex, (items, side, columns))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        return count, items, side, columns

    def _lines(
        self,
        name: str,
        side: int,
        grid: tuple[int, int, int],
        arguments: tuple[Any, ...],
        sizes: tuple[Any, ...],
    ) -> None:
        """Launch a kernel that transforms lines of this length."""
        if side not in LINE_LENGTHS:
            raise ParameterError(f"lines should have one of the lengths {LINE_LENGTHS}; got {side}.")
        columns = name in ("correlate_lines", "backproject_lines")
        together = _LANES if columns else _LINES // side
        points = side - _POINTS + together * (side + side // _POINTS)  # factors; points, with gaps
        shared = self.complex.itemsize * points
        self._launch(f"{name}_{side}", grid, arguments, sizes, shared, together * side // _POINTS)
