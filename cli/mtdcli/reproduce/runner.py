"""Every method on every case, in parallel processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

import mtdcore as mtd
from mtdcore._base.cores import usable_cores
from mtdcore.errors import ParameterError

from .cases import ROTATIONS, Case
from .methods import Method

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one method on one case.

    Attributes:
        method: name of the method.
        snr: of the case.
        target: index of the target.
        repeat: index of the measurement of that target.
        seconds: wall time.
        image: (L, L) float64 estimate; None if the run failed.
        error: relative error E; NaN if the run failed.
        gauge_free_error: E_s, shifts forgiven.
        failure: why the run failed; None if it did not.
    """

    method: str
    snr: float
    target: int
    repeat: int
    seconds: float
    image: np.ndarray | None
    error: float
    gauge_free_error: float
    failure: str | None = None


#: Called after every run with runs done, runs in all, and the last outcome. An exception that it raises ends all runs.
Callback = Callable[[int, int, Outcome], None]


def run_all(
    cases: Sequence[Case],
    methods: Sequence[Method],
    *,
    jobs: int | None = None,
    callback: Callback | None = None,
) -> list[Outcome]:
    """Run every method on every case; the number of jobs changes nothing except the seconds.

    A run that fails becomes an outcome with a ``failure``; the others go on.

    Args:
        cases: measurements.
        methods: picklable methods.
        jobs: processes; None: one per core that this process may use.
        callback: see :data:`Callback`.

    Returns:
        Outcomes ordered by case, then method.
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs must be a positive number; got {jobs}.")
    tasks = [(case, method) for case in cases for method in methods]
    outcomes: dict[int, Outcome] = {}
    workers = min(jobs or usable_cores(), max(1, len(tasks)))
    context = multiprocessing.get_context("spawn")  # a forked child inherits locks of torch and Numba
    with _one_thread_each(), ProcessPoolExecutor(workers, context, _prepare_worker) as pool:
        futures = {pool.submit(run_one, *task): index for index, task in enumerate(tasks)}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                index = futures[future]
                outcomes[index] = _outcome(future, *tasks[index])
                if callback is not None:
                    callback(done, len(tasks), outcomes[index])
        except BaseException:  # also an interrupt: runs that have not begun are cancelled
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[index] for index in range(len(tasks))]


def run_one(case: Case, method: Method) -> Outcome:
    """One method on one case, in this process; any exception becomes the ``failure`` of the outcome."""
    started = time.perf_counter()
    try:
        image = method(case, case.simulate())
        error, free = (mtd.relative_error(image, case.image, ROTATIONS, s) for s in (0, case.max_shift))
    except Exception as problem:  # one failed run is reported in the table and does not end the others
        return _failed(case, method, problem, time.perf_counter() - started)
    seconds = time.perf_counter() - started
    if not np.isfinite(error):
        return _failed(case, method, ArithmeticError("the estimate is not finite"), seconds)
    return Outcome(method.name, case.snr, case.target, case.repeat, seconds, image, error, free)


def _outcome(future: Future[Outcome], case: Case, method: Method) -> Outcome:
    """The result of a future; a worker that died (out of memory, for instance) counts as a failed run."""
    problem = future.exception()
    return future.result() if problem is None else _failed(case, method, problem, 0.0)


def _failed(case: Case, method: Method, problem: BaseException, seconds: float) -> Outcome:
    failure = f"{type(problem).__name__}: {problem}"
    nan = float("nan")
    return Outcome(method.name, case.snr, case.target, case.repeat, seconds, None, nan, nan, failure)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in the block use one thread each, through variables that libraries read when they load."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _prepare_worker() -> None:
    """Limit torch to one thread, leave interrupts to the parent, and end the worker with the parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
