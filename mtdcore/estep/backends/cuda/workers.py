"""Several devices: one worker process each, behind the executor contract of ``e_step``."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ....errors import ParameterError
from .device import describe_devices

#: Marks the environment of a worker.
_WORKER = "MTDCORE_CUDA_WORKER"


def device_executor(indices: Sequence[int] | None = None) -> ProcessPoolExecutor:
    """An executor with one process per device: ``e_step(..., backend="cuda", executor=device_executor())``.

    Each worker sees only its own device, as "cuda:0"; statistics return through the host.

    Args:
        indices: devices to use, as numbered in this process; None: every usable one.

    Raises:
        DependencyError, DeviceError: CuPy, the driver or a device is missing.
        ParameterError: no index, or one twice.
    """
    chosen = [d.index for d in describe_devices() if d.usable] if indices is None else list(indices)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ParameterError(f"the device indices should be distinct and at least one; got {chosen}.")
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    names: Any = context.SimpleQueue()
    for index in chosen:
        names.put(_visible_name(index))
    return ProcessPoolExecutor(len(chosen), context, _see_one_device, (names,))


def _visible_name(index: int) -> str:
    """Name of device ``index`` of this process in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index].strip() if visible else str(index)


def _see_one_device(names: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the process that saves checkpoints
    os.environ["CUDA_VISIBLE_DEVICES"] = names.get()
    os.environ[_WORKER] = "1"


def sees_one_device() -> bool:
    """Whether this process is a worker with a device of its own: "cuda:0", whatever its number elsewhere."""
    return _WORKER in os.environ
