"""One recovery as the command line runs it: interruptible, checkpointed, its results in a run folder."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, get_args

import mtdcore as mtd
from mtdcore.checkpoint import fingerprint, save_checkpoint
from mtdcore.errors import DependencyError
from mtdcore.starts import Start

from .console import log
from .progress import Progress
from .sources import read_image

if TYPE_CHECKING:
    from mtdcore.backends import Backend
    from mtdcore.measurement import Measurement
    from mtdcore.microscopy.table import MicrographTable
    from mtdcore.mstep import Update

    from .run_folder import RunFolder

#: Parameters that a continuation may change, because they change no bit of the result.
_FREE = ("threads", "max_memory", "checkpoint_every", "stop_file")


#: The ``--device`` that spreads every E-step over all CUDA devices.
ALL_DEVICES = "cuda:all"


class Interrupted(Exception):
    """The run was asked to stop and did, after a checkpoint.

    Attributes:
        signum: the signal that asked.
        iteration: completed iterations.
    """

    def __init__(self, signum: int, iteration: int) -> None:
        super().__init__(f"interrupted after iteration {iteration}")
        self.signum, self.iteration = signum, iteration


@dataclass
class Stop:
    """Whether a signal, or a file, has asked the run to stop.

    Attributes:
        signum: SIGINT or SIGTERM, once it came.
        file: a file whose appearance asks the same.
    """

    signum: int | None = None
    file: Path | None = None

    @property
    def asked(self) -> bool:
        """Whether to stop now."""
        return self.signum is not None or (self.file is not None and self.file.exists())


@contextmanager
def listening(file: Path | None = None) -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM while the block runs. A second one ends the process as it always did."""
    stop = Stop(file=file)

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.signum = signum
        restore()
        log("stopping after this iteration, with a checkpoint; once more to stop at once")

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    try:
        yield stop
    finally:
        restore()


def facts(table: MicrographTable | None, asked: str) -> mtd.Micrographs | Literal["each"] | None:
    """What the model is told about the micrographs: the option ``--micrographs`` and what is known of them."""
    if asked == "alike":
        return None
    known = None if table is None else table.facts()
    return "each" if known is None and asked == "each" else known


def identity(
    measurement: Measurement,
    backend: Backend,
    parameters: Mapping[str, Any],
    micrographs: mtd.Micrographs | Literal["each"] | None = None,
) -> dict[str, Any]:
    """What a run depends on. Two runs with equal identities end with the same bits."""
    own = {name: value for name, value in parameters.items() if name not in _FREE}
    for name in ("prior", "initial"):  # a file counts by its content
        if own[name] is not None and Path(own[name]).is_file():
            own[name] = "sha256:" + hashlib.sha256(Path(own[name]).read_bytes()).hexdigest()[:16]
    if isinstance(micrographs, mtd.Micrographs) and micrographs.transfer is not None:
        own["transfer"] = "sha256:" + hashlib.sha256(micrographs.transfer.tobytes()).hexdigest()[:16]
    return {
        "version": mtd.__version__,
        "measurement": fingerprint(measurement),
        **own,
        "device": backend.name,
    }


def run(
    measurement: Measurement,
    folder: RunFolder,
    backend: Backend,
    parameters: Mapping[str, Any],
    owner: Mapping[str, Any],
    state: mtd.EMState | None,
    micrographs: mtd.Micrographs | Literal["each"] | None = None,
) -> mtd.Recovery:
    """Run (or continue) a recovery with progress and checkpoints.

    Args:
        measurement: open measurement.
        folder: locked run folder.
        backend: where to compute.
        parameters: the options of ``mtd recover``.
        owner: the :func:`identity` that goes into checkpoints.
        state: state to continue from; None: start.
        micrographs: what tells the micrographs apart.

    Raises:
        Interrupted: a signal came; a checkpoint is in the folder.
    """
    saved = time.monotonic()
    done = 0 if state is None else state.iteration
    with (
        _workers(parameters["device"]) as executor,
        listening(parameters["stop_file"]) as stop,
        Progress("recover", parameters["iterations"], "iterations", done) as bar,
    ):

        def after(current: mtd.EMState) -> None:
            nonlocal saved
            last = current.history[-1]
            if last.iteration == 1:  # every parameter has proved usable: what --force replaces may go
                folder.clear()
            bar.update(
                last.iteration, {"nats": f"{last.objective:.6g}", "copies": f"{last.expected_count:.4g}"}
            )
            due = time.monotonic() - saved >= parameters["checkpoint_every"]
            if due or stop.asked:
                save_checkpoint(folder.checkpoint, current, owner)
                saved = time.monotonic()
            if stop.asked:
                raise Interrupted(stop.signum or signal.SIGTERM, last.iteration)

        arguments = _arguments(parameters)
        recovery = mtd.recover(
            measurement,
            **arguments,
            micrographs=micrographs,
            backend=backend,
            executor=executor,
            callback=after,
            state=state,
        )
        # The last state, so that --resume of a finished run finds nothing to do.
        save_checkpoint(folder.checkpoint, recovery.state, owner)
        return recovery


def _workers(device: str) -> AbstractContextManager[Executor | None]:
    """A process for each CUDA device where all are asked for."""
    if device != ALL_DEVICES:
        return nullcontext()
    from mtdcore.backends.cuda import device_executor

    return device_executor()


def save(folder: RunFolder, recovery: mtd.Recovery) -> None:
    """Write the images and the history of a finished run."""
    folder.write_image(folder.estimate, recovery.target)
    folder.write_image(folder.average, recovery.aligned_average)
    folder.write_history([asdict(record) for record in recovery.history])


def _arguments(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``mtd recover`` as arguments of :func:`mtdcore.recover`."""
    same = (
        "box_size", "rotations", "noise_std", "likelihood", "min_separation", "expected_count",
        "iterations", "tolerance", "temperature", "seed", "starts", "classes",
    )  # fmt: skip
    initial = parameters["initial"]
    return {
        **{name: parameters[name] for name in same},
        "initial": initial if initial in get_args(Start) else read_image(Path(initial)),
        "prior": _prior(parameters["prior"]),
        "update": _update(parameters),
        "online": mtd.OnlineEM(parameters["batches"], seed=parameters["seed"]),
    }


def _update(parameters: Mapping[str, Any]) -> Update | None:
    match parameters["update"]:
        case "gradient":
            return mtd.GradientAscent(parameters["step"])
        case "exact":
            return mtd.ExactUpdate()
        case "denoising":
            return mtd.DenoisingUpdate()
    return None


def _prior(name: str | None) -> mtd.Prior | None:
    if name is None:
        return None
    try:
        import torch

        from mtdbridge import load_prior
    except DependencyError:
        raise
    except ImportError as problem:
        raise DependencyError(
            f"--prior {name} needs PyTorch; install it with: pip install 'mtdcore[torch]'."
        ) from problem
    # This process is ours to configure: on one small image more threads only wait for each other.
    torch.set_num_threads(1)
    prior: mtd.Prior = load_prior(name)
    return prior
