"""The state of a run: everything that the next iteration depends on, stored on disk bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...drawing.overview import Plotted, volume_overview
from ...model.filters.optics import Micrographs
from ...mstep.envelope import EnvelopePrior
from ..checkpoint import read_checkpoint, write_kept

if TYPE_CHECKING:
    from ...drawing.overview import AnyFigure

#: Format of a checkpoint; the formats of images are plain numbers.
_FORMAT = "volume 5"

#: Numbers of a candidate.
_NUMBERS = ("noise_std", "expected_count", "evidence", "offset", "amplitude_std")


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
        share: share of the corners read.
        local: share of the corners searched locally.
        seconds: wall time of all candidates.
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
class VolumeCandidate:
    """One start of a race.

    Attributes:
        volume: (L, L, L) float64.
        noise_std: of a pixel.
        expected_count: copies in the measurement.
        evidence: nats of the whole measurement at the last E-step, estimated from a part if it read only a part.
        spectrum: prior that the last M-step estimated.
        offset: of the measurement as the run reads it, in addition to the offset at the start.
        amplitude_std: of the amplitudes of copies about 1, their mean.
        micrographs: learned noise levels, of root mean square ``noise_std``, and numbers of copies; None: these are not learned. A checkpoint
            holds no transfers: the caller gives them again.
    """

    volume: np.ndarray
    noise_std: float
    expected_count: float
    evidence: float = -np.inf
    spectrum: EnvelopePrior | None = None
    offset: float = 0.0
    amplitude_std: float = 0.0
    micrographs: Micrographs | None = None


@dataclass(frozen=True, eq=False, repr=False)
class VolumeState(Plotted):
    """A run between two iterations.

    Attributes:
        candidates: starts still in the race.
        first_count: expected number of copies at the start.
        first_heat: temperature at the start.
        history: one record per iteration, of the best candidate.
        filtered: whether the run started again behind the filter of its noise.
    """

    candidates: tuple[VolumeCandidate, ...]
    first_count: float
    first_heat: float
    history: tuple[VolumeRecord, ...] = ()
    filtered: bool = False

    @property
    def iteration(self) -> int:
        """Number of iterations completed."""
        return len(self.history)

    @property
    def best(self) -> VolumeCandidate:
        """The candidate with the most evidence."""
        return max(self.candidates, key=lambda c: c.evidence)

    @property
    def columns(self) -> dict[str, list[float]]:
        """The columns of the history that are plotted."""
        names = ("iteration", "evidence", "expected_count")
        return {name: [getattr(one, name) for one in self.history] for name in names}

    def plot(self, figure: AnyFigure | None = None) -> AnyFigure:
        """Draw the volume of the best candidate as :meth:`VolumeRecovery.plot` does, behind the filter of the noise if there is one."""
        return volume_overview(self.best.volume, self.columns, figure)

    def __repr__(self) -> str:
        """How far the run is, on one line."""
        best, shape = self.best, " x ".join(map(str, self.best.volume.shape))
        found = (
            f"{best.expected_count:,.1f} copies, {best.evidence:,.0f} nats, noise_std={best.noise_std:.4g}"
        )
        return f"VolumeState({shape}: iteration {self.iteration}, {found})"

    def advanced(self, candidates: tuple[VolumeCandidate, ...], record: VolumeRecord) -> VolumeState:
        """The state after one more iteration."""
        return replace(self, candidates=candidates, history=(*self.history, record))


def save_volume_checkpoint(path: str | Path, state: VolumeState, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one at ``path`` becomes the previous one. A crash at any moment leaves one that loads.

    Args:
        path: the ``.safetensors`` file to make or replace.
        state: what a callback received.
        identity: JSON-able parameters that the run depends on.

    Raises:
        StorageError: the operating system refused; the checkpoint at ``path`` is still there.
    """
    arrays: dict[str, np.ndarray] = {}
    records = []
    for i, candidate in enumerate(state.candidates):
        record: dict[str, Any] = {name: getattr(candidate, name) for name in _NUMBERS}
        arrays[f"volume.{i}"] = candidate.volume
        if candidate.spectrum is not None:
            record["top"] = candidate.spectrum.top
            arrays[f"envelope.{i}"] = candidate.spectrum.envelope
            arrays[f"power.{i}"] = candidate.spectrum.power
        if candidate.micrographs is not None:
            facts = {"noise": candidate.micrographs.noise, "count": candidate.micrographs.count}
            arrays |= {f"{name}.{i}": values for name, values in facts.items() if values is not None}
        records.append(record)
    header = {
        "format": _FORMAT,
        "identity": identity,
        "candidates": records,
        "first_count": state.first_count,
        "first_heat": state.first_heat,
        "history": state.history,
        "filtered": state.filtered,
    }
    write_kept(Path(path), header, arrays)


def load_volume_checkpoint(path: str | Path, identity: Mapping[str, Any]) -> VolumeState:
    """Read the checkpoint of the run with this identity.

    A damaged checkpoint is replaced by the previous one, with a RuntimeWarning that says so.

    Raises:
        CheckpointError: both files are missing or damaged, or belong to another run; the message lists the differences.
    """
    header, arrays = read_checkpoint(Path(path), _FORMAT, identity)
    candidates = tuple(_candidate(record, arrays, i) for i, record in enumerate(header["candidates"]))
    history = tuple(VolumeRecord(**record) for record in header["history"])
    return VolumeState(candidates, header["first_count"], header["first_heat"], history, header["filtered"])


def _candidate(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], i: int) -> VolumeCandidate:
    spectrum = None
    if "top" in record:
        spectrum = EnvelopePrior(arrays[f"envelope.{i}"], arrays[f"power.{i}"], record["top"])
    noise, numbers = arrays.get(f"noise.{i}"), {name: record[name] for name in _NUMBERS}
    micrographs = None if noise is None else Micrographs(noise, arrays.get(f"count.{i}"))
    return VolumeCandidate(arrays[f"volume.{i}"], spectrum=spectrum, micrographs=micrographs, **numbers)
