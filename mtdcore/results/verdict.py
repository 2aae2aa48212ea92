"""Whether the data support the result: four questions, five with a prior, each with its number; all must be answered with yes (docs/model.md 10).

Is the evidence beyond that of white noise, and of noise with the spectrum of the data (:mod:`mtdcore.results.nulls`)? Does a half
of the data confirm the target of the other half (:mod:`mtdcore.results.halves`)? Do other starts end at the same image? Would a half predict
the other better without the prior?

Null runs are made one by one, until no further run can change the verdict: a null run that reaches the evidence of the result refutes
it for good. docs/trust.md states how often the verdict is wrong, and what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args

import numpy as np

from ..data import Measurement, MeasurementLike, open_measurement
from ..em.checks.doubts import undoubted
from ..em.gauge.agreement import unrivalled
from ..em.recover import recover
from ..em.state import Recovery
from ..model.likelihood import Likelihood
from ..model.priors import Prior, is_flat
from .halves import held_out_evidence, own_starts, pooled_evidence, without_prior
from .nulls import SHARED_SPECTRUM, SMALLEST_THRESHOLD, Null, evidence_threshold, null_runs

#: Nats that held-out data must give: noise that follows the model gives as much at most once in a thousand times.
HELD_OUT = math.log(1000.0)

#: Least number of null runs of a kind that may support a result if more are allowed: with two the threshold is useless. Multiple of their limit that the
#: evidence must exceed for so few: four runs that happen to agree give a low limit (pink noise: 28.10 nats, where four runs of 11 to 14 gave 28.08).
_ENOUGH, _CLEAR = 4, 2.0

#: Share of the held-out evidence without a prior that the evidence with it must reach: where data abound, a prior may cost a few
#: nats of many thousands, as it smooths what it does not know.
_AIDED = 0.9

#: Share of the evidence that a second start must reach for that number to be enough: if the evidence depends on the start, null evidence
#: has two modes, and four runs may all miss one.
_STEADY = 0.5

#: The next question.
Question: TypeAlias = Literal["phases", "white", "held_out", "other_start", "unaided"]

_KINDS: tuple[Null, ...] = get_args(Null)

#: Checks that no further null run can change.
_FINAL = ("held_out", "settled", "prior")


@dataclass(frozen=True)
class Claim:
    """The result of a run that is judged.

    Attributes:
        target: image, or one per class.
        likelihood: with its final numbers.
        evidence: nats against "no copies".
        settled: whether the starts of the run agree; None: there was one start, or it cannot be judged.
    """

    target: np.ndarray
    likelihood: Likelihood
    evidence: float
    settled: bool | None = None

    @classmethod
    def of(cls, recovery: Recovery) -> Claim:
        """The claim of a recovery."""
        return cls(recovery.target, recovery.likelihood, recovery.evidence, recovery.settled)


@dataclass(frozen=True)
class Check:
    """One of the questions.

    Attributes:
        name: "evidence", "white", "phases", "held_out", "settled", or, with a prior, "prior".
        passed: None: not asked, or not far enough.
        value: nats of the result.
        limit: nats that it must exceed; None: none is known yet.
        failure: meaning of a failure, in plain words.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: float | None
    failure: str


