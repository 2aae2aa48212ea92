"""A Dask cluster behind the executor contract of the E-step.

Workers read their tiles from the store themselves. Target and likelihood are sent once per E-step to each worker;
statistics, from worker to worker up the tree of :mod:`mtdcore._base.summing`; their sum, to this process. The task of a
lost worker is repeated on another one, with the same bits.

``distributed`` (extra: dask) is imported by the functions that need it.
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any, TypeVar

import numpy as np

from .._base.optional import optional
from .._base.summing import FAN_IN, SummingExecutor, node_sum
from .._base.typing import Array, Precision
from ..data.tiles import Tile
from ..errors import DependencyError, DeviceError, ParameterError, StorageError
from ..model.likelihood import Likelihood, WindowLikelihood
from .backends import Backend, get_backend
from .backends.base import Moment
from .backends.library import ALL, HostArrays, checked
from .sums import TemplateSums

_log = logging.getLogger(__name__)

T = TypeVar("T")
S = TypeVar("S")

#: Number of lost workers that a task survives on a cluster of our own. Without a bound, a task that kills its workers, for
#: example by lack of memory, would be repeated endlessly.
_LOSSES = 100

#: Environment variables that keep libraries from opening threads beside those of the engine.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: Seconds to wait for the scheduler of an external cluster, and for its first worker.
_PATIENCE = 60


class DaskExecutor(SummingExecutor):
    """Runs parts of an E-step on the workers of a client.

    Args:
        client: a ``distributed.Client``, which the caller closes.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """One call on some worker."""
        future: Future[T] = self.client.get_executor(pure=False).submit(fn, *args, **kwargs)
        return future

    def map_sum(self, function: Callable[[S], T], items: Sequence[S]) -> T:
        """See :class:`SummingExecutor`; nodes of the tree are added up on the workers that hold most of their terms.

        Raises:
            DeviceError: a task lost too many workers, or the cluster was lost.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError

        # The function holds the target: as the result of a task it is sent to each worker once, and can be computed again.
        work = self.client.submit(_itself, function, pure=False, key=None)
        futures = self.client.map(_call, list(items), work=work, pure=False)
        try:
            while len(futures) > 1:
                nodes = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
                futures = self.client.map(node_sum, nodes, pure=False)
            result: T = futures[0].result()
        except KilledWorker as loss:
            raise DeviceError(
                f"the cluster should run each part of the E-step; a part lost its worker too often ({loss}): look for "
                "workers out of memory, then go on from the last checkpoint (--resume)."
            ) from loss
        except (CommClosedError, FutureCancelledError) as loss:
            raise DeviceError(
                f"the connection to the cluster was lost ({loss}); start a cluster again and go on from the last checkpoint "
                "(--resume)."
            ) from loss
        return result


class WorkerBackend(HostArrays):
    """A backend that each worker opens for itself; this process computes with NumPy.

    Args:
        executor: its workers open the backend, and report their device.
        name: as for :func:`get_backend`, on the workers.
        precision: dtype of the correlations.
        threads: of one task on the CPU.

    Raises:
        DependencyError: the workers have no mtdcore, or another version of it.
        DeviceError: the workers lack the device.
    """

    def __init__(
        self, executor: DaskExecutor, name: str = "auto", precision: Precision = "float32", threads: int = 1
    ) -> None:
        self.precision, self._threads = precision, threads
        self._executor: DaskExecutor | None = executor
        self.name, self.tiles_together = self._ask(_backend_on_worker, name, precision)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_executor": None}

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """The side of tiles for the device of a worker."""
        return self._ask(_tile_pixels_on_worker, self, likelihood) if self._executor else 0

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> TemplateSums:
        """On a worker, by its own backend; sums are on the host."""
        backend = self.opened()
        held = backend.asarray(checked(templates, likelihood, np))
        found = backend.accumulate(tiles, held, likelihood)
        return found.moved(backend.to_host)

    def posterior(
        self, tile: Tile, templates: Array, likelihood: Likelihood, moment: Moment = 0
    ) -> np.ndarray:
        """As :meth:`accumulate`."""
        backend = self.opened()
        held = backend.asarray(checked(templates, likelihood, np))
        return backend.posterior(tile, held, likelihood, moment)

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """As :meth:`accumulate`."""
        backend = self.opened()
        held = backend.asarray(checked(templates, likelihood, np, part))
        return backend.log_odds(tile, held, likelihood, part)

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> TemplateSums:
        """As :meth:`accumulate`."""
        backend = self.opened()
        held = backend.asarray(checked(templates, likelihood, np, part))
        found = backend.project(tile, held, likelihood, log_norm, part)
        return found.moved(backend.to_host)

    @property
    def threads(self) -> int:
        """Threads of each worker."""
        return self._threads

    def alone(self) -> WorkerBackend:
        """The same backend on one thread of each worker."""
        other = copy(self)
        other._threads = 1
        return other

    def opened(self) -> Backend:
        """The backend of this process."""
        return _opened(self.name, self.precision, self.threads)

    def _ask(self, function: Callable[..., T], *args: Any) -> T:
        assert self._executor is not None
        try:
            return self._executor.submit(function, *args).result()
        except ModuleNotFoundError as missing:
            raise DependencyError(
                f"the workers should have mtdcore installed, of the same version as here; they say: {missing}."
            ) from missing


def check_address(address: str) -> None:
    """Raise ParameterError unless this is the address of a scheduler, such as ``tls://node17:8786``."""
    if not re.fullmatch(r"[a-z][a-z0-9]*://[^\s/]+:\d{1,5}", address):
        raise ParameterError(
            f"the address of a Dask scheduler should read tls://HOST:PORT or tcp://HOST:PORT; got {address!r}."
        )


