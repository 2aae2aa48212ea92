"""The common part of all launches: arrays are checked before their pointers are passed, and grids fit the device.

A kernel function has the call of ``cupy.RawKernel``: ``function(grid, block, arguments, shared_mem=bytes)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....._base.typing import Array
from .....errors import ParameterError

KernelFunction = Callable[..., None]

#: Threads of a block, and bytes of shared memory that a block uses for a reduction.
THREADS = 256
SCRATCH = 16 * (THREADS // 32)

#: Bytes of shared memory of a block that need no request.
SHARED_LIMIT = 48 << 10

#: Blocks of 256 threads that one multiprocessor holds.
BLOCKS_PER_MULTIPROCESSOR = 8

#: A pointer to nothing.
NULL: Any = np.uintp(0)

#: Files of the kernels, in order: the others build on the first.
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


def source() -> str:
    """CUDA C++ text of the kernels; compile with ``-DREAL=float`` or ``-DREAL=double``."""
    folder = Path(__file__).parents[1] / "source"
    return "\n".join((folder / f"{name}.cu").read_text(encoding="utf-8") for name in _SOURCES)


class Launcher:
    """Checked launches in one precision on one device.

    Args:
        xp: array library of every argument.
        function: compiled kernel by name.
        precision: "float32" or "float64", the ``REAL`` the kernels were compiled for.
        blocks: blocks that fill the device.
    """

    #: Largest extent of a grid in y and z.
    grid_limit = 65535

    def __init__(
        self, xp: Array, function: Callable[[str], KernelFunction], precision: str, blocks: int
    ) -> None:
        self.xp, self._function, self._blocks = xp, function, blocks
        self.real = np.dtype(precision)
        self.complex = np.result_type(self.real, np.complex64)

    def _grid(self, elements: int) -> int:
        return max(1, -(-elements // THREADS))

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
        threads: int = THREADS,
    ) -> None:
        integers = tuple(n if isinstance(n, np.integer) else np.int32(n) for n in sizes)
        function = self._function(name)
        if shared > SHARED_LIMIT:  # more needs a request
            function.max_dynamic_shared_size_bytes = shared  # type: ignore[attr-defined]
        function(grid, (threads, 1, 1), (*arguments, *integers), shared_mem=shared)
