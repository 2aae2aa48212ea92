"""Launches around the matrix products: windows as rows, and scores to weights (``kernels_matrix.cu``, ``kernels_patches.cu``)."""

from __future__ import annotations

import numpy as np

from ....._base.typing import Array
from .launching import NULL, SHARED_LIMIT, THREADS, Launcher

#: Threads of a block of ``patch_rows``.
_ROW_THREADS = 512

#: Offsets that mark columns of zeros and of ones in :meth:`MatrixKernels.cut_windows`.
ZEROS, ONES = -(1 << 30), -(1 << 30) - 1


class MatrixKernels(Launcher):
    """Launches on matrices with one corner or one patch per row."""

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
            offsets: (P,) int32, P a multiple of 8: the pixel of each column as an offset from the pixel of the corner,
                or :data:`ZEROS`, or :data:`ONES`.
            part: first corner and number of corners, in row-major order.
            corner_columns: number of corners in a row.
            factor: multiplies the pixels, but not the ones.
            posterior: log-odds (R, C) and normaliser (R, C) at the corners, float32, and the log of their largest
                ratio (1,): a row is multiplied by the posterior of a copy at its corner over the largest one.

        Returns:
            (corners, P) float16.
        """
        first, count = part
        self._check("pixels", pixels, np.dtype(np.float32), pixels.shape)
        self._check("offsets", offsets, np.dtype(np.int32), offsets.shape)
        packs = self._packs(offsets.shape, 8)
        odds, normaliser, top = posterior or (NULL, NULL, NULL)
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
            shift: (T,) float32, added to each row; -1e30 for padding columns.
            odds: (R, C) float32, written at the corners.
            log_prior: added to the log-sum.
            first: first corner, in row-major order.
            corner_columns: number of corners in a row.
        """
        self._rows("row_log_sums", scores, shift, (odds,), odds, log_prior, first, corner_columns)

    def row_shares(
        self, scores: Array, shift: Array, odds: Array, log_prior: float, first: int, corner_columns: int
    ) -> Array:
        """(corners, T) float16: posterior of each template given a copy at the corner; see :meth:`row_log_sums`."""
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
        grid = (min(-(-count // (THREADS // 32)), 64 * self._blocks), 1, 1)
        self._launch(name, grid, (scores, shift, *written, np.float32(log_prior)), sizes)

    def patch_rows(
        self, scores: Array, shift: Array, log_empty: float, factor: float
    ) -> tuple[Array, Array, Array]:
        """Posterior weights of patches from their scores.

        Args:
            scores: (patches, T) float32, T a multiple of 4.
            shift: (T,) float32, added to each row; -1e30 for padding columns.
            log_empty: log prior of all empty poses together.
            factor: multiplies the weights.

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
            columns: column of ``product`` of the first pixel of a patch (perhaps outside of it), and the column of ones.
            factors: multiply back-projections and coverages.

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
