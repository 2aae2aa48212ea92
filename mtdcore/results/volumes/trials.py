"""The questions of a verdict (:mod:`mtdcore.results.verdict`), put to a recovered volume (docs/model.md 10 and 14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ...data import Measurement, MeasurementLike, open_measurement
from ...em.gauge.agreement import ABOUT, ALIKE
from ...em.volumes.recover import recover_volume
from ...em.volumes.recovery import VolumeRecovery
from ...estep.volumes.expectation import volume_e_step
from ..halves import HalfMeasurement
from ..nulls import Null, null_like
from ..verdict import Verdict, aided, answered
from .comparison import align_volumes, shape_correlation


def judge_volume(
    measurement: MeasurementLike,
    recovery: VolumeRecovery,
    /,
    runs: int = 8,
    complete: bool = False,
    **options: Any,
) -> Verdict:
    """Whether a measurement supports the volume that was recovered from it.

    Args:
        measurement: of the run.
        recovery: the result.
        runs: largest number of null runs of each kind.
        complete: ask all questions, also those that can no longer change the verdict.
        options: keyword arguments of the call of :func:`mtdcore.em.volumes.recover.recover_volume`.
    """
    trials = VolumeTrials.of(measurement, recovery, options)
    verdict = Verdict(recovery.evidence, aided=aided(options.get("prior")))
    return answered(verdict, trials, runs, complete)


class Repeat(Protocol):
    """Makes one of the recoveries that a volume is judged by."""

    def __call__(self, name: str, measurement: Measurement, /, **options: Any) -> VolumeRecovery:
        """The recovery of this name, with these keyword arguments of :func:`mtdcore.em.volumes.recover.recover_volume`.

        The name is that of a file, and tells it from the others: "white_0", "held_out_1", "other_start", "half_2".
        """
        ...


def repeated(name: str, measurement: Measurement, /, **options: Any) -> VolumeRecovery:
    """The :class:`Repeat` that keeps nothing."""
    return recover_volume(measurement, **options)


@dataclass(frozen=True)
class VolumeTrials:
    """Trials of a recovered volume; see :class:`mtdcore.results.verdict.Trials`.

    Attributes:
        source: what was recovered from.
        claim: the result.
        options: keyword arguments of :func:`mtdcore.em.volumes.recover.recover_volume` but ``seed``, ``state`` and ``callback``.
        repeat: makes what is tried.
    """

    source: Measurement
    claim: VolumeRecovery
    options: Mapping[str, Any]
    repeat: Repeat = repeated

    @classmethod
    def of(
        cls,
        measurement: MeasurementLike,
        claim: VolumeRecovery,
        options: Mapping[str, Any],
        repeat: Repeat = repeated,
    ) -> VolumeTrials:
        """Those of a run with all its keyword arguments; its callback is told of that run alone."""
        own = {name: value for name, value in options.items() if name not in ("seed", "state", "callback")}
        return cls(open_measurement(measurement), claim, own, repeat)

    def null(self, kind: Null, run: int) -> VolumeRecovery:
        """From noise of the kind."""
        noise = self.null_measurement(kind, run)
        return self.repeat(f"{kind}_{run}", noise, **self.options, seed=run)

    def null_measurement(self, kind: Null, run: int) -> Measurement:
        """What :meth:`null` recovers from."""
        return null_like(self.source, self.claim.likelihood, kind, run)

    def held_out(self) -> tuple[float, float]:
        """Each half is recovered from rough blobs of its own, and judged on the other with the numbers that it has learned."""
        return self._each_half("held_out", self._own_starts)

    def unaided(self) -> tuple[float, float]:
        """See :class:`mtdcore.results.verdict.Trials`: with the prior that the data themselves give."""
        return self._each_half("unaided", {**self._own_starts, "prior": None})

    def other_start(self) -> tuple[bool, VolumeRecovery]:
        """From other rough blobs; compared by shape, since every particle is a blob and plain correlation says little."""
        seed = self.claim.plan.seed + 1
        found = self.repeat("other_start", self.source, **self._own_starts, seed=seed)
        if found.evidence <= ABOUT * self.claim.evidence:
            return True, found
        diameter = self.options.get("diameter")
        aligned = align_volumes(found.volume, self.claim.volume, diameter=diameter).volume
        return shape_correlation(aligned, self.claim.volume, diameter) > ALIKE, found

    @property
    def _own_starts(self) -> dict[str, Any]:
        """The options with rough blobs as starts, as a given volume may have been made from all of the data."""
        return {**self.options, "initial": None}

    def _each_half(self, name: str, options: Mapping[str, Any]) -> tuple[float, float]:
        first, second = HalfMeasurement(self.source, False), HalfMeasurement(self.source, True)
        judged = [
            self._judged(f"{name}_{number}", seen, other, options)
            for number, (seen, other) in enumerate(((first, second), (second, first)), start=1)
        ]
        return judged[0], judged[1]

    def _judged(self, name: str, seen: Measurement, other: Measurement, options: Mapping[str, Any]) -> float:
        found = self.repeat(name, seen, **options, seed=self.claim.plan.seed)
        search = found.plan.search(found.plan.iterations)
        engine = self.options.get("backend", "auto")
        return volume_e_step(found.read(other), found.seen, found.likelihood, search, engine).log_likelihood
