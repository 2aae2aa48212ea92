"""Evidence for and against a recovered volume: verdict, half maps, omit test, posterior standard deviation of each voxel."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from mtdcore.errors import InputError, StorageError
from mtdcore.model.volumes.maps import read_map, write_map
from mtdcore.results.metrics import RingCorrelation
from mtdcore.results.nulls import Null
from mtdcore.results.verdict import Question, Verdict, asked
from mtdcore.results.volumes.halves import VolumeHalves, halves_of, volume_halves
from mtdcore.results.volumes.omission import Omission, omit_test
from mtdcore.results.volumes.trials import VolumeTrials

from ..run.folder import RunFolder
from ..run.judging import judgement
from ..run.record import DrawsRecord, PartRecord
from ..terminal.console import log
from ..terminal.stopping import Stop, patiently
from .repeating import Repetitions
from .run import arguments

if TYPE_CHECKING:
    import mtdcore as mtd
    from mtdcore.data import Measurement
    from mtdcore.em.volumes.recovery import VolumeRecovery
    from mtdcore.estep.backends import Backend

    from .parameters import VolumeParameters

#: Log message after each question is answered.
_ANSWERED: dict[Question, str] = {
    "white": "judged: a run on white noise",
    "phases": "judged: a run on the micrographs with random phases",
    "held_out": "judged: each half of the data by the other's volume",
    "other_start": "judged: another start",
    "unaided": "judged: each half of the data by the other's volume without the prior",
}

_KINDS: tuple[Null, ...] = get_args(Null)


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and standard deviation of each voxel over draws from the posterior.

    Attributes:
        draws: summary of the draws.
        mean: (L, L, L) of ``volume_mean.mrc``.
        std: (L, L, L) of ``volume_std.mrc``.
    """

    draws: DrawsRecord
    mean: np.ndarray
    std: np.ndarray