@dataclass(frozen=True)
class Verdict:
    """What is known for and against a result so far.

    Attributes:
        evidence: nats of the result against "no copies".
        white: nats of the same recovery from white noise.
        phases: the same from the measurement with its phases randomised.
        held_out: nats that each half's target gives to the other half; None: not asked.
        settled: whether starts that end with about as much evidence end at the same image; None: not asked.
        rival: evidence of a second start; None: there was none, or the run itself had several.
        aided: whether there is a prior.
        unaided: ``held_out`` of the recovery without it; None: not asked.
    """

    evidence: float
    white: tuple[float, ...] = ()
    phases: tuple[float, ...] = ()
    held_out: tuple[float, float] | None = None
    settled: bool | None = None
    rival: float | None = None
    aided: bool = False
    unaided: tuple[float, float] | None = None

    def nulls(self, kind: Null) -> tuple[float, ...]:
        """Nats of the null runs of a kind."""
        return self.white if kind == "white" else self.phases

    def limit(self, kind: Null) -> float | None:
        """Nats that noise of this kind stays below; None: fewer than two runs."""
        found = self.nulls(kind)
        shared = SHARED_SPECTRUM if kind == "phases" else 0.0
        return evidence_threshold(found, shared) if len(found) > 1 else None

    @property
    def checks(self) -> tuple[Check, ...]:
        """The questions in the order of their cost."""
        held = None if self.held_out is None else pooled_evidence(self.held_out)
        free = None if self.unaided is None else pooled_evidence(self.unaided)
        least = None if free is None else min(free - HELD_OUT, _AIDED * free)
        fits = None if held is None or least is None else held >= least
        misled = "misled by the prior: without it, one half of the data tells more of the other"
        noise, spectrum = "not distinguishable from noise", "not distinguishable from noise of this spectrum"
        return (
            Check("evidence", self.evidence > SMALLEST_THRESHOLD, self.evidence, SMALLEST_THRESHOLD, noise),
            Check("white", self._beyond("white"), self.evidence, self.limit("white"), noise),
            Check("phases", self._beyond("phases"), self.evidence, self.limit("phases"), spectrum),
            Check(
                "held_out",
                None if held is None else held > HELD_OUT,
                held,
                HELD_OUT,
                "not distinguishable from noise: held-out data do not confirm it",
            ),
            Check(
                "settled", self.settled, self.rival, None, "not settled: another start ends at another image"
            ),
            *([Check("prior", fits, held, least, misled)] if self.aided else []),
        )

    @property
    def supported(self) -> bool | None:
        """Whether all checks pass; None: none has failed, and not all have been made."""
        answers = [check.passed for check in self.checks]
        return False if False in answers else None if None in answers else True

    @property
    def sentence(self) -> str:
        """The verdict in plain words: which question failed."""
        if self.supported:
            return "structure supported by the data"
        failed = {check.name: check.failure for check in self.checks if check.passed is False}
        if {"evidence", "white"} & set(failed):
            failed.pop("phases", None)
        return "; ".join(dict.fromkeys(failed.values())) or "no verdict yet"

    @property
    def refuted(self) -> bool:
        """Whether the result is not supported and no further null run can change that."""
        return (
            self.evidence <= SMALLEST_THRESHOLD
            or any(self._reached(kind) for kind in _KINDS)
            or any(check.passed is False for check in self.checks if check.name in _FINAL)
        )

    @property
    def least_rate(self) -> float:
        """Smallest false-positive rate that the null runs show by themselves, 1 in n + 1; below it the limit relies on its assumption."""
        return 1.0 / (1 + min(len(self.white), len(self.phases)))

    @property
    def powerless(self) -> bool:
        """Whether the evidence is above every null run but below the limit, so that more runs could decide."""
        return not self.refuted and any(self._beyond(kind) is False for kind in _KINDS)

    def due(self, runs: int, complete: bool = False) -> Question | None:
        """What to ask next; None: nothing more.

        Args:
            runs: largest number of null runs of each kind.
            complete: ask everything, whether or not it can change the verdict.
        """
        if self.refuted and not complete:
            return None
        if not self.phases or not self.white:
            return "white" if self.phases else "phases"
        if self.held_out is None or self.settled is None:
            return "held_out" if self.held_out is None else "other_start"
        if self.aided and self.unaided is None:
            return "unaided"
        waiting = [kind for kind in _KINDS if self._waits(kind, runs, complete)]
        return min(waiting, key=lambda kind: len(self.nulls(kind)), default=None)

    def _reached(self, kind: Null) -> bool:
        return any(value >= self.evidence for value in self.nulls(kind))

    def _beyond(self, kind: Null) -> bool | None:
        limit = self.limit(kind)
        return False if self._reached(kind) else None if limit is None else self.evidence > limit

    def _waits(self, kind: Null, runs: int, complete: bool) -> bool:
        done = len(self.nulls(kind))
        limit = self.limit(kind)
        beyond = limit is not None and self.evidence > _CLEAR * limit
        steady = self.rival is None or self.rival >= _STEADY * self.evidence
        clear = done >= _ENOUGH and beyond and steady and not complete
        return done < runs and not clear


def judge(
    measurement: MeasurementLike, recovery: Recovery, /, runs: int = 8, complete: bool = False, **options: Any
) -> Verdict:
    """Whether a measurement supports what was recovered from it.

    Args:
        measurement: of the run.
        recovery: the result.
        runs: largest number of null runs of each kind.
        complete: ask all questions, also those that can no longer change the verdict.
        options: keyword arguments of the call of :func:`mtdcore.recover`; a ``callback`` is not called.
    """
    options.pop("callback", None)
    claim = Claim.of(recovery)
    trials = ImageTrials.of(measurement, claim, options)
    verdict = Verdict(claim.evidence, settled=claim.settled, aided=aided(options.get("prior")))
    return answered(verdict, trials, runs, complete)


