"""A run that is updated with every micrograph that arrives.

The first few micrographs are recovered as `mtd recover` does. Each later micrograph is scored once, with the target of the earlier ones,
and its statistics are mixed in (:mod:`mtdcore.em.online.stream`). As long as later micrographs do not confirm the target, all so far are
recovered anew at twice, four and eight times the first number. The state after n micrographs depends on the micrographs, their order and
the options; it does not depend on their times of arrival, the reports, or interruptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import mtdcore as mtd
from mtdcore._base.files import write_whole
from mtdcore.data import Measurement, open_measurement
from mtdcore.data.micrographs.listing import Micrograph
from mtdcore.data.micrographs.table import Entry
from mtdcore.data.preparation.background import contrast_skewness
from mtdcore.data.preparation.prepare import Preparation, Prepared
from mtdcore.data.zarr.growing import GrowingStack
from mtdcore.data.zarr.store import creating
from mtdcore.em.checkpoint import compare, joined_fingerprint, load_checkpoint, micrograph_digest
from mtdcore.em.online.stream import Stream, first_state, nats
from mtdcore.errors import DependencyError, MtdError
from mtdcore.model.likelihood.window import localised
from mtdcore.results.detections import Detections, detect, no_copies
from mtdcore.results.verdict import HELD_OUT

from ..inputs.frames import JUDGED, contrast
from ..report.recovery import write_report
from ..run.arguments import arguments, computing, optics
from ..run.copies import write_tables
from ..run.folder import RunFolder
from ..run.job import Job, Made, identity, write_run
from ..run.memory import threads_within
from ..run.parameters import RunParameters
from ..run.record import MeasurementRecord
from ..terminal.console import log
from ..terminal.stopping import Interrupted, Stop, hold_off, patiently
from .ahead import Ahead, with_next
from .arrivals import Arrivals, Key, Stamp
from .ledger import Counted, Ledger, Store, as_detections, order_lines

#: Seconds between two reads of the source.
_POLL = 0.5

#: Number of doublings after which all micrographs are recovered anew, as long as the target is not confirmed.
_DOUBLINGS = 3

#: Smallest expected count for detection in a micrograph, and smallest probability of a detected copy.
_FEWEST, _THRESHOLD = 1e-3, 0.5


@dataclass
class Watch:
    """A watched run.

    Attributes:
        folder: locked by the caller.
        arrivals: the micrographs of the source.
        preparation: gives the steps of the preparation for the first file.
        parameters: of the recoveries.
        options: all other options that decide the result, for the identity of the run.
        again: the command line that continues the run.
        first: micrographs that are recovered together at first.
        every: micrographs between two reports.
        tell: called with each event.
    """

    folder: RunFolder
    arrivals: Arrivals
    preparation: Callable[[Path], Preparation]
    parameters: RunParameters
    options: dict[str, Any]
    again: str
    first: int
    every: int
    tell: Callable[[dict[str, Any]], None]
    _ledger: Ledger | None = None
    _stream: Stream | None = None
    _ahead: Ahead = field(default_factory=Ahead)
    _after: Micrograph | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    _clock: float = field(default_factory=time.perf_counter)

    def run(self, once: bool) -> None:
        """Count arriving micrographs, until none is left (``once``) or a signal comes.

        Raises:
            Interrupted: a signal, or the stop file, came; the counted micrographs are reported.
            CheckpointError: the run in the folder has other options, or is damaged.
        """
        self._store = Store(self.folder)
        with self._stack, closing(self._ahead), patiently(self.parameters.stop_file) as stop:
            found = self._store.load()
            if found is not None:
                saved, self._ledger = found
                self._compute(self._stack_shape, self._ledger.table.pixel_size)
                compare(self.folder.watch, saved, self._identity)
                log(f"going on after {len(self._ledger)} micrograph(s)")
                self._learn()
            try:
                while True:
                    came = self._look(stop)
                    if once and not came and not self.arrivals.waiting:
                        break
                    if not came:
                        self._wait(stop)
            except Interrupted:
                hold_off()
                self._report_rest()
                raise
            self._report_rest()

    @property
    def count(self) -> int:
        """Number of counted micrographs."""
        return 0 if self._ledger is None else len(self._ledger)

    @property
    def counted(self) -> frozenset[Key]:
        """Keys of the counted micrographs."""
        return frozenset() if self._ledger is None else frozenset(self._ledger.stamps)

    def _look(self, stop: Stop) -> bool:
        """Count the micrographs that have arrived; returns whether there were any."""
        ledger, came = self._ledger, False
        stamps = {} if ledger is None else ledger.stamps
        names = () if ledger is None else frozenset(ledger.table.names)
        like = None if ledger is None else ledger.counted[0].micrograph
        for (micrograph, stamp), after in with_next(self.arrivals.ready(stamps, names, like)):
            stop.check()
            self._after = None if after is None else after[0]
            if not self.arrivals.left_out(micrograph, stamp) and self._count(micrograph, stamp):
                came = True
                stop.iteration = self.count
        stop.check()
        return came

    def _wait(self, stop: Stop) -> None:
        time.sleep(_POLL)
        stop.check()

    def _count(self, micrograph: Micrograph, stamp: Stamp) -> bool:
        """Prepare, store, score and commit one micrograph; returns whether it counts."""
        began = time.perf_counter()
        steps = self._ledger.steps if self._ledger else self.preparation(micrograph.path)
        try:
            prepared = self._ahead.take(steps, micrograph)
        except DependencyError:
            raise
        except MtdError as problem:
            self.arrivals.leave_out(micrograph, stamp, f"{problem} It is tried again when it changes.")
            return False
        if Stamp.of(micrograph.path) != stamp:
            return False  # the file has changed meanwhile
        if self._after is not None and self.parameters.max_memory is None:
            self._ahead.begin(steps, self._after)
        one = open_measurement(prepared.pixels)
        digest = micrograph_digest(one).hex()
        ledger = self._ledger or self._begin(steps, micrograph, prepared)
        twin = next((other for other in ledger.counted if other.digest == digest), None)
        if twin is not None:
            why = f"{micrograph.name} has the pixels of {twin.entry.name}, which counts already"
            self.arrivals.leave_out(micrograph, stamp, why)
            return False
        counted = Counted(
            Entry.of(micrograph, prepared, steps.bin, steps.invert),
            str(micrograph.path.resolve()),
            micrograph.section,
            micrograph.shape,
            (stamp.size, stamp.modified),
            digest,
            int(np.isfinite(prepared.pixels).sum()),
            contrast_skewness(prepared.pixels) if len(ledger) < JUDGED else (0.0, 0.0),
        )
        ledger = ledger.with_one(counted, GrowingStack(self.folder.watched).put(len(ledger), prepared.pixels))
        if ledger.state is not None:
            ledger = self._mixed(ledger, one)
        self._commit(ledger)
        last = ledger.counted[-1]
        self.tell(
            {
                "event": "micrograph",
                "number": len(ledger),
                "name": last.entry.name,
                "masked": 1.0 - last.valid / prepared.pixels.size,
                "evidence_nats": last.nats,
                "picks": last.picks,
                "seconds": time.perf_counter() - began,
            }
        )
        self._learn()
        return True

    def _begin(self, steps: Preparation, micrograph: Micrograph, prepared: Prepared) -> Ledger:
        """The ledger before the first micrograph; also makes the stack for micrographs of this size."""
        size = None if micrograph.pixel_size is None else micrograph.pixel_size * steps.bin
        self._compute((1, *prepared.pixels.shape), size)
        attributes = {"version": mtd.__version__, "made_by": "watch", "parameters": asdict(steps)}
        GrowingStack(self.folder.watched).tidy()
        with creating(
            self.folder.watched,
            (1, *prepared.pixels.shape),
            np.dtype(np.float32),
            {"mtdcore": attributes},
            overwrite=True,
            pixel_size=size,
            ome=True,
        ):
            pass
        return Ledger(steps)

    def _mixed(self, ledger: Ledger, one: Measurement) -> Ledger:
        """The ledger after scoring its last micrograph and mixing in its statistics."""
        assert ledger.state is not None
        index = len(ledger) - 1
        unlike = self._micrographs_of(ledger, ledger.state, slice(index, None))
        if self._stream is None:
            self._stream = Stream.of(one, ledger.state, self._arguments)
        state = self._stream(ledger.state, one, unlike)
        found = self._detected(one, state, unlike)
        found = replace(found, micrograph=found.micrograph + index)
        self._store.add_picks(found)
        last = replace(ledger.counted[-1], nats=nats(state))
        ledger = replace(ledger, counted=(*ledger.counted[:-1], last), state=state)
        return ledger.with_picks(found, index)

    def _learn(self) -> None:
        """Recover all micrographs so far and report, each if it is due."""
        ledger = self._ledger
        assert ledger is not None
        if self._due(ledger):
            self._recover(ledger)
        ledger = self._ledger
        assert ledger is not None
        if (ledger.state is not None and len(ledger) - len(ledger) % self.every > ledger.reported) or (
            ledger.state is not None and not ledger.reported
        ):
            self._report()

    def _due(self, ledger: Ledger) -> bool:
        """Whether a joint recovery is due: at ``first`` micrographs, and at its doublings as long as no target is confirmed."""
        numbers = [self.first << doubling for doubling in range(_DOUBLINGS + 1)]
        confirmed = ledger.state is not None and ledger.held_out[0] > HELD_OUT
        return len(ledger) in numbers and ledger.begun < len(ledger) and not confirmed

    def _recover(self, ledger: Ledger) -> None:
        """Recover all micrographs so far as one measurement, and commit the resulting state."""
        if ledger.begun:
            log(
                f"micrographs after the first {ledger.begun} do not confirm what these show: all {len(ledger)} are recovered anew"
            )
        else:
            skewness = [one.skewness for one in ledger.counted[:JUDGED]]
            log(f"the first {len(ledger)} micrographs are there; {contrast(skewness)}")
        self._publish(ledger)
        measurement = open_measurement(self.folder.watched)
        unlike = optics(ledger.table, self.parameters.micrographs)
        owner = identity(measurement, self._backend, self.parameters, unlike)
        checkpoint = self.folder.checkpoint
        state = load_checkpoint(checkpoint, owner) if checkpoint.exists() else None
        job = Job(self.folder, self.parameters, owner, self._backend, self._executor)
        recovery = job.run(measurement, unlike, state)
        count, after = len(ledger), None
        self._store.clear_picks()
        if recovery.found_copies:
            after = first_state(recovery, count)
            known = (
                None
                if recovery.likelihood.micrographs is None
                else self._micrographs_of(ledger, after, slice(None))
            )
            found = self._detected(measurement, after, known, count)
            self._store.add_picks(found)
            ledger = ledger.with_picks(found, 0)
        else:
            log(f"no copies were found in {count} micrographs; more are waited for")
        self.folder.clear()
        self._stream = None
        self._commit(replace(ledger, begun=count, state=after, settled=recovery.settled, reported=0))

    def _detected(
        self, measurement: Measurement, state: mtd.EMState, unlike: mtd.Micrographs | None, count: int = 1
    ) -> Detections:
        model = state.likelihood.of_times(float(count), unlike)
        model = localised(model, max(model.copies, _FEWEST))
        return detect(measurement, state.target, model, self._backend, _THRESHOLD)

    def _micrographs_of(self, ledger: Ledger, state: mtd.EMState, which: slice) -> mtd.Micrographs | None:
        """The ``micrographs`` argument for some micrographs; None where the first ones were treated alike."""
        if not self._apart(ledger):
            return None
        entries = ledger.counted[which]
        values = max((len(one.entry.transfer or ()) for one in ledger.counted[: ledger.begun]), default=0)
        transfer = np.array([one.entry.transfer or (1.0,) * values for one in entries]) if values else None
        return mtd.Micrographs(np.ones(len(entries)), transfer=transfer)

    def _apart(self, ledger: Ledger) -> bool:
        begun = replace(ledger, counted=ledger.counted[: ledger.begun or len(ledger)])
        return optics(begun.table, self.parameters.micrographs) is not None

    def _report_rest(self) -> None:
        """Write a report if micrographs were counted since the last one."""
        ledger = self._ledger
        if ledger is not None and ledger.state is not None and ledger.reported < len(ledger):
            self._report()

    def _report(self) -> None:
        """Write class average, picks and verdict of all micrographs so far as the files of a finished run."""
        ledger = self._ledger
        assert ledger is not None
        assert ledger.state is not None
        count, state = len(ledger), ledger.state
        self._publish(ledger)
        shape = self._stack_shape
        blank = open_measurement(np.zeros(shape[1:], np.float32))  # has the size of every micrograph
        stream = self._stream or Stream.of(blank, state, self._arguments)
        recovery = stream.recovery(state, self._micrographs_of(ledger, state, slice(None)), ledger.settled)
        parts = [bytes.fromhex(one.digest) for one in ledger.counted]
        read = MeasurementRecord(
            path=self.folder.watched.absolute(),
            shape=shape,
            dtype="float32",
            fingerprint=joined_fingerprint(shape, np.dtype(np.float32), parts),
            unused_pixels=0,
            masked_pixels=int(np.prod(shape)) - sum(one.valid for one in ledger.counted),
        )
        seconds = time.perf_counter() - self._clock
        self.folder.clear_judgement()
        made = Made(self.again, self._started, seconds, self._backend.name)
        run = write_run(self.folder, self.parameters, recovery, read, ledger.table, made)
        found = as_detections(self._store.picks(), no_copies(state.likelihood.views))
        write_tables(run, found)
        order = order_lines(ledger.counted).encode("utf-8", "surrogateescape")
        write_whole(self.folder.watch_order, lambda file: file.write(order))
        write_report(run)
        self._commit(replace(ledger, reported=count))
        self.tell(
            {
                "event": "report",
                "micrographs": count,
                "run": str(self.folder.path),
                "report": str(self.folder.page),
                "expected_count": recovery.expected_count,
                "picks": len(found),
                "noise_std": recovery.noise_std,
                "evidence_nats": recovery.evidence,
                **verdict(*ledger.held_out),
            }
        )

    def _publish(self, ledger: Ledger) -> None:
        """Extend the measurement on disk to the counted micrographs."""
        GrowingStack(self.folder.watched).publish(ledger.digests)
        ledger.table.save(self.folder.watched)

    def _commit(self, ledger: Ledger) -> None:
        self._store.commit(ledger, self._identity)
        self._ledger = ledger

    @property
    def _stack_shape(self) -> tuple[int, int, int]:
        ledger = self._ledger
        assert ledger is not None
        height, width = ledger.steps.shape(ledger.counted[0].stored)
        return len(ledger), height, width

    def _compute(self, shape: tuple[int, int, int], pixel_size: float | None) -> None:
        """Open the backend until the end of the run, for micrographs of this shape and pixel size in angstrom."""
        self.parameters = self.parameters.in_pixels(pixel_size)
        threads = threads_within(self.parameters, shape)
        self._backend, self._executor = self._stack.enter_context(computing(self.parameters, threads))
        self._arguments = {
            **arguments(self.parameters),
            "backend": self._backend,
            "executor": self._executor,
        }
        self._identity = {
            "version": mtd.__version__,
            **self.parameters.deciding(),
            **self.options,
            "first": self.first,
            "device": self._backend.name,
        }


def verdict(held_out: float, micrographs: int) -> dict[str, Any]:
    """The verdict of held-out micrographs on the target.

    If there are no copies and the noise follows the model, the likelihood ratio against "no copies" is a martingale: the probability
    that it ever exceeds 1000 is at most 1/1000 (Ville's inequality), however often it is evaluated.
    """
    if not micrographs:
        return {"verdict": "no verdict yet: every micrograph was learned from", "supported": None}
    supported = held_out > HELD_OUT
    sentence = (
        "micrographs that it had not seen confirm it"
        if supported
        else "not distinguishable from noise: micrographs that it had not seen do not confirm it"
    )
    return {
        "verdict": sentence,
        "supported": supported,
        "held_out_evidence_nats": held_out,
        "held_out_micrographs": micrographs,
    }
