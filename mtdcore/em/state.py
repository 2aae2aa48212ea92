"""What a recovery carries from iteration to iteration, and what it returns."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from array_api_compat import array_namespace

from .._base.files import write_whole
from .._base.optional import optional
from ..drawing.overview import Plotted, target_overview
from ..errors import StorageError
from ..estep.statistics import Statistics
from ..model.likelihood import Likelihood
from ..model.likelihood.records import likelihood_record
from ..model.priors import Prior
from .gauge.scale import OwnUnits, Scales, in_units
from .online.batches import Running
from .temperature import Temperature

if TYPE_CHECKING:
    from ..drawing.overview import AnyFigure


@dataclass(frozen=True)
class IterationRecord:
    """One line of the history.

    Attributes:
        iteration: number of iterations completed.
        objective: nats at the target from which the iteration started: log-likelihood (patch) or evidence (window).
        step_norm: ``||F_next - F||``, in the units of the measurement; the largest of the candidates while several race.
        expected_count: posterior expected number of copies.
        noise_std: noise level after the iteration.
        temperature: of the iteration.
        seconds: wall time.
        passes: times the E-steps of the iteration read the whole measurement, those of all candidates together.
    """

    iteration: int
    objective: float
    step_norm: float
    expected_count: float
    noise_std: float
    temperature: float
    seconds: float
    passes: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """One of the targets that a run carries until the evidence has decided between its starts.

    Attributes:
        target: (L, L) float64, (C, L, L) where there are several classes.
        likelihood: the model with its current tied parameters and noise level.
        objective: nats of the last E-step, at the target before its last update; -inf before the first.
        running: running statistics of mini-batch EM over earlier parts; None: there are none.
        scales: units of the measurement in one unit of the prior, for each class; None: the prior has the same units.
        framed: whether the gauge has left a target at rest unchanged; the gauge is not applied again while the target rests.
    """

    target: np.ndarray
    likelihood: Likelihood
    objective: float = -math.inf
    running: Running | None = None
    scales: Scales = None
    framed: bool = False


@dataclass(frozen=True, repr=False)
class EMState(Plotted):
    """Everything an iteration depends on: pass it back to :func:`recover` and the run goes on bit for bit.

    Attributes:
        candidates: the targets still in the race, one after the first quarter of the iterations.
        schedule: the temperature.
        first_count: expected number of copies at the start (window model; 0 otherwise).
        history: one record per completed iteration, of the leading candidate.
    """

    candidates: tuple[Candidate, ...]
    schedule: Temperature
    first_count: float
    history: tuple[IterationRecord, ...] = ()

    @classmethod
    def begin(
        cls,
        targets: Sequence[np.ndarray],
        likelihood: Likelihood,
        schedule: Temperature,
        units: OwnUnits | None = None,
    ) -> EMState:
        """The state before the first iteration; ``units`` are those of a prior whose scale is learned."""
        noise = likelihood.noise_std
        scales = [None if units is None else units.shown(target, noise) for target in targets]
        candidates = tuple(Candidate(t, likelihood, scales=s) for t, s in zip(targets, scales, strict=True))
        return cls(candidates, schedule, likelihood.copies)

    @property
    def leader(self) -> Candidate:
        """The candidate with the highest objective; the first of equals."""
        return max(self.candidates, key=lambda candidate: candidate.objective)

    def best(self, count: int) -> tuple[Candidate, ...]:
        """The candidates with the highest objectives, best first; of equals the first."""
        ranked = sorted(self.candidates, key=lambda candidate: -candidate.objective)
        return tuple(ranked[:count])

    @property
    def target(self) -> np.ndarray:
        """(L, L) float64 target of the leader, (C, L, L) where there are several classes."""
        return self.leader.target

    @property
    def likelihood(self) -> Likelihood:
        """Model of the leader."""
        return self.leader.likelihood

    @property
    def iteration(self) -> int:
        """Number of iterations completed."""
        return len(self.history)

    def at_rest(self, tolerance: float) -> bool:
        """Whether the last iteration moved every candidate by less than ``tolerance`` noise levels at temperature 1."""
        last = self.history[-1:]
        return any(
            record.step_norm < tolerance * record.noise_std and record.temperature == 1.0 for record in last
        )

    def converged(self, tolerance: float) -> bool:
        """Whether the race is over and the target at rest."""
        return len(self.candidates) == 1 and self.at_rest(tolerance)

    def plot(self, figure: AnyFigure | None = None) -> AnyFigure:
        """Draw the target of the leader beside its evidence (patch model: log-likelihood) and expected copies over the iterations.

        Args:
            figure: of matplotlib, to draw into, for instance ``pyplot.figure()``; None: a new one, without a window.

        Returns:
            The figure; ``savefig`` writes it to a file.
        """
        nats = "evidence" if self.likelihood.localises else "objective"
        columns = {"iteration": "iteration", nats: "objective", "expected_count": "expected_count"}
        history = {title: [getattr(one, name) for one in self.history] for title, name in columns.items()}
        return target_overview(self.target.reshape(-1, *self.target.shape[-2:]), history, figure)

    def __repr__(self) -> str:
        """How far the run is, on one line."""
        shape, last = " x ".join(map(str, self.target.shape)), self.history[-1:]
        found = [f"{one.expected_count:,.1f} copies, {one.objective:,.0f} nats, " for one in last]
        sigma = f"noise_std={self.likelihood.noise_std:.4g}"
        return f"EMState({shape}: iteration {self.iteration}, {''.join(found)}{sigma})"

    def advance(self, candidates: Sequence[Candidate], record: IterationRecord) -> EMState:
        """The state after one more iteration."""
        return replace(self, candidates=tuple(candidates), history=(*self.history, record))


@dataclass(frozen=True, repr=False)
class Recovery(Plotted):
    """Result of :func:`recover`.

    Attributes:
        state: the last state of the loop.
        statistics: of one E-step at the final target and temperature 1.
        aligned_average: posterior-aligned average without prior, float64 of the shape of the target.
        stopped: why the loop ended; "waiting": it goes on when more micrographs come (:mod:`.online.stream`).
        settled: whether the starts that ended with about as much evidence show the same image; None: there is no such start.
    """

    state: EMState
    statistics: Statistics
    aligned_average: np.ndarray
    stopped: Literal["iterations", "tolerance", "callback", "waiting"]
    settled: bool | None = None

    @property
    def target(self) -> np.ndarray:
        """(L, L) recovered image, float64, in the units of the measurement; (C, L, L) for C classes."""
        return self.state.target

    @property
    def likelihood(self) -> Likelihood:
        """The model with its final tied parameters."""
        return self.state.likelihood

    @property
    def prior_scales(self) -> tuple[float, ...] | None:
        """Units of the measurement in one unit of the prior, for each class; None: the prior has the same units."""
        return self.state.leader.scales

    def in_units(self, prior: Prior, index: int = 0) -> Prior:
        """The prior of the run, for one class, in the units of the measurement."""
        return in_units(prior, self.prior_scales, index)

    @property
    def history(self) -> list[IterationRecord]:
        """One record per iteration."""
        return list(self.state.history)

    @property
    def passes(self) -> float:
        """Passes over the whole measurement by the E-steps of the run, the last at the final target; noise estimation is not counted."""
        return 1.0 + sum(record.passes for record in self.state.history)

    @property
    def noise_std(self) -> float:
        """Noise level, given or estimated."""
        return self.likelihood.noise_std

    @property
    def offset(self) -> float:
        """Mean of the pixels without copies, given or estimated."""
        return self.likelihood.offset

    @property
    def noise(self) -> str:
        """The noise model that was found, in plain words."""
        whitening = self.likelihood.whitening
        return "white" if whitening is None else whitening.sentence

    @property
    def residual_std(self) -> float:
        """Standard deviation of the residual of the measurement after the copies: the noise level if the model is right."""
        target = array_namespace(self.statistics.right).asarray(self.target)
        return math.sqrt(max(self.statistics.residual_energy(target), 0.0) / max(self.statistics.pixels, 1))

    @property
    def expected_count(self) -> float:
        """Posterior expected number of copies at the final target."""
        return self.statistics.expected_count

    @property
    def found_copies(self) -> bool:
        """Whether at least one copy is expected and the evidence is at least one nat; the evidence excludes a blank target, which fits anywhere."""
        return self.expected_count >= 1.0 and self.evidence >= 1.0

    @property
    def amplitude_std(self) -> float:
        """Standard deviation of the amplitudes of copies about 1, given or learned."""
        return self.likelihood.amplitude_std

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Share of each class among the copies; None: there is one class."""
        return self.likelihood.class_weights

    @property
    def evidence(self) -> float:
        """Nats in favour of the final target against "no copies", for either likelihood."""
        return self.likelihood.evidence(self.statistics)

    def plot(self, figure: AnyFigure | None = None) -> AnyFigure:
        """Draw the estimate, of every class, beside evidence and expected copies over the iterations, see :meth:`EMState.plot`."""
        return self.state.plot(figure)

    def __repr__(self) -> str:
        """The result on one line, without arrays."""
        if not self.found_copies:
            found = "no copies"
        else:
            found = f"{self.expected_count:,.1f} copies, {self.evidence:,.0f} nats"
            found += ", not settled" if self.settled is False else ""
        shape, sigma = " x ".join(map(str, self.target.shape)), f"noise_std={self.noise_std:.4g}"
        return f"Recovery({shape}: {found}, {sigma}, {self.state.iteration} iterations, stopped by {self.stopped})"

    def summary(self) -> dict[str, object]:
        """Plain numbers for machines."""
        return {
            "iterations": self.state.iteration,
            "stopped": self.stopped,
            "noise_std": self.noise_std,
            "residual_std": self.residual_std,
            "noise": self.noise,
            "offset": self.offset,
            "expected_count": self.expected_count,
            "settled": self.settled,
            "evidence_nats": self.evidence,
            "prior_scales": None if self.prior_scales is None else list(self.prior_scales),
            "pixels": self.statistics.pixels,
            "likelihood": likelihood_record(self.likelihood),
        }

    def to_xarray(self) -> Any:
        """The result with named axes, for further work.

        Returns:
            An ``xarray.Dataset``: ``estimate`` and ``aligned_average`` over row and column (for several classes over class, row and column), each column of
            the history over iteration, and the numbers and words of :meth:`summary` as attributes.

        Raises:
            DependencyError: xarray is not installed.
        """
        axes = ("class", "row", "column")[-self.target.ndim :]
        variables: dict[str, Any] = {
            "estimate": (axes, self.target),
            "aligned_average": (axes, self.aligned_average),
        }
        columns = {f.name: [getattr(one, f.name) for one in self.history] for f in fields(IterationRecord)}
        iterations = columns.pop("iteration")
        variables |= {name: ("iteration", values) for name, values in columns.items()}
        plain = {name: value for name, value in self.summary().items() if type(value) in (int, float, str)}
        return optional("xarray", "xarray").Dataset(variables, {"iteration": iterations}, plain)

    def save(self, folder: str | Path) -> None:
        """Write ``estimate.npy``, ``aligned_average.npy``, ``history.csv`` and ``recovery.json`` to a folder.

        Raises:
            StorageError: the operating system refused.
        """
        folder, history = Path(folder), io.StringIO(newline="")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder} should be a folder to write to: {error}.") from error
        writer = csv.writer(history)
        writer.writerow([field.name for field in fields(IterationRecord)])
        writer.writerows(astuple(record) for record in self.history)
        summary = json.dumps(self.summary(), indent=2) + "\n"
        write_whole(folder / "estimate.npy", lambda file: np.save(file, self.target))
        write_whole(folder / "aligned_average.npy", lambda file: np.save(file, self.aligned_average))
        write_whole(folder / "history.csv", lambda file: file.write(history.getvalue().encode()))
        write_whole(folder / "recovery.json", lambda file: file.write(summary.encode()))