def aided(prior: Prior | None) -> bool:
    """Whether a prior other than the flat one takes part, so that it may mislead."""
    return prior is not None and not is_flat(prior)


class Found(Protocol):
    """Result of a repeated recovery."""

    @property
    def evidence(self) -> float:
        """Nats against "no copies"."""
        ...


F_co = TypeVar("F_co", bound=Found, covariant=True)


class Trials(Protocol[F_co]):
    """Repetitions of the recovery on other data or from another start, which answer the questions."""

    def null(self, kind: Null, run: int) -> F_co:
        """From a measurement without copies; ``run`` is its seed."""
        ...

    def held_out(self) -> tuple[float, float]:
        """Nats that each half's target gives to the other half."""
        ...

    def other_start(self) -> tuple[bool, F_co]:
        """From another start, and whether it shows the same or has less evidence."""
        ...

    def unaided(self) -> tuple[float, float]:
        """:meth:`held_out` of the recovery without its prior."""
        ...


def answered(verdict: Verdict, trials: Trials[Found], runs: int = 8, complete: bool = False) -> Verdict:
    """The verdict after all due questions; arguments as of :func:`asked`."""
    for more, _, _ in asked(verdict, trials, runs, complete):
        verdict = more
    return verdict


def asked(
    verdict: Verdict, trials: Trials[F_co], runs: int = 8, complete: bool = False
) -> Iterator[tuple[Verdict, Question, F_co | None]]:
    """Ask what is due, one question at a time, from what is known already.

    Args:
        verdict: what is known.
        trials: answer.
        runs: see :meth:`Verdict.due`.
        complete: the same.

    Yields:
        The verdict with one more answer, the question, and the recovery that answered it; None: two recoveries did.
    """
    while (question := verdict.due(runs, complete)) is not None:
        found: F_co | None = None
        match question:
            case "held_out":
                verdict = replace(verdict, held_out=trials.held_out())
            case "unaided":
                verdict = replace(verdict, unaided=trials.unaided())
            case "other_start":
                alike, found = trials.other_start()
                verdict = replace(verdict, settled=alike, rival=found.evidence)
            case "white" | "phases":
                found = trials.null(question, len(verdict.nulls(question)))
                values: dict[str, Any] = {question: (*verdict.nulls(question), found.evidence)}
                verdict = replace(verdict, **values)
        yield verdict, question, found


@dataclass(frozen=True)
class ImageTrials:
    """Trials of a recovered image.

    Attributes:
        source: what was recovered from.
        claim: the result.
        options: keyword arguments of :func:`mtdcore.recover` but ``seed``, ``mask`` and ``state``: everything that is tried shares them.
        seed: of the run.
    """

    source: Measurement
    claim: Claim
    options: Mapping[str, Any]
    seed: int = 0

    @classmethod
    def of(cls, measurement: MeasurementLike, claim: Claim, options: Mapping[str, Any]) -> ImageTrials:
        """Those of a run with all its keyword arguments."""
        own = {name: value for name, value in options.items() if name not in ("seed", "mask", "state")}
        source = open_measurement(measurement, options.get("mask"))
        return cls(source, claim, own, int(options.get("seed", 0)))

    def null(self, kind: Null, run: int) -> Recovery:
        """See :class:`Trials`."""
        return next(null_runs(self.source, self.claim.likelihood, 1, run, kind, **self.options))

    def held_out(self) -> tuple[float, float]:
        """See :class:`Trials`."""
        return held_out_evidence(self.source, **self.options, seed=self.seed)

    def unaided(self) -> tuple[float, float]:
        """See :class:`Trials`."""
        return held_out_evidence(self.source, **without_prior(self.options), seed=self.seed)

    def other_start(self) -> tuple[bool, Recovery]:
        """With another seed; from default starts if the user gave a starting image."""
        claim = self.claim
        with undoubted():
            found = recover(self.source, **own_starts(self.options), seed=self.seed + 1)
        rival = [(found.target, found.evidence)]
        return unrivalled(claim.target, claim.evidence, rival, claim.likelihood.views), found
