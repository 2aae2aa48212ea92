"""One recovery as the command line runs it: interruptible, checkpointed, its results in a run folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mtdcore as mtd
from mtdcore.data import Measurement
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.em.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from mtdcore.estep.backends import Backend
from mtdcore.results import uncertainty

from ..inputs.opening import table_of
from ..inputs.usable import missing, open_usable, source_of
from ..terminal.console import log, noting_doubts
from ..terminal.installation import machine, versions
from ..terminal.progress import Progress
from ..terminal.stopping import Interrupted, hold_off, patiently
from .arguments import Optics, arguments, computing, named_prior, optics
from .copies import write_copies
from .finished import FinishedRun
from .folder import RunFolder
from .memory import threads_within
from .output import refuse_run
from .parameters import RunParameters
from .record import MeasurementRecord, ResultRecord, RunRecord


def identity(
    measurement: Measurement, backend: Backend, parameters: RunParameters, micrographs: Optics = None
) -> dict[str, Any]:
    """Everything the bits of a result depend on."""
    return {
        "version": mtd.__version__,
        "measurement": fingerprint(measurement),
        **parameters.deciding(),
        **transfer_digest(micrographs),
        "device": backend.name,
    }


def transfer_digest(micrographs: Optics) -> dict[str, str]:
    """The entry of an identity for transfers; empty where there are none."""
    if not isinstance(micrographs, mtd.Micrographs) or micrographs.transfer is None:
        return {}
    return {"transfer": "sha256:" + hashlib.sha256(micrographs.transfer.tobytes()).hexdigest()[:16]}


def recover(
    path: Path, folder: RunFolder, parameters: RunParameters, again: str, *, resume: bool, force: bool
) -> tuple[FinishedRun, dict[str, object], bool]:
    """Recover the target of a measurement and fill its run folder, except for the report.

    Args:
        path: the measurement.
        folder: locked by the caller.
        parameters: how.
        again: command line that repeats the run, for its record.
        resume: go on from the checkpoint, where there is one.
        force: replace what is in the folder.

    Returns:
        The run, its summary, and whether it found any copies.

    Raises:
        UsageError, StorageError: see :func:`refuse_run`.
        CheckpointError: the checkpoint is of another run, or damaged.
        Interrupted: a signal came; after the first iteration a checkpoint is in the folder.
    """
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    refuse_run(folder, (path, parameters.initial, parameters.prior), resume, force)
    measurement = open_usable(path, parameters.skip_bad, parameters.defects)
    table = table_of(path, source_of(measurement))
    parameters = parameters.in_pixels(None if table is None else table.pixel_size)
    micrographs, height, width = measurement.shape
    threads = threads_within(parameters, measurement.shape)
    told = optics(table, parameters.micrographs)
    square = isinstance(parameters.box_size, int)  # others are of signals, which have no diameter
    if square and table is not None and parameters.diameter is None and parameters.prior is None:
        log(
            "no --diameter: neighbours may be taken for parts of a particle; give its diameter in pixels, or in angstrom as in 120A"
        )
    with computing(parameters, threads) as (backend, executor):
        owner = identity(measurement, backend, parameters, told)
        state = None
        if resume and folder.occupied:
            state = load_checkpoint(folder.checkpoint, owner)
            log(f"going on after iteration {state.iteration}")
        log(f"{path}: {micrographs} micrograph(s) of {height} x {width} pixels, backend {backend.name}")
        job = Job(folder, parameters, owner, backend, executor)
        with noting_doubts() as doubts:
            recovery = job.run(measurement, told, state)
    if recovery.likelihood.whitening is not None:
        log(recovery.noise)
    unused = micrographs * recovery.likelihood.geometry.unused_pixels((height, width))
    if unused:
        log(f"{unused} pixels at the far edges fill no whole patch and were not used")
    read = MeasurementRecord(
        path=path.absolute(),
        shape=measurement.shape,
        dtype=str(measurement.dtype),
        fingerprint=owner["measurement"],
        unused_pixels=unused,
        **missing(measurement, round(recovery.statistics.pixels) + unused),
    )
    before = 0.0 if state is None else sum(record.seconds for record in state.history)
    seconds = before + time.perf_counter() - clock
    run = write_run(
        folder, parameters, recovery, read, table, Made(again, started, seconds, backend.name, doubts)
    )
    write_copies(run, device=parameters.device.removesuffix(":all"))
    return run, recovery.summary(), recovery.found_copies


@dataclass(frozen=True)
class Made:
    """How a result came about, as its record says: command line that repeats it, local time, wall time, name of the backend, doubts."""

    command: str
    started: str
    seconds: float
    device: str
    doubts: list[str] = field(default_factory=list)


def write_run(
    folder: RunFolder,
    parameters: RunParameters,
    recovery: mtd.Recovery,
    read: MeasurementRecord,
    table: MicrographTable | None,
    made: Made,
) -> FinishedRun:
    """Fill a run folder, except for picks and report; ``run.json`` comes last."""
    _save_images(folder, recovery)
    if table is not None:
        table.save(folder.path)
    share = data_share(recovery, named_prior(parameters.prior))
    record = RunRecord(
        **asdict(made),
        measurement=read,
        parameters=parameters,
        result=ResultRecord(**recovery.summary(), data_share=share),  # type: ignore[arg-type]
        versions=versions(),
        machine=machine(),
    )
    folder.write_record(record)
    return FinishedRun.at(folder)


def data_share(recovery: mtd.Recovery, prior: mtd.Prior | None) -> float | None:
    """Share of the answer that comes from the data, 1 without a prior; None: several classes, or no copies."""
    if recovery.likelihood.classes > 1 or not recovery.expected_count > 0:
        return None
    if prior is None:
        return 1.0
    level = uncertainty.average_level(recovery)
    return uncertainty.data_share(recovery.aligned_average, level, recovery.in_units(prior))


def _save_images(folder: RunFolder, recovery: mtd.Recovery) -> None:
    folder.write_image(folder.estimate, recovery.target)
    folder.write_image(folder.average, recovery.aligned_average)
    folder.write_history([asdict(record) for record in recovery.history])


@dataclass
class Job:
    """The iterations of a run, with progress and checkpoints.

    Attributes:
        folder: locked run folder.
        parameters: how.
        owner: the :func:`identity` that goes into checkpoints.
        backend: where to compute.
        executor: of the E-steps; None: the backend alone.
    """

    folder: RunFolder
    parameters: RunParameters
    owner: Mapping[str, Any]
    backend: Backend
    executor: Executor | None

    def run(self, measurement: Measurement, micrographs: Optics, state: mtd.EMState | None) -> mtd.Recovery:
        """Start, or go on from a state.

        Raises:
            Interrupted: a signal came; a checkpoint is in the folder.
        """
        saved = time.monotonic()
        unsaved: mtd.EMState | None = None
        done = 0 if state is None else state.iteration
        with (
            patiently(self.parameters.stop_file, done) as stop,
            Progress("recover", self.parameters.iterations, "iterations") as bar,
        ):

            def after(current: mtd.EMState) -> None:
                nonlocal saved, unsaved
                unsaved, last = current, current.history[-1]
                stop.iteration = last.iteration
                if last.iteration == 1:  # every parameter has proved usable: what --force replaces may go
                    self.folder.clear()
                bar.update(
                    last.iteration, {"nats": f"{last.objective:.6g}", "copies": f"{last.expected_count:.4g}"}
                )
                stop.check()
                if time.monotonic() - saved >= self.parameters.checkpoint_every:
                    save_checkpoint(self.folder.checkpoint, current, self.owner)
                    saved, unsaved = time.monotonic(), None

            try:
                recovery = mtd.recover(
                    measurement,
                    **arguments(self.parameters, micrographs),
                    backend=self.backend,
                    executor=self.executor,
                    callback=after,
                    state=state,
                )
                if not recovery.history:  # no iteration has done it
                    self.folder.clear()
                # The last state, so that --resume of a finished run finds nothing to do.
                save_checkpoint(self.folder.checkpoint, recovery.state, self.owner)
                unsaved = None
                stop.check()
            except Interrupted:
                hold_off()
                if unsaved is not None:
                    save_checkpoint(self.folder.checkpoint, unsaved, self.owner)
                raise
            return recovery
