"""Where a run computes: this process, every CUDA device, workers on this machine, or a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import mtdcore as mtd
from mtdcore._base.cores import usable_cores
from mtdcore.errors import ParameterError

from .parameters import RunParameters

if TYPE_CHECKING:
    from mtdcore.estep.backends import Backend

#: The ``--device`` that spreads every E-step over all CUDA devices.
ALL_DEVICES = "cuda:all"


@contextmanager
def computing(parameters: RunParameters, threads: int | None) -> Iterator[tuple[Backend, Executor | None]]:
    """The backend of a run, and the executor of its E-steps while the block runs.

    Args:
        parameters: the options of ``mtd recover``.
        threads: CPU threads, None: all cores; of a task where there are workers, None: those of this machine shared
            evenly, or one on a cluster.

    Raises:
        ParameterError: options that exclude each other.
        DependencyError, DeviceError, StorageError: what was asked for is not there.
    """
    device, precision = parameters.device, parameters.precision
    scheduler, workers = parameters.scheduler, parameters.workers
    ways = [scheduler is not None, workers is not None, device == ALL_DEVICES]
    if sum(ways) > 1:
        raise ParameterError(
            f"--scheduler, --workers and --device {ALL_DEVICES} are three ways to share the work; give one of them."
        )
    if scheduler is not None or workers is not None:
        from mtdcore.estep.dask import WorkerBackend, connected, local_workers

        share = 1 if workers is None else max(1, usable_cores() // workers)
        with connected(str(scheduler)) if workers is None else local_workers(workers) as executor:
            yield WorkerBackend(executor, device, precision, threads or share), executor
    elif device == ALL_DEVICES:
        from mtdcore.estep.backends.cuda.backend import device_executor

        with device_executor() as processes:
            yield mtd.get_backend("cuda", precision, threads), processes
    else:
        yield mtd.get_backend(device, precision, threads), None
