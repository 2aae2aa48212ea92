"""One recovery as the command line runs it: interruptible, checkpointed, its results in a run folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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
from .arguments import Optics, arguments, computing, named_prior, optics
from .copies import write_copies
from .finished import FinishedRun
from .folder import RunFolder
from .loop import iterate, spent, state_to_resume
from .memory import threads_within
from .output import refuse_run
from .parameters import Parameters, RunParameters
from .record import MeasurementRecord, ResultRecord, RunRecord

P = TypeVar("P", bound=Parameters)


def opened(
    path: Path, folder: RunFolder, parameters: P, resume: bool, force: bool
) -> tuple[Measurement, MicrographTable | None, P]:
    """The measurement of a run, the table of its micrographs and the options with lengths in pixels; refuses as :func:`refuse_run`."""
    refuse_run(folder, (path, parameters.initial, parameters.prior), resume, force)
    measurement = open_usable(path, parameters.skip_bad, parameters.defects)
    table = table_of(path, source_of(measurement))
    return measurement, table, parameters.in_pixels(None if table is None else table.pixel_size)


def identity(
    measurement: Measurement, backend: Backend, parameters: Parameters, micrographs: Optics = None
) -> dict[str, Any]:
    """Everything that the bits of a result depend on."""
    return {
        "version": mtd.__version__,
        "measurement": fingerprint(measurement),
        **parameters.deciding(),
        **_transfer_digest(micrographs),
        "device": backend.name,
    }


def _transfer_digest(micrographs: Optics) -> dict[str, str]:
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
    measurement, table, parameters = opened(path, folder, parameters, resume, force)
    micrographs, height, width = measurement.shape
    threads = threads_within(parameters, measurement.shape)
    unlike = optics(table, parameters.micrographs)
    square = isinstance(parameters.box_size, int)  # other boxes are those of signals, which have no diameter
    if square and table is not None and parameters.diameter is None and parameters.prior is None:
        log(
            "no --diameter: neighbours may be taken for parts of a particle; give its diameter in pixels, or in angstrom as in 120A"
        )
    with computing(parameters, threads) as (backend, executor):
        owner = identity(measurement, backend, parameters, unlike)
        state = state_to_resume(folder, resume, lambda: load_checkpoint(folder.checkpoint, owner))
        log(f"{path}: {micrographs} micrograph(s) of {height} x {width} pixels, backend {backend.name}")
        job = Job(folder, parameters, owner, backend, executor)
        with noting_doubts() as doubts:
            recovery = job.run(measurement, unlike, state)
    if recovery.likelihood.whitening is not None:
        log(recovery.noise)
    unused = micrographs * recovery.likelihood.geometry.unused_pixels((height, width))
    if unused:
        log(f"{unused} pixels at the far edges fill no whole patch and were not used")
    read = measurement_record(path, measurement, owner, recovery.statistics.pixels, unused)
    seconds = spent(state) + time.perf_counter() - clock
    run = write_run(
        folder, parameters, recovery, read, table, Made(again, started, seconds, backend.name, doubts)
    )
    write_copies(run, device=parameters.device.removesuffix(":all"))
    return run, recovery.summary(), recovery.found_copies


def measurement_record(
    path: Path, measurement: Measurement, owner: Mapping[str, Any], used: float, unused: int = 0
) -> MeasurementRecord:
    """The record of the measurement for ``run.json``.

    Args:
        path: where.
        measurement: as :func:`opened` gave it, read at least once.
        owner: the :func:`identity` of the run.
        used: number of pixels.
        unused: number of pixels that fill no patch.
    """
    return MeasurementRecord(
        path=path.absolute(),
        shape=measurement.shape,
        dtype=str(measurement.dtype),
        fingerprint=owner["measurement"],
        unused_pixels=unused,
        **missing(measurement, round(used) + unused),
    )


@dataclass(frozen=True)
class Made:
    """Provenance of a result, for its record: command line that repeats it, local time, wall time, name of the backend, doubts."""

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
    """Share of the estimate that comes from the data, 1 without a prior; None: several classes, or no copies."""
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

        def recovered(after: Callable[[mtd.EMState], None]) -> mtd.Recovery:
            return mtd.recover(
                measurement,
                **arguments(self.parameters, micrographs),
                backend=self.backend,
                executor=self.executor,
                callback=after,
                state=state,
            )

        def save(current: mtd.EMState) -> None:
            save_checkpoint(self.folder.checkpoint, current, self.owner)

        def shown(last: mtd.IterationRecord) -> dict[str, str]:
            return {"nats": f"{last.objective:.6g}", "copies": f"{last.expected_count:.4g}"}

        return iterate(self.folder, self.parameters, state, recovered, save, shown)
