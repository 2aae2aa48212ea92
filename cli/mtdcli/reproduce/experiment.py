"""One experiment from its settings to its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtdcore import get_backend

from ..run.folder import RunFolder
from ..terminal.console import log
from ..terminal.installation import machine, versions
from ..terminal.progress import Progress
from ..terminal.stopping import patiently
from .cases import Case, Experiment, digit_experiment, gaussian_experiment
from .learning import MethodName, learned_prior
from .methods import Method, methods_of
from .page import write_results
from .runner import Outcome, run_all
from .tables import Cell, published, tabulate

if TYPE_CHECKING:
    from mtdbridge import ModelCard, TorchPrior, TrainingProgress


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of ``mtd reproduce``.

    Attributes:
        experiment: which of the two.
        method: name of the settings.
        targets: number of targets.
        seeds: measurements per target and SNR.
        seed: of targets, places, noise and starts.
        images: file with digits; None: procedural glyphs.
        snrs: signal-to-noise ratios; empty: those of the paper.
        iterations: of every run; None: as the method says.
        weights: learned prior; None: shipped or trained.
        train_steps: of the training; None: as the experiment says.
        jobs: runs at a time; None: one per core, or one where the E-steps run on a GPU.
        device: of the E-steps: "cpu" or "cuda[:i]".
    """

    experiment: Literal["gaussian", "mnist"]
    method: MethodName
    targets: int
    seeds: int
    seed: int
    images: Path | None
    snrs: tuple[float, ...]
    iterations: int | None
    weights: str | None
    train_steps: int | None
    jobs: int | None
    device: str


def reproduce(folder: RunFolder, settings: Settings, command: str) -> dict[str, Any]:
    """Run an experiment and write its record, figures and report.

    Args:
        folder: locked; it holds at most trained weights.
        settings: what to run.
        command: command line that repeats it.

    Returns:
        The content of ``run.json``.

    Raises:
        Interrupted: a signal came; a training can be continued.
    """
    get_backend(settings.device)  # an unusable device is reported once, before any run
    clock = time.perf_counter()
    if settings.experiment == "mnist":
        experiment = digit_experiment(settings.targets, settings.images)
    else:
        experiment = gaussian_experiment(settings.targets, settings.seed)
    snrs = settings.snrs or experiment.snrs
    weights, prior = _prior(experiment, folder, settings)
    trained = time.perf_counter()
    cases = experiment.cases(snrs, settings.seeds, settings.seed)
    methods = methods_of(
        experiment, settings.method, weights, prior, iterations=settings.iterations, device=settings.device
    )
    outcomes = _run(cases, methods, settings.jobs or (None if settings.device == "cpu" else 1))
    record = {
        "format": 1,
        "command": command,
        "experiment": experiment.name,
        "method": settings.method,
        "images": experiment.source,
        "targets": len(experiment.targets),
        "measurements": len(cases),
        "box_size": experiment.box_size,
        "seed": settings.seed,
        "snrs": list(snrs),
        "weights": {"file": weights, **_described(prior.card)},
        "seconds": {"preparation": trained - clock, "runs": time.perf_counter() - trained},
        "table": [_published(experiment, settings.method, cell) for cell in tabulate(outcomes)],
        "runs": [
            {name: value for name, value in vars(outcome).items() if name != "image"} for outcome in outcomes
        ],
        "versions": versions(),
        "machine": machine(),
    }
    write_results(folder, record, experiment, cases, outcomes)
    return record


def _prior(experiment: Experiment, folder: RunFolder, settings: Settings) -> tuple[str, TorchPrior]:
    """The learned prior; trained first where no weights are given."""
    with patiently() as stop:
        bar: Progress | None = None

        def after(progress: TrainingProgress) -> None:
            nonlocal bar
            bar = bar or Progress("train", progress.steps)
            bar.update(progress.step, {"loss": f"{progress.loss:.4g}"})

        found = learned_prior(
            experiment,
            settings.method,
            folder.path,
            weights=settings.weights,
            steps=settings.train_steps,
            callback=after,
            stopping=lambda: stop.asked,
        )
        if stop.signum is not None:
            log("stopped; the same command goes on with the training")
            stop.check()
    return found


def _run(cases: Sequence[Case], methods: Sequence[Method], jobs: int | None) -> list[Outcome]:
    """Make all runs, with progress; after a signal no further run starts."""
    failed = 0
    with patiently() as stop, Progress("reproduce", len(cases) * len(methods), "runs") as bar:

        def after(done: int, total: int, outcome: Outcome) -> None:
            nonlocal failed
            failed += outcome.failure is not None
            bar.update(done, {"failed": failed} if failed else {})
            stop.check()

        outcomes = run_all(cases, methods, jobs=jobs, callback=after)
    for outcome in outcomes:
        if outcome.failure is not None:
            log(f"failed: {outcome.method}, SNR {outcome.snr:g}, target {outcome.target}: {outcome.failure}")
    return outcomes


def _described(card: ModelCard | None) -> dict[str, Any]:
    """Summary of the card of the weights, for the record."""
    if card is None:
        return {}
    training = {name: card.training.get(name) for name in ("loss", "steps_done", "images_seen", "seconds")}
    return {
        "network": card.network,
        "levels": card.levels,
        **training,
        "data_sha256": card.data.get("sha256"),
    }


def _published(experiment: Experiment, method: MethodName, cell: Cell) -> dict[str, Any]:
    """A cell of the table, with the figures of the authors' code where the settings are theirs."""
    same = method == "paper" and experiment.source != "glyphs"
    known = published(experiment.name, cell.method, cell.snr) if same else None
    error, free = known or (None, None)
    return {**asdict(cell), "published_error": error, "published_gauge_free_error": free}
