"""How many threads fit into ``--max-memory``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mtdcore.backends import get_backend
from mtdcore.errors import ParameterError
from mtdcore.likelihood import PatchLikelihood, WindowLikelihood

_MIB = 2**20

#: Interpreter, libraries, chunks and tiles read ahead (measured: about 200 MiB; a torch prior is not counted).
_BASE = 300 * _MIB

#: Arrays the size of (K, tile) that threads share, and that each thread holds (measured: 1 and 2 to 3).
_SHARED, _OWN = 1, 3


def threads_within(parameters: Mapping[str, Any], shape: tuple[int, int, int]) -> int | None:
    """Threads to use on the CPU so that memory stays within ``max_memory``.

    Args:
        parameters: the options of ``mtd recover``.
        shape: (micrographs, H, W) of the measurement.

    Returns:
        ``parameters["threads"]`` (None: all cores) where no limit is set, otherwise as many of them as fit.

    Raises:
        ParameterError: not even one fits.
    """
    limit, threads = parameters["max_memory"], parameters["threads"]
    if limit is None:
        return None if threads is None else int(threads)
    box, rotations, separation = (parameters[name] for name in ("box_size", "rotations", "min_separation"))
    likelihood = (
        PatchLikelihood(box, rotations, 1.0)
        if parameters["likelihood"] == "patch"
        else WindowLikelihood(box, rotations, 1.0, 1.0, separation if isinstance(separation, int) else None)
    )
    pixels = get_backend("cpu", parameters["precision"]).tile_pixels(likelihood)
    geometry = likelihood.geometry.enlarged(pixels)
    sides = (min(n, geometry.side + 2 * geometry.halo + geometry.reach) for n in shape[1:])
    maps = rotations * next(sides) * next(sides) * (8 if parameters["precision"] == "float64" else 4)
    fitting = int((limit - _BASE - _SHARED * maps) // (_OWN * maps))
    if fitting < 1:
        least = -(-(_BASE + (_SHARED + _OWN) * maps) // _MIB)
        raise ParameterError(
            f"--max-memory should be at least {least}M for a box of {box} with {rotations} rotations; got {limit // _MIB}M."
        )
    return min(fitting, threads or len(os.sched_getaffinity(0)))
