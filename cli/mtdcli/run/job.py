"""One recovery as the command line runs it: interruptible, checkpointed, its results in a run folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

import mtdcore as mtd
from mtdcore._base.optional import optional
from mtdcore.em.checkpoint import fingerprint, save_checkpoint
from mtdcore.em.starts import Start
from mtdcore.mstep.wiener import WienerUpdate

from ..inputs.sources import read_image
from ..terminal.progress import Progress
from .stopping import Interrupted, hold_off, patiently

if TYPE_CHECKING:
    from mtdcore.data import Measurement
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.estep.backends import Backend
    from mtdcore.mstep.updates import Update

    from .folder import RunFolder

#: Parameters that a continuation may change, because they change no bit of the result.
_FREE = ("threads", "workers", "scheduler", "max_memory", "checkpoint_every", "stop_file")


def facts(table: MicrographTable | None, asked: str) -> mtd.Micrographs | Literal["each"] | None:
    """What the model is told about the micrographs: the option ``--micrographs`` and what is known of them."""
    if asked == "alike":
        return None
    transfer = None if table is None else table.transfer
    if transfer is None:
        return "each" if asked == "each" else None
    return mtd.Micrographs(np.ones(len(transfer)), transfer=transfer)


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
    executor: Executor | None = None,
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
        executor: of the E-steps; None: the backend alone.

    Raises:
        Interrupted: a signal came; a checkpoint is in the folder.
    """
    saved = time.monotonic()
    unsaved: mtd.EMState | None = None
    done = 0 if state is None else state.iteration
    with (
        patiently(parameters["stop_file"], done) as stop,
        Progress("recover", parameters["iterations"], "iterations") as bar,
    ):

        def after(current: mtd.EMState) -> None:
            nonlocal saved, unsaved
            unsaved, last = current, current.history[-1]
            stop.iteration = last.iteration
            if last.iteration == 1:  # every parameter has proved usable: what --force replaces may go
                folder.clear()
            bar.update(
                last.iteration, {"nats": f"{last.objective:.6g}", "copies": f"{last.expected_count:.4g}"}
            )
            stop.check()
            if time.monotonic() - saved >= parameters["checkpoint_every"]:
                save_checkpoint(folder.checkpoint, current, owner)
                saved, unsaved = time.monotonic(), None

        try:
            recovery = mtd.recover(
                measurement,
                **arguments(parameters, micrographs),
                backend=backend,
                executor=executor,
                callback=after,
                state=state,
            )
            # The last state, so that --resume of a finished run finds nothing to do.
            save_checkpoint(folder.checkpoint, recovery.state, owner)
            unsaved = None
            stop.check()
        except Interrupted:
            hold_off()
            if unsaved is not None:
                save_checkpoint(folder.checkpoint, unsaved, owner)
            raise
        return recovery


def save(folder: RunFolder, recovery: mtd.Recovery) -> None:
    """Write the images and the history of a finished run."""
    folder.write_image(folder.estimate, recovery.target)
    folder.write_image(folder.average, recovery.aligned_average)
    folder.write_history([asdict(record) for record in recovery.history])


def arguments(
    parameters: Mapping[str, Any], micrographs: mtd.Micrographs | Literal["each"] | None = None
) -> dict[str, Any]:
    """Options of ``mtd recover``, and what tells the micrographs apart, as arguments of :func:`mtdcore.recover`."""
    same = (
        "box_size", "rotations", "coarse_rotations", "noise_std", "likelihood", "min_separation", "expected_count",
        "iterations", "tolerance", "temperature", "seed", "starts", "classes",
    )  # fmt: skip
    initial = parameters["initial"]
    return {
        **{name: parameters[name] for name in same},
        "initial": initial if initial in (None, *get_args(Start)) else read_image(Path(initial)),
        "prior": prior(parameters["prior"]),
        "micrographs": micrographs,
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
        case "wiener":
            return WienerUpdate()
    return None


def prior(name: str | None) -> mtd.Prior | None:
    """The learned prior of this name or file; None: no prior.

    Raises:
        DependencyError: PyTorch is not installed.
    """
    if name is None:
        return None
    torch = optional("torch", "torch")
    from mtdbridge import load_prior

    # This process is ours to configure: on one small image more threads only wait for each other.
    torch.set_num_threads(1)
    loaded: mtd.Prior = load_prior(name)
    return loaded
