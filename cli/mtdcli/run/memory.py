"""The number of threads that fit into ``--max-memory``."""

from __future__ import annotations

from mtdcore._base.cores import usable_cores
from mtdcore.errors import ParameterError
from mtdcore.estep.backends import Precision, get_backend
from mtdcore.estep.backends.array.scored import COPIES
from mtdcore.model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood

from .arguments import asked_views
from .parameters import RunParameters

_MIB = 2**20

#: Interpreter, libraries, chunks and tiles read ahead, copies and report (measured: up to 310 MiB; a torch prior is not counted).
_BASE = 360 * _MIB

#: Window likelihood: numbers per pixel of a tile (shared by the threads), bytes of the spectra of all templates, and numbers per thread.
_PER_PIXEL, _SPECTRA, _OWN = 16, 256 * _MIB, 2 * _MIB

#: Patch likelihood: numbers per cell of a correlation map of 32 patches, two complex ones each; a thread holds one map per rotation.
_PER_CELL = 32


def threads_within(parameters: RunParameters, shape: tuple[int, int, int]) -> int | None:
    """Threads to use on the CPU so that memory stays within ``max_memory``.

    Args:
        parameters: the options of ``mtd recover``.
        shape: (micrographs, H, W) of the measurement.

    Returns:
        ``parameters.threads`` (None: all cores) where no limit is set, otherwise as many of them as fit.

    Raises:
        ParameterError: the limit is too small for one thread.
    """
    limit, threads = parameters.max_memory, parameters.threads
    if limit is None:
        return threads
    box, rotations, separation = parameters.box_size, parameters.turns, parameters.min_separation
    views = asked_views(parameters)
    likelihood = (
        PatchLikelihood(views, 1.0)
        if parameters.likelihood == "patch"
        else WindowLikelihood(views, 1.0, 1.0, separation if isinstance(separation, int) else None)
    )
    shared, own = _workspace(likelihood, parameters.precision, shape)
    fitting = int((limit - _BASE - shared) // own)
    if fitting < 1:
        least = -(-(_BASE + shared + own) // _MIB)
        given = f"{limit // _MIB}M" if limit >= _MIB else f"{limit} bytes"
        raise ParameterError(
            f"--max-memory should be at least {least}M for a box of {box} with {rotations} rotations; got {given}."
        )
    return min(fitting, threads or usable_cores())


def _workspace(likelihood: Likelihood, precision: Precision, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Bytes shared by the threads, and bytes per thread."""
    number = 8 if precision == "float64" else 4
    pixels = get_backend("cpu", precision).tile_pixels(likelihood)
    geometry = likelihood.geometry.enlarged(pixels)
    rows, columns = geometry.largest_read((shape[1], shape[2]))
    if not likelihood.square:
        return 0, number * (COPIES * likelihood.templates + 3) * rows * columns
    if likelihood.localises:
        return number * _PER_PIXEL * rows * columns + _SPECTRA, number * _OWN
    side = 2 * likelihood.box_size + 16  # side of the torus, rounded up to whole vectors
    return 0, number * (_PER_CELL * side**2 * (likelihood.templates + 2) + 3 * rows * columns)
