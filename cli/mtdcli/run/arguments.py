"""The options of a run as arguments of the engine: what is computed, and where."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

import mtdcore as mtd
from mtdcore._base.cores import usable_cores
from mtdcore._base.optional import optional
from mtdcore._base.plugins import plugin
from mtdcore.em.plan.beginning import views_of
from mtdcore.em.plan.starts import Start
from mtdcore.errors import ParameterError
from mtdcore.mstep.wiener import WienerUpdate

from ..inputs.sources import read_image
from .parameters import RunParameters

if TYPE_CHECKING:
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.estep.backends import Backend
    from mtdcore.mstep.updates import Update

#: The ``--device`` that spreads every E-step over all CUDA devices.
ALL_DEVICES = "cuda:all"

#: Differences between micrographs, as the argument ``micrographs`` of :func:`mtdcore.recover`.
Optics: TypeAlias = mtd.Micrographs | Literal["each"] | None


def optics(table: MicrographTable | None, asked: Literal["auto", "each", "alike"]) -> Optics:
    """The ``micrographs`` argument of the recovery.

    Args:
        table: of the micrographs; None: nothing is known about them.
        asked: the option ``--micrographs``.
    """
    known = None if asked == "alike" else transfers(table)
    return "each" if known is None and asked == "each" else known


def transfers(table: MicrographTable | None) -> mtd.Micrographs | None:
    """Transfer functions of the micrographs (CTF and preparation); None: none are known."""
    transfer = None if table is None else table.transfer
    return None if transfer is None else mtd.Micrographs(np.ones(len(transfer)), transfer=transfer)


def arguments(parameters: RunParameters, micrographs: Optics = None) -> dict[str, Any]:
    """The options and the differences between micrographs as arguments of :func:`mtdcore.recover`."""
    same = (
        "box_size", "rotations", "coarse_rotations", "noise_std", "noise", "likelihood", "min_separation", "expected_count", "diameter",
        "method", "iterations", "tolerance", "temperature", "seed", "starts", "classes", "symmetry", "mirror", "amplitude_std",
    )  # fmt: skip
    initial = parameters.initial
    return {
        **{name: getattr(parameters, name) for name in same},
        "subpixel": bool(parameters.subpixel),
        "initial": initial if initial is None or initial in get_args(Start) else read_image(Path(initial)),
        "prior": named_prior(parameters.prior),
        "micrographs": micrographs,
        "offset": None if parameters.offset == "none" else parameters.offset,
        "update": _update(parameters),
        "online": mtd.OnlineEM(parameters.batches, seed=parameters.seed),
    }


def asked_views(parameters: RunParameters) -> mtd.Views:
    """The views that the options ask for."""
    one = parameters
    return views_of(one.rotations, one.box_size, one.classes, one.symmetry, one.mirror, bool(one.subpixel))


def named_prior(name: str | None) -> mtd.Prior | None:
    """The prior of this name: of a plug-in (entry point ``mtdcore.priors``), shipped, or a file; None: no prior.

    Raises:
        DependencyError: PyTorch is not installed, or the plug-in cannot be loaded.
        InputError: there is no such prior; the message lists those there are.
    """
    if name is None:
        return None
    own = plugin("mtdcore.priors", name)
    if own is not None:
        made: mtd.Prior = own(name)
        return made
    torch = optional("torch", "torch")
    from mtdbridge import load_prior

    # A command owns its process and may set this: on one small image several threads are slower than one.
    torch.set_num_threads(1)
    loaded: mtd.Prior = load_prior(name)
    return loaded


def _update(parameters: RunParameters) -> Update | None:
    match parameters.update:
        case "gradient":
            return mtd.GradientAscent(parameters.step)
        case "exact":
            return mtd.ExactUpdate()
        case "denoising":
            return mtd.DenoisingUpdate()
        case "annealed":
            return mtd.AnnealedUpdate(seed=parameters.seed)
        case "wiener":
            return WienerUpdate()
    return None


@contextmanager
def computing(parameters: RunParameters, threads: int | None) -> Iterator[tuple[Backend, Executor | None]]:
    """The backend of a run, and the executor of its E-steps while the block runs.

    Args:
        parameters: the options of ``mtd recover``.
        threads: CPU threads; None: all cores. With workers, threads per task; None: the cores of this machine shared
            evenly, or one thread on a cluster.

    Raises:
        ParameterError: options that exclude each other.
        DependencyError, DeviceError, StorageError: a package, device or scheduler that was asked for is missing.
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
