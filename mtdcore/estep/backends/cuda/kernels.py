"""The one place that launches the kernels of ``kernels.cu``: every array is checked before its pointer goes out.

A kernel function has the call of ``cupy.RawKernel``: ``function(grid, block, arguments, shared_mem=bytes)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...._base.typing import Array
from ....errors import ParameterError

KernelFunction = Callable[..., None]

#: Threads of a block, and the bytes of shared memory that one block scratches for a reduction.
_THREADS = 256
_SCRATCH = 16 * (_THREADS // 32)

#: Shared memory that every device gives a block without being asked.
SHARED_LIMIT = 48 << 10

#: Kernels by box, threads of a block and patches of a thread, as ``kernels_small.cu`` has them.
_SMALL_BOXES = {3: "patch_small_3", 4: "patch_small_4", 5: "patch_small_5"}
_SMALL_THREADS, _SMALL_RUN = 128, 16

#: Threads of a block of ``patch_rows``.
_ROW_THREADS = 512

#: Columns of :meth:`Kernels.cut_windows` that hold no pixel.
ZEROS, ONES = -(1 << 30), -(1 << 30) - 1

#: The text of the kernels, in order: the other files build on the first.
_SOURCES = (
    "kernels",
    "kernels_amplitudes",
    "kernels_fourier",
    "kernels_pairs",
    "kernels_matrix",
    "kernels_patches",
    "kernels_patch_fused",
    "kernels_small",
)

#: Shared memory of a block of ``slide_log_sum``, so that a multiprocessor holds several.
_SLIDE_SHARED = 36 << 10

#: Transforms of our own: lengths; points of a thread, columns of a block, points of the rows of a block (``kernels_pairs.cu``).
LINE_LENGTHS = (512, 1024)
_POINTS, _LANES, _LINES = 8, 4, 2048

#: Blocks of 256 threads that one multiprocessor holds.
BLOCKS_PER_MULTIPROCESSOR = 8

#: Sides of the torus of a fused patch; its kernels by side and pairs of templates, and blocks that a multiprocessor holds
#: (``kernels_patch_fused.cu``).
FUSED_SIDES = (32, 64)
_FUSED = {(side, pairs): f"patch_fused_{side}_{pairs}" for side in FUSED_SIDES for pairs in (1, 2)}
_FUSED_BLOCKS = {(32, 1): 6, (32, 2): 4, (64, 1): 1, (64, 2): 1}

#: A pointer to nothing.
_NULL: Any = np.uintp(0)

#: Largest extent of a grid in y and z.
_GRID_LIMIT = 65535


class Amplitudes(NamedTuple):
    """What the maps of copies that differ in amplitude come with, which then hold gains alone.

    Attributes:
        variance: v > 0 of the amplitudes.
        lost: half the energy of each template, (K,) real, or, where invalid pixels change it, as the maps.
        bias: (K,) real, added to the log-likelihood ratios of each template.
    """

    variance: float
    lost: Array
    bias: Array

    def part(self, cut: slice, items: slice) -> Amplitudes:
        """Of some templates and items."""
        lost = self.lost[cut] if self.lost.ndim == 1 else self.lost[cut, items]
        return Amplitudes(self.variance, lost, self.bias[cut])


def source() -> str:
    """CUDA C++ text of the kernels; compile with ``-DREAL=float`` or ``-DREAL=double``."""
    folder = Path(__file__).with_name("source")
    return "\n".join((folder / f"{name}.cu").read_text(encoding="utf-8") for name in _SOURCES)


class Kernels:
    """Checked launches in one precision on one device.

    Args:
        xp: array library of every argument.
        function: compiled kernel by name.
        precision: "float32" or "float64", the ``REAL`` the kernels were compiled for.
        blocks: blocks that fill the device.
    """

    def __init__(
        self, xp: Array, function: Callable[[str], KernelFunction], precision: str, blocks: int
    ) -> None:
        self.xp, self._function, self._blocks = xp, function, blocks
        self.real = np.dtype(precision)
        self.complex = np.result_type(self.real, np.complex64)

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
        second = (_NULL, _NULL) if valid is None or squares is None else (valid, squares)
        self._check("out", out, self.complex, (rotations, items, *plane))
        packs = self._packs(plane, 2)
        columns, rows = self._grid(packs), min(rotations, _GRID_LIMIT)
        depth = min(max(1, self._blocks // (columns * rows)), items, _GRID_LIMIT)
        if level is not None:
            self._check("level", level, self.real, (rotations,))
        arrays = (pixels, second[0], targets, second[1], _NULL if level is None else level, out)
        self._launch("correlate_spectra", (columns, rows, depth), arrays, (rotations, items, masks, packs))

    def backproject_spectra(
        self, pixels: Array, valid: Array | None, weights: Array, before: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        """Spectra of back-projection and coverage, summed over items in G groups.

        Args:
            pixels: (M, N1, N2 / 2 + 1) complex.
            valid: the same, or (1, ...) shared by all items; None: no spectra of coverage.
            weights: (K, M, N1, N2 / 2 + 1) complex.
            before: what an earlier call for other items returned, which is then added to.

        Returns:
            (2, G, K, N1, N2 / 2 + 1) complex, (1, ...) without coverage, and the sums of all weights (G, K) float64; the
            sums over G are left to the caller, in float64.
        """
        rotations, items, *plane = weights.shape
        self._check("pixels", pixels, self.complex, (items, *plane))
        masks = self._check_valid(valid, items, plane)
        self._check("weights", weights, self.complex, (rotations, items, *plane))
        packs = self._packs(plane, 2)
        columns, rows = self._grid(packs), min(rotations, _GRID_LIMIT)
        kinds = 1 if valid is None else 2
        if before is None:
            groups = min(max(1, self._blocks // (columns * rows)), -(-items // 16), _GRID_LIMIT)
            sums = self.xp.empty((kinds, groups, rotations, *plane), dtype=self.complex)
            mass = self.xp.empty((groups, rotations), dtype=np.float64)
        else:
            sums, mass = before
            groups = sums.shape[1]
            self._check("before", sums, self.complex, (kinds, groups, rotations, *plane))
            self._check("before", mass, np.dtype(np.float64), (groups, rotations))
        arrays = (pixels, _NULL if valid is None else valid, weights, sums, mass)
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
        """Gains to posterior weights in place, normalised over all poses of each patch.

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
        self._launch("patch_posterior", grid, arguments, (rotations, items, side, box_size), _SCRATCH)
        return evidence, empty

    def window_posterior(
        self,
        maps: Array,
        corners: Array,
        log_activity: float,
        separation: int,
        amplitudes: Amplitudes | None = None,
    ) -> tuple[Array, Array]:
        """The posterior of a copy at each corner, which competes with its neighbours; :meth:`window_weights` goes on.

        Args:
            maps: (K, M, N1, N2) real, Lambda at every corner; gains where amplitudes differ.
            corners: (M, 6) int32 per tile: rows and columns of corners, then first and last owned row, first
                and last owned column (half-open).
            log_activity: log lambda.
            separation: minimum separation d in pixels.
            amplitudes: of copies that differ in it.

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
        grid = (self._grid(packs), min(items, _GRID_LIMIT), 1)
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
        """Arguments of the kernels of copies that differ in amplitude: arrays and reals, then whether energies differ between windows."""
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
        """Gains to posterior weights.

        Args:
            maps: (k, M, N1, N2) real, some of those of :meth:`window_posterior`.
            normaliser: (M, N1, N2) real, of these items.
            log_prior: log(lambda / K), K the number of all rotations.
            out: like ``maps``, or the same; becomes w at owned corners and 0 elsewhere.
            amplitudes: of copies that differ in it, those of these maps.
            moment: power of the amplitude whose posterior mean multiplies the weights.
        """
        rotations, items, *plane = maps.shape
        self._check("maps", maps, self.real, (rotations, items, *plane))
        self._check("normaliser", normaliser, self.real, (items, *plane))
        self._check("out", out, self.real, (rotations, items, *plane))
        packs, layers = self._packs(plane, 4), min(items, _GRID_LIMIT)
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
            odds: (M, N1, N2) real, log-odds A(x) of a copy at each corner, log 0 where there is none.
            corners: as in :meth:`window_posterior`.
            log_activity: log lambda.
            separation: minimum separation d in pixels.

        Returns:
            (M, N1, N2) log(1 + S) at owned corners and infinity elsewhere, and the sums of :meth:`window_posterior`.
        """
        items, rows, columns = odds.shape
        self._check("odds", odds, self.real, (items, rows, columns))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        layers = min(items, _GRID_LIMIT)
        along, competition = (self.xp.empty((items, rows, columns), dtype=self.real) for _ in range(2))
        self._slide(odds, along, separation, axis=1)
        self._slide(along, competition, separation, axis=2)
        grid = (min(self._grid(rows * columns), max(1, self._blocks // layers)), layers, 1)
        sums = self.xp.empty((items, grid[0], 2), dtype=np.float64)
        arguments = (odds, competition, corners, sums, self.real.type(log_activity))
        self._launch("window_normaliser", grid, arguments, (separation, items, rows, columns), _SCRATCH)
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
        grid = (blocks, min(items, _GRID_LIMIT), 1)
        self._launch("slide_log_sum", grid, (values, out), sizes, shared)

    def _slide_blocks(self, lines: int, length: int, separation: int, across: bool) -> tuple[int, int, int]:
        """Lines and spans that a block of :meth:`_slide` takes, and its bytes of shared memory.

        As few spans as fill the line, as many threads as fit: those are lines times spans.
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
        while across and spans < whole and together * (spans + 1) <= _THREADS and fits(together, spans + 1):
            spans += 1
        while (
            not across
            and 2 * together <= lines
            and 2 * together * spans <= _THREADS
            and fits(2 * together, spans)
        ):
            together *= 2
        return together, spans, shared(together, spans)

    def correlate_lines(self, pixels: Array, pairs: Array, corners: Array, out: Array) -> None:
        """Products of spectra, back along the columns: ``out[p, m] = ifft(pixels[m] conj(pairs[p]), axis=0)``, not divided.

        Args:
            pixels: (M, N1, N2) complex spectra of the tiles.
            pairs: (P, N1, N2) complex spectra of the templates 2 p less i times those of 2 p + 1.
            corners: as in :meth:`window_posterior`; rows without a corner are left as they are.
            out: (P, M, N1, N2) complex, written.
        """
        count, items, side, columns = self._check_pairs(pixels, corners, out)
        self._check("pairs", pairs, self.complex, (count, side, columns))
        grid = (columns // _LANES * count, self._groups(columns // _LANES * count, items), 1)
        self._lines("correlate_lines", side, grid, (pixels, pairs, corners, out), (count, items, columns))

    def odds_lines(self, planes: Array, level: Array, corners: Array, log_prior: float) -> Array:
        """Gains of two templates a plane, in place, back along the rows; and the log-odds of a copy at each corner.

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
        """Gains to weights, as in :meth:`window_weights`, and along the rows to spectra, in place: rows that are owned."""
        count, items, rows, side = planes.shape
        self._check("planes", planes, self.complex, (count, items, rows, side))
        self._check("normaliser", normaliser, self.real, (items, rows, side))
        self._check("corners", corners, np.dtype(np.int32), (items, 6))
        arguments = (planes, normaliser, corners, self.real.type(log_prior))
        across = -(-rows // (_LINES // side))
        grid = (across, items, min(count, max(1, self._blocks // (across * items)), _GRID_LIMIT))
        self._lines("weigh_lines", side, grid, arguments, (count, items, rows))

    def backproject_lines(
        self, planes: Array, pixels: Array, corners: Array, before: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        """Spectra of the back-projections of two templates at a time, summed over items in G groups.

        Args:
            planes: (P, M, N1, N2) complex, of :meth:`weigh_lines`.
            pixels: (M, N1, N2) complex spectra of the tiles.
            corners: as in :meth:`window_posterior`.
            before: what an earlier call returned, for as many items, which is then added to.

        Returns:
            (G, P, N1, N2) complex, spectra of the frames of the templates 2 p less i times those of 2 p + 1, and the sums of all
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
        """Groups of 16 items or fewer, so that blocks of each fill the device."""
        return min(items, max(-(-items // 16), self._blocks // blocks), _GRID_LIMIT)

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
        """A kernel that transforms lines of this length."""
        if side not in LINE_LENGTHS:
            raise ParameterError(f"lines should have one of the lengths {LINE_LENGTHS}; got {side}.")
        columns = name in ("correlate_lines", "backproject_lines")
        together = _LANES if columns else _LINES // side
        points = side - _POINTS + together * (side + side // _POINTS)  # factors, and a gap in so many
        shared = self.complex.itemsize * points
        self._launch(f"{name}_{side}", grid, arguments, sizes, shared, together * side // _POINTS)

    def direct_bytes(self, rotations: int, box_size: int, margin: int) -> int:
        """Shared memory of one block of :meth:`patch_direct`."""
        frame, poses = (box_size + 2 * margin) ** 2, (2 * box_size - 1) ** 2
        reals = 2 * rotations * box_size**2 + 2 * box_size**2 + 2 * rotations * poses
        return 16 * rotations * frame + 16 * 32 + self.real.itemsize * reals

    def patch_direct(
        self,
        pixels: Array,
        valid: Array | None,
        targets: Array,
        squares: Array,
        margin: int,
        log_shown: float,
        log_empty: float,
    ) -> tuple[Array, Array, Array]:
        """The whole patch E-step in one kernel, for boxes whose posterior fits in shared memory.

        Args:
            pixels: (M, L, L) real, invalid pixels 0.
            valid: (M, L, L) uint8, or None when every pixel is valid.
            targets: (K, L, L) real, R_k F / sigma^2.
            squares: (K, L, L) real, (R_k F)^2 / (2 sigma^2).
            margin: pixels kept around the frame.
            log_shown: log prior of one pose that shows the target.
            log_empty: log prior of all empty poses together.

        Returns:
            Partial sums (G, 2, K, B, B) of back-projection and coverage, log-evidence (M,) against "empty" and
            posterior mass of the empty poses (M,); all float64.
        """
        rotations, box, _ = targets.shape
        items, side = pixels.shape[0], box + 2 * margin
        self._check("pixels", pixels, self.real, (items, box, box))
        if valid is not None:
            self._check("valid", valid, np.dtype(np.uint8), (items, box, box))
        self._check("targets", targets, self.real, (rotations, box, box))
        self._check("squares", squares, self.real, (rotations, box, box))
        shared = self.direct_bytes(rotations, box, margin)
        if shared > SHARED_LIMIT:
            raise ParameterError(
                f"the direct path should need at most {SHARED_LIMIT} bytes of shared memory; {rotations} rotations of a "
                f"box of {box} need {shared}: use the transforms."
            )
        blocks = min(items, 2 * self._blocks)
        sums = self.xp.empty((blocks, 2, rotations, side, side), dtype=np.float64)
        evidence = self.xp.empty(items, dtype=np.float64)
        empty = self.xp.empty(items, dtype=np.float64)
        mask = _NULL if valid is None else valid
        arrays = (pixels, mask, targets, squares, sums, evidence, empty)
        arguments = (*arrays, self.real.type(log_shown), self.real.type(log_empty))
        threads = min(_THREADS, -(-rotations * box**2 // 32) * 32)
        self._launch(
            "patch_direct", (blocks, 1, 1), arguments, (rotations, items, box, margin), shared, threads
        )
        return sums, evidence, empty

    def suits_small(self, rotations: int, box_size: int, margin: int) -> bool:
        """Whether :meth:`patch_small` takes these."""
        return self.real == np.float32 and box_size in _SMALL_BOXES and margin == 0 and rotations <= 32

    def patch_small(
        self, pixels: Array, targets: Array, squares: Array, log_shown: float, log_empty: float
    ) -> tuple[Array, Array, Array]:
        """:meth:`patch_direct` of boxes that fit in registers: float32, every pixel valid, no margin."""
        rotations, box, _ = targets.shape
        items = pixels.shape[0]
        if not self.suits_small(rotations, box, 0):
            raise ParameterError(
                f"boxes in registers: 3 to 5 pixels and 32 rotations; got {box} and {rotations}."
            )
        self._check("pixels", pixels, self.real, (items, box, box))
        self._check("targets", targets, self.real, (rotations, box, box))
        self._check("squares", squares, self.real, (rotations, box, box))
        blocks = -(-items // (_SMALL_RUN * (_SMALL_THREADS // rotations)))
        sums = self.xp.empty((blocks, 2, rotations, box, box), dtype=np.float64)
        evidence = self.xp.empty(items, dtype=np.float64)
        empty = self.xp.empty(items, dtype=np.float64)
        arrays = (pixels, targets, squares, sums, evidence, empty)
        arguments = (*arrays, self.real.type(log_shown), self.real.type(log_empty))
        reals = rotations * (2 * box - 1) ** 2 + 2 * box**2 * _SMALL_THREADS
        shared = 16 * _SMALL_THREADS + self.real.itemsize * reals
        self._launch(_SMALL_BOXES[box], (blocks, 1, 1), arguments, (rotations, items), shared, _SMALL_THREADS)
        return sums, evidence, empty

    @staticmethod
    def fused_bytes(side: int, pairs: int) -> int:
        """Shared memory of one block of :meth:`patch_fused`: sums of two planes a pair, buffers, and what warps exchange."""
        radix = side // 4
        area = 16 * (radix + 1) + (8 if radix == 8 else 0)
        return 8 * (2 * pairs * side**2 + 2 * radix * area + radix**2 // 32)

    def patch_fused(
        self, pixels: Array, spectra: Array, level: Array, log_empty: float
    ) -> tuple[Array, Array]:
        """The whole patch E-step in one kernel, two templates at a time: float32, every pixel valid.

        Args:
            pixels: (M, L, L) real.
            spectra: (P, 8, T, 2) complex, T threads: conj of the spectra of the templates 2 p less i times those of 2 p + 1,
                divided by the pixels of the torus, in units of log 2 and in the order of the threads.
            level: the same shape, log prior less energy of the templates 2 p and, i times, 2 p + 1 at a shift.
            log_empty: log prior of all empty poses together, in units of log 2.

        Returns:
            (G, 2, P, 8, T, 2) complex128 in the order of the threads: spectra of the back-projections of 2 p less i times those of
            2 p + 1, and weights of 2 p plus i times those of 2 p + 1; and (G, 2) float64, log-evidence against "empty" in nats
            and posterior mass of the empty poses.
        """
        items, box, _ = pixels.shape
        pairs, _, threads, _ = spectra.shape
        side = 4 * math.isqrt(threads)
        if self.real != np.float32 or (side, pairs) not in _FUSED or 2 * box - 1 > side:
            raise ParameterError(
                f"fused patches should be float32, on a torus of one of {FUSED_SIDES} pixels that holds all shifts, with one or "
                f"two pairs of templates; got {self.real}, a box of {box} on {side} pixels, and {pairs} pairs."
            )
        self._check("pixels", pixels, self.real, (items, box, box))
        self._check("spectra", spectra, self.complex, (pairs, 8, threads, 2))
        self._check("level", level, self.complex, (pairs, 8, threads, 2))
        blocks = min(items, max(1, _FUSED_BLOCKS[side, pairs] * self._blocks // BLOCKS_PER_MULTIPROCESSOR))
        sums = self.xp.empty((blocks, 2, pairs, 8, threads, 2), dtype=np.complex128)
        scores = self.xp.empty((blocks, 2), dtype=np.float64)
        arguments = (pixels, spectra, level, sums, scores, self.real.type(log_empty))
        shared = self.fused_bytes(side, pairs)
        self._launch(_FUSED[side, pairs], (blocks, 1, 1), arguments, (items, box), shared, threads)
        return sums, scores

    def cut_windows(
        self,
        pixels: Array,
        offsets: Array,
        part: tuple[int, int],
        corner_columns: int,
        factor: float,
        posterior: tuple[Array, Array, Array] | None = None,
    ) -> Array:
        """Windows of consecutive corners of a tile as rows of a matrix.

        Args:
            pixels: (N1, N2) float32, every window inside.
            offsets: (P,) int32, P a multiple of 8: the pixel of each column as an offset from that of the corner,
                or :data:`ZEROS`, or :data:`ONES`.
            part: first corner and number of corners, in row-major order.
            corner_columns: number of corners in a row.
            factor: what pixels (not ones) are multiplied by.
            posterior: log-odds (R, C) and normaliser (R, C) at the corners, float32, and the log of their largest
                ratio (1,): a row is multiplied by the posterior of a copy at its corner over the largest one.

        Returns:
            (corners, P) float16.
        """
        first, count = part
        self._check("pixels", pixels, np.dtype(np.float32), pixels.shape)
        self._check("offsets", offsets, np.dtype(np.int32), offsets.shape)
        packs = self._packs(offsets.shape, 8)
        odds, normaliser, top = posterior or (_NULL, _NULL, _NULL)
        if posterior is not None:
            self._check("odds", odds, np.dtype(np.float32), odds.shape)
            self._check("normaliser", normaliser, np.dtype(np.float32), odds.shape)
            self._check("top", top, np.dtype(np.float32), (1,))
        out = self.xp.empty((count, offsets.shape[0]), dtype=np.float16)
        arrays = (pixels, offsets, odds, normaliser, top, out)
        strides = (pixels.shape[1], 0 if posterior is None else odds.shape[1])
        grid = (min(self._grid(count * packs), 64 * self._blocks), 1, 1)
        sizes = (count, first, corner_columns, *strides, packs)
        self._launch("cut_windows", grid, (*arrays, np.float32(factor)), sizes)
        return out

    def row_log_sums(
        self, scores: Array, shift: Array, odds: Array, log_prior: float, first: int, corner_columns: int
    ) -> None:
        """Log-odds of a copy at consecutive corners from their scores.

        Args:
            scores: (corners, T) float32, T a multiple of 4.
            shift: (T,) float32, added to each row; -1e30 for columns that are no template.
            odds: (R, C) float32, written at the corners.
            log_prior: added to the log-sum.
            first: first corner, in row-major order.
            corner_columns: number of corners in a row.
        """
        self._rows("row_log_sums", scores, shift, (odds,), odds, log_prior, first, corner_columns)

    def row_shares(
        self, scores: Array, shift: Array, odds: Array, log_prior: float, first: int, corner_columns: int
    ) -> Array:
        """(corners, T) float16: posterior of each template given a copy there; see :meth:`row_log_sums`."""
        shares = self.xp.empty(scores.shape, dtype=np.float16)
        self._rows("row_shares", scores, shift, (odds, shares), odds, log_prior, first, corner_columns)
        return shares

    def _rows(
        self,
        name: str,
        scores: Array,
        shift: Array,
        written: tuple[Array, ...],
        odds: Array,
        log_prior: float,
        first: int,
        corner_columns: int,
    ) -> None:
        count, width = scores.shape
        self._check("scores", scores, np.dtype(np.float32), (count, width))
        self._check("shift", shift, np.dtype(np.float32), (width,))
        self._check("odds", odds, np.dtype(np.float32), odds.shape)
        sizes = (count, first, corner_columns, odds.shape[1], self._packs((width,), 4))
        grid = (min(-(-count // (_THREADS // 32)), 64 * self._blocks), 1, 1)
        self._launch(name, grid, (scores, shift, *written, np.float32(log_prior)), sizes)

    def patch_rows(
        self, scores: Array, shift: Array, log_empty: float, factor: float
    ) -> tuple[Array, Array, Array]:
        """Posterior weights of patches from their scores.

        Args:
            scores: (patches, T) float32, T a multiple of 4.
            shift: (T,) float32, added to each row; -1e30 for columns that are no pose.
            log_empty: log prior of all empty poses together.
            factor: what weights are multiplied by.

        Returns:
            (patches, T) float16, log-evidence and posterior mass of the empty poses (patches,) float64.
        """
        items, width = scores.shape
        self._check("scores", scores, np.dtype(np.float32), (items, width))
        self._check("shift", shift, np.dtype(np.float32), (width,))
        weights = self.xp.empty(scores.shape, dtype=np.float16)
        evidence, empty = (self.xp.empty(items, dtype=np.float64) for _ in range(2))
        packs, scratch = self._packs((width,), 4), 16 * (_ROW_THREADS // 32)
        kept = min(packs, (SHARED_LIMIT - scratch) // 16)
        arguments = (scores, shift, weights, evidence, empty, np.float32(log_empty), np.float32(factor))
        grid, shared = (min(items, 8 * self._blocks), 1, 1), scratch + 16 * kept
        self._launch("patch_rows", grid, arguments, (items, packs, kept), shared, _ROW_THREADS)
        return weights, evidence, empty

    def patch_frames(
        self,
        product: Array,
        rows: tuple[int, int],
        shape: tuple[int, int, int],
        columns: tuple[int, int],
        factors: tuple[float, float],
    ) -> Array:
        """Back-projection and coverage from the products of weights and patches.

        Args:
            product: (poses, W) float32, poses in the order (row of shifts, rotation, column of shifts).
            rows: first row of shifts, and number of rows.
            shape: number of rotations, box and margin.
            columns: the column of ``product`` at which the first pixel of a patch would lie, and that of ones.
            factors: what back-projections and coverages are multiplied by.

        Returns:
            (2, K, B, B) float64.
        """
        (first, count), (rotations, box, margin) = rows, shape
        poses, width = product.shape
        self._check("product", product, np.dtype(np.float32), (poses, width))
        padded, side = poses // (count * rotations), box + 2 * margin
        frames = self.xp.empty((count, 2, rotations, side, side), dtype=np.float64)
        scales = np.float32(factors[1]), np.float32(factors[0])
        sizes = (first, rotations, box, margin, padded, width, *columns)
        self._launch("patch_frames", (count, rotations, 1), (product, frames, *scales), sizes)
        return frames.sum(axis=0)

    def _grid(self, elements: int) -> int:
        return max(1, -(-elements // _THREADS))

    def _packs(self, plane: tuple[int, ...] | list[int], width: int) -> int:
        elements = math.prod(plane)
        if elements % width or elements >= 2**31:
            raise ParameterError(
                f"a plane of {tuple(plane)} should hold a multiple of {width} and fewer than 2^31 elements."
            )
        return elements // width

    def _check(self, name: str, array: Array, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        if not isinstance(array, self.xp.ndarray):
            raise ParameterError(f"{name} should be an array of {self.xp.__name__}; got {type(array)}.")
        if array.dtype != dtype or tuple(array.shape) != tuple(shape):
            raise ParameterError(
                f"{name} should be {dtype} of shape {tuple(shape)}; got {array.dtype} of shape {tuple(array.shape)}."
            )
        if not array.flags.c_contiguous:
            raise ParameterError(f"{name} should be C-contiguous; its strides are {array.strides}.")

    def _launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        arguments: tuple[Any, ...],
        sizes: tuple[Any, ...],
        shared: int = 0,
        threads: int = _THREADS,
    ) -> None:
        integers = tuple(n if isinstance(n, np.integer) else np.int32(n) for n in sizes)
        function = self._function(name)
        if shared > SHARED_LIMIT:  # a device gives more to those who ask
            function.max_dynamic_shared_size_bytes = shared  # type: ignore[attr-defined]
        function(grid, (threads, 1, 1), (*arguments, *integers), shared_mem=shared)
