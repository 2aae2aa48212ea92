"""All launches of the kernels of ``source/``, with checked arguments; one module for each way through an E-step."""

from .launching import BLOCKS_PER_MULTIPROCESSOR, SHARED_LIMIT, source
from .lines import LINE_LENGTHS, LineKernels
from .maps import Amplitudes, MapKernels
from .matrices import ONES, ZEROS, MatrixKernels
from .patches import FUSED_SIDES, PatchKernels

__all__ = [
    "BLOCKS_PER_MULTIPROCESSOR",
    "FUSED_SIDES",
    "LINE_LENGTHS",
    "ONES",
    "SHARED_LIMIT",
    "ZEROS",
    "Amplitudes",
    "Kernels",
    "source",
]


class Kernels(MapKernels, LineKernels, PatchKernels, MatrixKernels):
    """Every launch, in one precision on one device; see :class:`.launching.Launcher` for the arguments."""
