"""The content of ``run.json`` and ``trust.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtdcore.results.metrics import RingCorrelation
from mtdcore.results.nulls import Null
from mtdcore.results.verdict import Verdict

from .parameters import RunParameters


@dataclass(frozen=True)
class MeasurementRecord:
    """The measurement of a run.

    Attributes:
        path: its location during the run.
        shape: (micrographs, H, W).
        dtype: of its pixels.
        fingerprint: hash of its pixels, see :func:`mtdcore.em.checkpoint.fingerprint`.
        unused_pixels: pixels at the edges that fill no patch.
        masked_pixels: pixels that are invalid, defective or in bad chunks.
        bad_chunks: chunks that were skipped.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: str
    fingerprint: str
    unused_pixels: int
    masked_pixels: int = 0
    bad_chunks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResultRecord:
    """The result of a run, see :class:`mtdcore.Recovery`.

    Attributes:
        likelihood: record of the last likelihood.
        data_share: share of the estimate that comes from the data; None: unknown.
        prior_scales: units of the measurement in one unit of the prior, for each class; None: they are the same, or there is no prior.
        offset: value of the pixels without copies.
        noise: description of the estimated noise.
        settled: whether starts of about equal evidence give the same target; None: no other start has such evidence.
    """

    iterations: int
    stopped: str
    noise_std: float
    residual_std: float
    expected_count: float
    evidence_nats: float
    pixels: float
    likelihood: dict[str, Any]
    data_share: float | None = None
    prior_scales: tuple[float, ...] | None = None
    offset: float = 0.0
    settled: bool | None = None
    noise: str = "white"


@dataclass(frozen=True)
class RunRecord:
    """The record of a finished run in ``run.json``.

    Attributes:
        command: command line that repeats it.
        started: local time, ISO 8601.
        seconds: wall time, including the iterations before a resume.
        measurement: what was read.
        parameters: how.
        device: name of the backend.
        result: what was found.
        versions: of the packages.
        machine: cores, threads, memory.
        doubts: warnings of the run about its result.
        format: of this record.
    """

    command: str
    started: str
    seconds: float
    measurement: MeasurementRecord
    parameters: RunParameters
    device: str
    result: ResultRecord
    versions: dict[str, str | None]
    machine: dict[str, Any]
    doubts: list[str] = field(default_factory=list)
    format: Literal[1] = 1


@dataclass
class NullRecord:
    """Null runs of one kind.

    Attributes:
        evidence: of each null run, nats.
        halves: correlation of two halves of the first null measurement; None: not computed.
    """

    evidence: list[float] = field(default_factory=list)
    halves: RingCorrelation | None = None


@dataclass(frozen=True)
class ChainsRecord:
    """The Markov chains that gave the posterior images.

    Attributes:
        chains: number of them.
        draws: number of draws of all chains together.
        r_hat: split R-hat, mean over the pixels.
        effective_size: effective number of independent draws, mean over the pixels.
    """

    chains: int
    draws: int
    r_hat: float
    effective_size: float


@dataclass
class TrustRecord:
    """The results of ``mtd trust`` so far.

    Attributes:
        white: null runs on white noise.
        phases: null runs on the measurement with random phases.
        halves: correlation of two halves of the data; None: not computed.
        held_out: nats that each half's target gives to the other half; None: not computed.
        settled: whether a second start ends at the same image or at less evidence; None: not tried.
        rival: evidence of that start.
        unaided: ``held_out`` of the recovery without its prior; None: not computed.
        chains: the chains behind the posterior images; None: draws given the aligned average, or no such images.
        seconds: wall time of all its computations.
        found: verdict and numbers, for readers of the file.
    """

    white: NullRecord = field(default_factory=NullRecord)
    phases: NullRecord = field(default_factory=NullRecord)
    halves: RingCorrelation | None = None
    held_out: tuple[float, float] | None = None
    settled: bool | None = None
    rival: float | None = None
    unaided: tuple[float, float] | None = None
    chains: ChainsRecord | None = None
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)

    def null(self, kind: Null) -> NullRecord:
        """The null runs of this kind."""
        found: NullRecord = getattr(self, kind)
        return found

    def verdict(self, evidence: float, settled: bool | None = None, aided: bool = False) -> Verdict:
        """The verdict on a result of ``evidence`` nats.

        Args:
            evidence: of the run.
            settled: whether the starts of the run agree; None: one start, or undecided.
            aided: whether the run has a prior.
        """
        settled = self.settled if settled is None else settled
        white, phases = (tuple(place.evidence) for place in (self.white, self.phases))
        return Verdict(evidence, white, phases, self.held_out, settled, self.rival, aided, self.unaided)

    def learn(self, verdict: Verdict) -> None:
        """Take over the findings of a verdict."""
        self.white.evidence, self.phases.evidence = list(verdict.white), list(verdict.phases)
        self.held_out, self.rival, self.unaided = verdict.held_out, verdict.rival, verdict.unaided
        self.settled = None if verdict.rival is None else verdict.settled


@dataclass(frozen=True)
class PartRecord:
    """A part of a volume that was left out, see :class:`mtdcore.results.volumes.Omission`.

    Attributes:
        amplitude: of the part as recovered from the data.
        error: standard error of the amplitude; None: the amplitude is undetermined.
    """

    amplitude: float
    error: float | None


@dataclass(frozen=True)
class DrawsRecord:
    """Draws from the posterior of a volume.

    Attributes:
        count: number of them.
        effective: effective number of independent draws.
        clear: share of the voxels of the support whose density is more than two standard deviations from zero.
    """

    count: int
    effective: float
    clear: float


@dataclass
class VolumeTrustRecord(TrustRecord):
    """The findings about a volume so far.

    Attributes:
        parts: number of parts of the omit test.
        omitted: results for the parts tested so far, in order.
        draws: from the posterior; None: there are none.
    """

    parts: int = 0
    omitted: list[PartRecord] = field(default_factory=list)
    draws: DrawsRecord | None = None
