"""Launches of whole patch E-steps: in registers, and on a torus in shared memory (``kernels_small.cu``, ``kernels_patch_fused.cu``)."""

from __future__ import annotations

import math

import numpy as np

from ....._base.typing import Array
from .....errors import ParameterError
from .launching import BLOCKS_PER_MULTIPROCESSOR, NULL, SHARED_LIMIT, THREADS, Launcher

#: Kernels by box, threads of a block and patches of a thread.
SMALL_BOXES = {3: "patch_small_3", 4: "patch_small_4", 5: "patch_small_5"}
_SMALL_THREADS, _SMALL_RUN = 128, 16

#: Sides of the torus of a fused patch; its kernels by side and pairs of templates, and blocks that a multiprocessor holds.
FUSED_SIDES = (32, 64)
FUSED = {(side, pairs): f"patch_fused_{side}_{pairs}" for side in FUSED_SIDES for pairs in (1, 2)}
_FUSED_BLOCKS = {(32, 1): 6, (32, 2): 4, (64, 1): 1, (64, 2): 1}


class PatchKernels(Launcher):
    """From patches to sums, without maps in the memory of the device."""

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
        """The whole patch E-step in one kernel, for boxes whose posterior fits into shared memory.

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
        mask = NULL if valid is None else valid
        arrays = (pixels, mask, targets, squares, sums, evidence, empty)
        arguments = (*arrays, self.real.type(log_shown), self.real.type(log_empty))
        threads = min(THREADS, -(-rotations * box**2 // 32) * 32)
        self._launch(
            "patch_direct", (blocks, 1, 1), arguments, (rotations, items, box, margin), shared, threads
        )
        return sums, evidence, empty

    def suits_small(self, rotations: int, box_size: int, margin: int) -> bool:
        """Whether :meth:`patch_small` supports these sizes."""
        return self.real == np.float32 and box_size in SMALL_BOXES and margin == 0 and rotations <= 32

    def patch_small(
        self, pixels: Array, targets: Array, squares: Array, log_shown: float, log_empty: float
    ) -> tuple[Array, Array, Array]:
        """:meth:`patch_direct` for boxes that fit into registers: float32, every pixel valid, no margin."""
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
        self._launch(SMALL_BOXES[box], (blocks, 1, 1), arguments, (rotations, items), shared, _SMALL_THREADS)
        return sums, evidence, empty

    @staticmethod
    def fused_bytes(side: int, pairs: int) -> int:
        """Shared memory of one block of :meth:`patch_fused`: sums of two planes per pair, buffers, and the exchange between warps."""
        radix = side // 4
        area = 16 * (radix + 1) + (8 if radix == 8 else 0)
        return 8 * (2 * pairs * side**2 + 2 * radix * area + radix**2 // 32)

    def patch_fused(
        self, pixels: Array, spectra: Array, level: Array, log_empty: float
    ) -> tuple[Array, Array]:
        """The whole patch E-step in one kernel, two templates at a time: float32, every pixel valid.

        Args:
            pixels: (M, L, L) real.
            spectra: (P, 8, T, 2) complex, T threads: conj of the spectra of the templates 2 p minus i times those of 2 p + 1,
                divided by the pixels of the torus, in units of log 2 and in the order of the threads.
            level: the same shape, log prior minus energy at each shift, of the templates 2 p plus i times that of 2 p + 1.
            log_empty: log prior of all empty poses together, in units of log 2.

        Returns:
            (G, 2, P, 8, T, 2) complex128 in the order of the threads: spectra of the back-projections of 2 p minus i times those of
            2 p + 1, and weights of 2 p plus i times those of 2 p + 1; and (G, 2) float64, log-evidence against "empty" in nats
            and posterior mass of the empty poses.
        """
        items, box, _ = pixels.shape
        pairs, _, threads, _ = spectra.shape
        side = 4 * math.isqrt(threads)
        if self.real != np.float32 or (side, pairs) not in FUSED or 2 * box - 1 > side:
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
        self._launch(FUSED[side, pairs], (blocks, 1, 1), arguments, (items, box), shared, threads)
        return sums, scores
