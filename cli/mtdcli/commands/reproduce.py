"""``mtd reproduce``: the two experiments of arXiv:2312.08500, by the paper's method, by the default one, or by one between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..run.lock import locked
from ..run.stopping import patiently
from ..terminal.console import command_line, emit, force_option, json_option, log, with_error
from ..terminal.progress import Progress

if TYPE_CHECKING:
    from mtdbridge import TrainingProgress

    from ..reproduce import Cell, Experiment, Outcome
    from ..run.folder import RunFolder

_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("experiment", type=click.Choice(["gaussian", "mnist"]))
@click.option(
    "--method",
    type=click.Choice(["paper", "patch", "best"]),
    default="paper",
    show_default=True,
    help="paper: patches and gradient steps, Table I; best: whole windows and a denoiser, the defaults of `mtd recover`; "
    "patch: the same with the paper's patches, empty ones counted.",
)
@click.option("--targets", type=_COUNT, default=10, show_default=True, help="Targets; digits: one per class.")
@click.option("--seeds", type=_COUNT, default=1, show_default=True, help="Measurements per target and SNR.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="mnist: .npz file with train_images, test_images and test_labels. Default: procedural glyphs stand in.",
)
@click.option(
    "--snr",
    "snrs",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    help="Signal-to-noise ratio; may be given several times. Default: the paper's three.",
)
@click.option("--iterations", type=_COUNT, help="Iterations of every run. Default: 100 (paper), 60.")
@click.option(
    "--weights",
    help="Learned prior: shipped name or .safetensors. Default: trained, or shipped (mnist).",
)
@click.option("--train-steps", type=_COUNT, help="Steps of the training, where there is one.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to write. Default: mtd-EXPERIMENT-METHOD."
)
@click.option("--jobs", type=_COUNT, help="Runs at a time, of one thread each. Default: one per core.")
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, output: Path | None, force: bool, as_json: bool, **parameters: Any
) -> None:
    """Repeat an EXPERIMENT of arXiv:2312.08500 and write a report with its figures.

    gaussian: 5 x 5 images N(mu, I) at SNR 1, 5, 10. mnist: digits at SNR 0.1, 0.5, 1. Every target is recovered without
    and with a learned prior; the oracle knows places and rotations. Trained weights stay in the output folder and are used again.
    """
    from ..run.folder import RunFolder, refuse_to_replace
    from ..run.output import refuse_foreign_results

    folder = RunFolder(output or Path(f"mtd-{parameters['experiment']}-{parameters['method']}"))
    refuse_to_replace(folder.record, force)
    with locked(folder.path):
        refuse_foreign_results(folder, ())
        folder.clear()
        record = _reproduce(ctx, folder, parameters)
    if as_json:
        emit(record, as_json)
    else:
        click.echo(text_table(record["table"]))
        emit({"report": str(folder.page)}, as_json)


def _reproduce(ctx: click.Context, folder: RunFolder, parameters: dict[str, Any]) -> dict[str, Any]:
    """Everything between the arguments and the report."""
    from mtdcore._base.optional import optional

    optional("torch", "torch")
    from ..reproduce import methods_of, tabulate
    from ..reproduce.page import write_results
    from .doctor import machine, versions

    clock = time.perf_counter()
    experiment = _experiment(parameters)
    snrs = parameters["snrs"] or experiment.snrs
    weights, prior = _prior(ctx, experiment, folder, parameters)
    trained = time.perf_counter()
    cases = experiment.cases(snrs, parameters["seeds"], parameters["seed"])
    methods = methods_of(
        experiment, parameters["method"], weights, prior, iterations=parameters["iterations"]
    )
    outcomes = _run(ctx, cases, methods, parameters["jobs"])
    table = tabulate(outcomes)
    card = prior.card
    record = {
        "format": 1,
        "command": command_line(ctx),
        "experiment": experiment.name,
        "method": parameters["method"],
        "images": experiment.source,
        "targets": len(experiment.targets),
        "measurements": len(cases),
        "box_size": experiment.box_size,
        "seed": parameters["seed"],
        "snrs": list(snrs),
        "weights": {"file": weights, **({} if card is None else _described(card))},
        "seconds": {"preparation": trained - clock, "runs": time.perf_counter() - trained},
        "table": [_published(experiment, parameters["method"], cell) for cell in table],
        "runs": [_plain(outcome) for outcome in outcomes],
        "versions": versions(),
        "machine": machine(),
    }
    write_results(folder, record, experiment, cases, outcomes)
    return record


def _experiment(parameters: dict[str, Any]) -> Experiment:
    from ..reproduce import digit_experiment, gaussian_experiment

    if parameters["experiment"] == "mnist":
        return digit_experiment(parameters["targets"], parameters["images"])
    if parameters["images"] is not None:
        raise click.UsageError("--images goes with mnist; the Gaussian images are drawn.")
    return gaussian_experiment(parameters["targets"], parameters["seed"])


def _prior(
    ctx: click.Context, experiment: Experiment, folder: RunFolder, parameters: dict[str, Any]
) -> tuple[str, Any]:
    """The learned prior, after its training if need be."""
    from ..reproduce import learned_prior

    with patiently() as stop:
        bar: Progress | None = None

        def after(progress: TrainingProgress) -> bool:
            nonlocal bar
            bar = bar or Progress("train", progress.steps)
            bar.update(progress.step, {"loss": f"{progress.loss:.4g}"})
            return stop.signum is not None

        found = learned_prior(
            experiment,
            parameters["method"],
            folder.path,
            weights=parameters["weights"],
            steps=parameters["train_steps"],
            callback=after,
        )
        if stop.signum is not None:
            log("stopped; the same command goes on with the training")
            ctx.exit(128 + stop.signum)
    return found


def _run(ctx: click.Context, cases: Sequence[Any], methods: Sequence[Any], jobs: int | None) -> list[Outcome]:
    """All runs, with progress; a signal ends them after the ones in hand."""
    from ..reproduce import run_all

    failed = 0
    with patiently() as stop, Progress("reproduce", len(cases) * len(methods), "runs") as bar:

        def after(done: int, total: int, outcome: Outcome) -> None:
            nonlocal failed
            failed += outcome.failure is not None
            bar.update(done, {"failed": failed} if failed else {})
            if stop.signum is not None:
                ctx.exit(128 + stop.signum)

        outcomes = run_all(cases, methods, jobs=jobs, callback=after)
    for outcome in outcomes:
        if outcome.failure is not None:
            log(f"failed: {outcome.method}, SNR {outcome.snr:g}, target {outcome.target}: {outcome.failure}")
    return outcomes


def _described(card: Any) -> dict[str, Any]:
    """What a reader wants to know of the weights."""
    training = {name: card.training.get(name) for name in ("loss", "steps_done", "images_seen", "seconds")}
    return {
        "network": card.network,
        "levels": card.levels,
        **training,
        "data_sha256": card.data.get("sha256"),
    }


def _published(experiment: Experiment, method: str, cell: Cell) -> dict[str, Any]:
    """A cell of the table, with the figures of the authors' code where the settings are theirs."""
    from ..reproduce import published

    same = method == "paper" and experiment.source != "glyphs"
    known = published(experiment.name, cell.method, cell.snr) if same else None
    error, free = known or (None, None)
    return {**asdict(cell), "published_error": error, "published_gauge_free_error": free}


def _plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome without its image."""
    return {name: value for name, value in vars(outcome).items() if name != "image"}


def text_table(cells: Sequence[dict[str, Any]]) -> str:
    """The results as aligned text: one line per method, E and E_s at every SNR."""
    snrs = list(dict.fromkeys(cell["snr"] for cell in cells))
    lines = [["", *(f"SNR {snr:g}: E" for snr in snrs), *(f"E_s at {snr:g}" for snr in snrs)]]
    for method in dict.fromkeys(cell["method"] for cell in cells):
        row = {cell["snr"]: cell for cell in cells if cell["method"] == method}
        lines.append(
            [
                method,
                *(with_error(row[snr]["error"], row[snr]["error_se"]) for snr in snrs),
                *(with_error(row[snr]["gauge_free_error"], row[snr]["gauge_free_error_se"]) for snr in snrs),
            ]
        )
        if any(cell["published_error"] is not None for cell in row.values()):
            known = [row[snr]["published_error"] for snr in snrs]
            free = [row[snr]["published_gauge_free_error"] for snr in snrs]
            lines.append(["  authors' code", *("-" if v is None else f"{v:.3f}" for v in (*known, *free))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