@dataclass
class Judged:
    """The findings about a volume that were asked for.

    Attributes:
        verdict: None: not asked for.
        halves: volumes of two halves of the data; None: not asked for.
        chance: shell correlation of halves of null measurements, by kind.
        omissions: results of the omit test, part by part; empty: no omit test.
        spread: of draws from the posterior; None: no draws.
    """

    verdict: Verdict | None = None
    halves: VolumeHalves | None = None
    chance: dict[Null, RingCorrelation] = field(default_factory=dict)
    omissions: list[Omission] = field(default_factory=list)
    spread: Spread | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The findings as numbers, for the terminal and the record. A resolution is given only together with that of noise alone."""
        found = {} if self.verdict is None else judgement(self.verdict)
        if self.halves is not None and self.chance:
            found["half_set_resolution_pixels"] = self.halves.whole.resolution()
            found["null_half_set_resolution_pixels"] = {
                kind: curve.resolution() for kind, curve in self.chance.items()
            }
        if self.omissions:
            held = sum(one.in_data for one in self.omissions)
            found["parts_in_data"] = f"{held} of {len(self.omissions)}"
            names = "share", "amplitude", "error", "in_data"
            found["omit_test"] = [{name: getattr(one, name) for name in names} for one in self.omissions]
        if self.spread is not None:
            found["voxels_clear_of_zero"] = self.spread.draws.clear
            found["effective_draws"] = self.spread.draws.effective
        return found


@dataclass
class Examination:
    """The examination of a volume, with its findings so far in the run folder.

    Attributes:
        folder: locked run folder, with the results in it.
        measurement: from which the volume was recovered.
        found: the recovery.
        parameters: of the run and of the examination.
        given: keyword arguments of the recovery.
        owner: the identity of the run.
        pixel_size: angstrom; None: unknown.
    """

    folder: RunFolder
    measurement: Measurement
    found: VolumeRecovery
    parameters: VolumeParameters
    given: Mapping[str, Any]
    owner: Mapping[str, Any]
    pixel_size: float | None

    def __post_init__(self) -> None:
        self.trust, self.judged = self.folder.read_volume_trust(), Judged()
        self._began = time.perf_counter() - self.trust.seconds
        if self.trust.seconds:
            log(f"going on with what {self.folder.trust} holds")

    def made(self) -> Judged:
        """All findings that the parameters ask for; those in the folder are not computed again.

        Raises:
            Interrupted: a signal came; finished findings are in the folder.
        """
        one = self.parameters
        with patiently(one.stop_file, self.found.state.iteration) as stop:
            repeat = Repetitions(self.folder, self.owner, one.checkpoint_every, stop)
            trials = VolumeTrials.of(self.measurement, self.found, self.given, repeat)
            if one.trust is not None:
                self._judge(trials, one.trust, stop)
            if one.halves:
                self._compare_halves(trials, repeat, stop)
            if one.draws is not None:
                self._draw(one.draws, repeat)
        if self.trust.seconds:
            self._keep()
        return self.judged

    def _keep(self) -> None:
        """Write the findings so far, and remove the checkpoints of recoveries and draws that are not needed any more."""
        self.trust.seconds, self.trust.found = time.perf_counter() - self._began, self.judged.numbers
        self.folder.write_trust(self.trust)
        nulls = [f"{kind}_0" for kind in _KINDS if self.trust.null(kind).halves is None]
        chain = ["draws"] if self.parameters.draws is not None and self.judged.spread is None else []
        self.folder.clear_repetitions(["half_1", "half_2", *nulls, *chain])

    def _judge(self, trials: VolumeTrials, null_runs: int, stop: Stop) -> None:
        verdict = self.judged.verdict = self.trust.verdict(
            self.found.evidence, aided=self.parameters.prior is not None
        )
        for more, question, _ in asked(verdict, trials, null_runs):
            self.judged.verdict = more
            self.trust.learn(more)
            self._keep()
            log(_ANSWERED[question])
            stop.check()

    def _compare_halves(self, trials: VolumeTrials, repeat: Repetitions, stop: Stop) -> None:
        """Half maps and their shell correlation, of null measurements first; then the omit test."""
        shared = self._shared("diameter", "min_separation", "prior", "backend")
        for kind in _KINDS if self.judged.verdict is not None else ():
            null = self.trust.null(kind)
            if null.halves is None and null.evidence:
                noise, of_noise = trials.null_measurement(kind, 0), replace(repeat, before=f"{kind}_")
                null.halves = volume_halves(noise, trials.null(kind, 0), of_noise, **shared).whole
                self._keep()
                stop.check()
            if null.halves is not None:
                self.judged.chance[kind] = null.halves
        log("two halves of the data, each from the low-passed volume")
        halves = self.judged.halves = volume_halves(self.measurement, self.found, repeat, **shared)
        write_map(self.folder.half1, halves.first, self.pixel_size)
        write_map(self.folder.half2, halves.second, self.pixel_size)
        self.trust.halves = halves.whole
        self._keep()
        stop.check()
        if self.parameters.omitted and self.found.found_copies:
            self._leave_out(halves.runs[0], self.parameters.omitted, stop)

    def _leave_out(self, half: VolumeRecovery, parts: int, stop: Stop) -> None:
        """The omit test: parts of the first half's volume are tested against the other half of the data."""
        if not half.found_copies:
            log("no omit test: the first half of the data has no volume")
            return
        if self.trust.omitted and self.trust.parts != parts:
            log(f"{self.folder.trust} holds an omit test of {self.trust.parts} parts, not {parts}: a new one")
            self.trust.omitted = []
        self.trust.parts, omissions = parts, self.judged.omissions
        kept = [(one.amplitude, math.inf if one.error is None else one.error) for one in self.trust.omitted]
        other = halves_of(self.measurement)[1]
        for part in omit_test(other, half, parts, self.given["backend"], known=kept):
            omissions.append(part)
            if len(omissions) <= len(kept):
                continue
            self.trust.omitted.append(PartRecord(part.amplitude, part.error if part.determined else None))
            self._keep()
            log(f"omit test, part {len(omissions)} of {parts}: amplitude {part}")
            stop.check()
        _warn_of(omissions)

    def _draw(self, count: int, repeat: Repetitions) -> None:
        """Draws from the posterior of the volume."""
        if not self.found.found_copies:
            log("no draws from the posterior: no copies were found, so that there is nothing to be sure of")
            return
        kept = self.trust.draws
        if kept is not None and kept.count != count:
            log(f"{self.folder.trust} holds {kept.count} draws, not {count}: they are drawn anew")
        elif kept is not None:
            try:
                self.judged.spread = self._spread(kept)
            except (InputError, StorageError) as problem:
                log(f"warning: the draws are made anew: {problem}")
        if self.judged.spread is None:
            log(f"{count} draws from the posterior of the volume")
            shared = self._shared("diameter", "prior", "seed", "backend")
            drawn = repeat.draws(self.measurement, self.found, count, **shared)
            write_map(self.folder.volume_mean, drawn.mean, self.pixel_size)
            write_map(self.folder.volume_std, drawn.std, self.pixel_size)
            self.trust.draws = DrawsRecord(count, drawn.effective, drawn.clear)
            self.judged.spread = self._spread(self.trust.draws)
            self._keep()

    def _spread(self, draws: DrawsRecord) -> Spread:
        mean, std = (read_map(path)[0] for path in (self.folder.volume_mean, self.folder.volume_std))
        return Spread(draws, mean, std)

    def _shared(self, *names: str) -> dict[str, Any]:
        """The named arguments of the recovery, where given."""
        return {name: self.given[name] for name in names if name in self.given}


def examine(
    folder: RunFolder,
    measurement: Measurement,
    found: VolumeRecovery,
    parameters: VolumeParameters,
    backend: Backend,
    micrographs: mtd.Micrographs | None,
    owner: Mapping[str, Any],
    pixel_size: float | None,
) -> Judged:
    """The findings of an :class:`Examination`; ``micrographs`` as in the recovery."""
    given = arguments(parameters, backend, micrographs)
    return Examination(folder, measurement, found, parameters, given, owner, pixel_size).made()


def _warn_of(omissions: list[Omission]) -> None:
    """Log the parts that the data do not confirm, and those they leave open."""
    numbered = [(str(i), one) for i, one in enumerate(omissions, 1)]
    undetermined = [i for i, one in numbered if not one.determined]
    missing = [i for i, one in numbered if one.determined and not one.in_data]
    if missing:
        log(
            f"warning: the data do not give back part {', '.join(missing)}: there the volume is the prior's, or noise"
        )
    if undetermined:
        log(
            f"warning: whether the data hold part {', '.join(undetermined)} cannot be told: they tell too little of the poses"
        )
