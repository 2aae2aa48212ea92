"""Evidence for and against a recovered volume: its verdict, how two halves of the data agree, which of its parts the data hold, how sure each voxel is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtdcore.results.nulls import Null
from mtdcore.results.verdict import Question, Verdict, asked
from mtdcore.results.volumes.draws import VolumeDraws, posterior_volumes
from mtdcore.results.volumes.halves import VolumeHalves, halves_of, volume_halves
from mtdcore.results.volumes.omission import Omission, omit_test
from mtdcore.results.volumes.trials import VolumeTrials

from ..run.judging import judgement
from ..terminal.console import log
from ..terminal.stopping import Stop, patiently
from .run import arguments

if TYPE_CHECKING:
    import mtdcore as mtd
    from mtdcore.data import Measurement
    from mtdcore.em.volumes.recovery import VolumeRecovery
    from mtdcore.estep.backends import Backend

    from .parameters import VolumeParameters

#: Said of a question that has been answered.
_ANSWERED: dict[Question, str] = {
    "white": "judged: a run on white noise",
    "phases": "judged: a run on the micrographs with random phases",
    "held_out": "judged: each half of the data by the other's volume",
    "other_start": "judged: another start",
}


@dataclass
class Judged:
    """What is known for and against a volume.

    Attributes:
        verdict: None: it was not asked for.
        halves: volumes of two halves of the data; None: the same.
        chance: the same of null measurements, by kind.
        omissions: of the omit test, part by part; empty: it was not made.
        draws: from the posterior; None: there are none.
    """

    verdict: Verdict | None = None
    halves: VolumeHalves | None = None
    chance: dict[Null, VolumeHalves] = field(default_factory=dict)
    omissions: list[Omission] = field(default_factory=list)
    draws: VolumeDraws | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """For the terminal and the record. A resolution is given beside that of noise alone only."""
        found = {} if self.verdict is None else judgement(self.verdict)
        if self.halves is not None and self.chance:
            found["half_set_resolution_pixels"] = self.halves.whole.resolution()
            found["null_half_set_resolution_pixels"] = {
                kind: one.whole.resolution() for kind, one in self.chance.items()
            }
        if self.omissions:
            held = sum(one.in_data for one in self.omissions)
            found["parts_in_data"] = f"{held} of {len(self.omissions)}"
            names = "share", "amplitude", "error", "in_data"
            found["omit_test"] = [{name: getattr(one, name) for name in names} for one in self.omissions]
        if self.draws is not None:
            found["voxels_clear_of_zero"] = self.draws.clear
            found["effective_draws"] = self.draws.effective
        return found


def examine(
    measurement: Measurement,
    found: VolumeRecovery,
    parameters: VolumeParameters,
    backend: Backend,
    micrographs: mtd.Micrographs | None,
) -> Judged:
    """Whatever of it the parameters ask for; micrographs as the run was told of them.

    Raises:
        Interrupted: a signal came.
    """
    given, judged = arguments(parameters, backend, micrographs), Judged()
    trials = VolumeTrials.of(measurement, found, given)
    nulls: dict[Null, VolumeRecovery] = {}
    with patiently(parameters.stop_file, found.state.iteration) as stop:
        if parameters.trust is not None:
            judged.verdict = Verdict(found.evidence)
            for told, question, one in asked(judged.verdict, trials, parameters.trust):
                judged.verdict = told
                if question in ("white", "phases") and one is not None:
                    nulls.setdefault(question, one)
                log(_ANSWERED[question])
                stop.check()
        if parameters.halves:
            names = ("diameter", "min_separation", "prior", "backend")
            shared = {name: given[name] for name in names if name in given}
            for kind, null in nulls.items():
                judged.chance[kind] = volume_halves(trials.null_measurement(kind, 0), null, **shared)
                stop.check()
            log("two halves of the data, each from the low-passed volume")
            judged.halves = volume_halves(measurement, found, **shared)
            stop.check()
            if parameters.omitted and found.found_copies:
                _leave_out(halves_of(measurement)[1], judged, parameters.omitted, backend, stop)
        if parameters.draws is not None:
            _draw(measurement, found, judged, parameters.draws, given, stop)
    return judged


def _draw(
    measurement: Measurement,
    found: VolumeRecovery,
    judged: Judged,
    count: int,
    given: dict[str, Any],
    stop: Stop,
) -> None:
    """Draws from the posterior of the volume."""
    if not found.found_copies:
        log("no draws from the posterior: no copies were found, so that there is nothing to be sure of")
        return
    log(f"{count} draws from the posterior of the volume")
    shared = {name: given[name] for name in ("diameter", "prior", "seed", "backend") if name in given}
    judged.draws = posterior_volumes(measurement, found, count, callback=lambda _: stop.check(), **shared)


def _leave_out(other: Measurement, judged: Judged, parts: int, backend: Backend, stop: Stop) -> None:
    """The omit test of the first half's volume, in the other half."""
    assert judged.halves is not None
    half = judged.halves.runs[0]
    if not half.found_copies:
        log("no omit test: the first half of the data has no volume")
        return
    for part in omit_test(other, half, parts, backend):
        judged.omissions.append(part)
        log(f"omit test, part {len(judged.omissions)} of {parts}: amplitude {part}")
        stop.check()
    numbered = [(str(i), one) for i, one in enumerate(judged.omissions, 1)]
    untold = [i for i, one in numbered if not one.told]
    missing = [i for i, one in numbered if one.told and not one.in_data]
    if missing:
        log(
            f"warning: the data do not give back part {', '.join(missing)}: there the volume is the prior's, or noise"
        )
    if untold:
        log(
            f"warning: whether the data hold part {', '.join(untold)} cannot be told: they tell too little of the poses"
        )
