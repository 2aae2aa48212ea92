"""The state of a run: everything that the next iteration depends on, on disk with the same bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..._base.files import write_whole
from ..._base.records import Damaged, seal, to_record, unseal
from ...errors import CheckpointError
from ...estep.volumes import VolumeStatistics
from ...model.volumes.toeplitz import Toeplitz
from ...mstep.envelope import EnvelopePrior

_FORMAT = 2


@dataclass(frozen=True)
class VolumeRecord:
    """What one iteration did.

    Attributes:
        iteration: counted from 1.
        band: frequency limit, cycles per voxel.
        views: number of views scored.
        temperature: of the noise variance.
        evidence: nats against "no copies", of the whole measurement (estimated from a part).
        expected_count: copies.
        noise_std: after the iteration.
        share: of the corners read.
        local: share of the corners searched locally.
        seconds: taken.
    """

    iteration: int
    band: float
    views: int
    temperature: float
    evidence: float
    expected_count: float
    noise_std: float
    share: float
    local: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Running:
    """Statistics mixed from parts, at the scale of the whole measurement (as :class:`mtdcore.em.online.batches.Running`).

    Attributes:
        statistics: weighted mean of what each part says of the whole.
        mixed: number of parts mixed.
        worth: share of the measurement that the mixture is worth (Kish's effective size), at most 1.
    """

    statistics: VolumeStatistics
    mixed: int
    worth: float

    @classmethod
    def mix(cls, before: Running | None, found: VolumeStatistics, share: float) -> Running:
        """The mixture with one part more, weight ``max((n + 2)^-0.6, share)`` (Cappe and Moulines 2009)."""
        whole = found if share == 1.0 else found.scaled(1.0 / share)
        if before is None or share == 1.0:
            return cls(whole, 1, share)
        weight = max((before.mixed + 2.0) ** -0.6, share)
        mixed = before.statistics.scaled(1.0 - weight) + whole.scaled(weight)
        spread = (1.0 - weight) ** 2 / before.worth + weight**2 / share
        return cls(mixed, before.mixed + 1, 1.0 / max(1.0, spread))


@dataclass(frozen=True, eq=False)
class VolumeCandidate:
    """One start of a race.

    Attributes:
        volume: (L, L, L) float64.
        noise_std: of a pixel.
        expected_count: copies in the measurement.
        evidence: nats, of its last E-step over the whole measurement or an estimate from a part.
        spectrum: prior that the last M-step estimated.
        running: statistics of earlier parts in the frame of the volume; None: there are none.
    """

    volume: np.ndarray
    noise_std: float
    expected_count: float
    evidence: float = -np.inf
    spectrum: EnvelopePrior | None = None
    running: Running | None = None


@dataclass(frozen=True, eq=False)
class VolumeState:
    """A run between two iterations.

    Attributes:
        candidates: starts still in the race.
        first_count: expected number of copies at the start.
        first_heat: temperature at the start.
        history: one record per iteration, of the best candidate.
    """

    candidates: tuple[VolumeCandidate, ...]
    first_count: float
    first_heat: float
    history: tuple[VolumeRecord, ...] = ()

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    @property
    def best(self) -> VolumeCandidate:
        """The candidate of the most evidence."""
        return max(self.candidates, key=lambda c: c.evidence)

    def advanced(self, candidates: tuple[VolumeCandidate, ...], record: VolumeRecord) -> VolumeState:
        """The state after one more iteration."""
        return replace(self, candidates=candidates, history=(*self.history, record))


def save_volume_checkpoint(path: str | Path, state: VolumeState, identity: Mapping[str, Any]) -> None:
    """Write a state, whole or not at all.

    Args:
        path: the ``.safetensors`` file to make or replace.
        state: what a callback received.
        identity: JSON-able parameters that the run depends on.

    Raises:
        StorageError: the operating system refused.
    """
    arrays: dict[str, np.ndarray] = {}
    records = []
    for i, candidate in enumerate(state.candidates):
        record: dict[str, Any] = {
            name: getattr(candidate, name) for name in ("noise_std", "expected_count", "evidence")
        }
        arrays[f"volume.{i}"] = candidate.volume
        if candidate.spectrum is not None:
            record["top"] = candidate.spectrum.top
            arrays[f"envelope.{i}"] = candidate.spectrum.envelope
            arrays[f"power.{i}"] = candidate.spectrum.power
        if candidate.running is not None:
            sums = candidate.running.statistics
            record["running"] = {
                "mixed": candidate.running.mixed,
                "worth": candidate.running.worth,
                "numbers": [float(n) for n in sums.numbers],
            }
            arrays[f"right.{i}"] = sums.right
            arrays[f"normal.{i}"] = sums.normal.spectrum
        records.append(record)
    header = {
        "format": _FORMAT,
        "identity": identity,
        "candidates": records,
        "first_count": state.first_count,
        "first_heat": state.first_heat,
        "history": state.history,
    }
    content = seal(header, arrays)
    write_whole(Path(path), lambda file: file.write(content))


def load_volume_checkpoint(path: str | Path, identity: Mapping[str, Any]) -> VolumeState:
    """Read what :func:`save_volume_checkpoint` wrote.

    Raises:
        CheckpointError: missing, damaged, or of a run with another identity.
    """
    try:
        header, arrays = unseal(Path(path))
    except Damaged as damage:
        raise CheckpointError(
            f"{path} should be a checkpoint of a volume; it is missing or damaged ({damage}): start again."
        ) from damage
    if header["format"] != _FORMAT or header["identity"] != json.loads(json.dumps(to_record(identity))):
        raise CheckpointError(
            f"{path} belongs to a run with other parameters or another version; use those, or start again."
        )
    candidates = tuple(_candidate(record, arrays, i) for i, record in enumerate(header["candidates"]))
    history = tuple(VolumeRecord(**record) for record in header["history"])
    return VolumeState(candidates, header["first_count"], header["first_heat"], history)


def _candidate(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], i: int) -> VolumeCandidate:
    spectrum = running = None
    if "top" in record:
        spectrum = EnvelopePrior(arrays[f"envelope.{i}"], arrays[f"power.{i}"], record["top"])
    if "running" in record:
        kept = record["running"]
        sums = VolumeStatistics(arrays[f"right.{i}"], Toeplitz(arrays[f"normal.{i}"]), *kept["numbers"])
        running = Running(sums, kept["mixed"], kept["worth"])
    volume = arrays[f"volume.{i}"]
    sigma, count, evidence = (record[name] for name in ("noise_std", "expected_count", "evidence"))
    return VolumeCandidate(volume, sigma, count, evidence, spectrum, running)