@contextmanager
def connected(address: str, security: Any = None) -> Iterator[DaskExecutor]:
    """An executor of the cluster whose scheduler listens at ``address``.

    Args:
        address: such as ``tls://node17:8786``.
        security: a ``distributed.Security`` with the certificates of the cluster; None: those of Dask's configuration.

    Raises:
        ParameterError: ``address`` is no address of a scheduler.
        DependencyError: ``distributed`` is not installed, or the workers have another version of mtdcore.
        StorageError: no scheduler answers there, or it has no workers.
    """
    check_address(address)
    distributed = optional("distributed", "dask")
    if not address.startswith("tls://"):
        _log.warning(
            "%s is not encrypted: whoever reaches that port can run code as you; docs/cluster.md says how to use tls://",
            address,
        )
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False, security=security)
    except (OSError, ValueError) as problem:
        raise StorageError(
            f"a Dask scheduler should listen at {address}; nothing answered within {_PATIENCE} s: {problem}."
        ) from problem
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as problem:
            raise StorageError(
                f"the scheduler at {address} should have workers; none came within {_PATIENCE} s."
            ) from problem
        yield _checked(DaskExecutor(client))


@contextmanager
def local_workers(count: int) -> Iterator[DaskExecutor]:
    """An executor of ``count`` processes on this machine; lost processes are replaced.

    Other users of the machine can reach the port of the scheduler: it accepts only connections with the certificate of this run.

    Raises:
        DependencyError: ``distributed``, or the package that makes certificates, is not installed.
    """
    distributed = optional("distributed", "dask")
    optional("cryptography", "dask")
    import dask

    settings = {
        "distributed.scheduler.allowed-failures": _LOSSES,
        # On a busy machine a new process may need more than the 15 s after which Dask gives it up.
        "distributed.deploy.lost-worker-timeout": "1h",
        # Dask's default also returns freed memory at once: every array would be mapped again, page by page.
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_ONE_THREAD, 1),
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,
            silence_logs="ERROR",
            protocol="tls://",
            host="127.0.0.1",
            security=distributed.Security.temporary(),
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_patient(distributed))
        yield DaskExecutor(client)


def _patient(distributed: Any) -> Any:
    """A plugin by which workers, also replacements of lost ones, ignore Ctrl-C, which the process that saves checkpoints handles."""

    class Patient(distributed.WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Patient()


def _checked(executor: DaskExecutor) -> DaskExecutor:
    """The executor; DependencyError unless every worker runs this version."""
    here = _version()
    try:
        there = executor.client.run(_version)
    except ModuleNotFoundError as missing:
        there = {"a worker": f"none ({missing})"}
    for address, version in there.items():
        if version != here:
            raise DependencyError(
                f"the workers should have mtdcore {here}, the version here; {address} has {version}: install that."
            )
    return executor


def _version() -> str:
    from .._base.version import __version__

    return __version__


def _itself(function: T) -> T:
    return function


def _call(item: S, work: Callable[[S], T]) -> T:
    return work(item)


@cache
def _opened(name: str, precision: Precision, threads: int) -> Backend:
    return get_backend(name, precision, threads)


def _backend_on_worker(name: str, precision: Precision) -> tuple[str, int]:
    backend = get_backend(name, precision)
    return backend.name, backend.tiles_together


def _tile_pixels_on_worker(backend: WorkerBackend, likelihood: Likelihood) -> int:
    return backend.opened().tile_pixels(likelihood)
