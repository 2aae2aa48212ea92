"""``mtd reproduce``: the two experiments of arXiv:2312.08500."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..run.lock import locked
from ..terminal.console import command_line, emit, force_option, json_option
from ..terminal.options import COUNT, FROM_ZERO, PATH, POSITIVE, Device, option


@click.command()
@click.argument("experiment", type=click.Choice(["gaussian", "mnist"]))
@option(
    "--method",
    "paper: patches and gradient steps, Table I; best: whole windows and a denoiser, the defaults of `mtd recover`; "
    "patch: the same with the paper's patches, empty ones counted.",
    click.Choice(["paper", "patch", "best"]),
    "paper",
)
@option("--targets", "Targets; digits: one per class.", COUNT, 10)
@option("--seeds", "Measurements per target and SNR.", COUNT, 1)
@option("--seed", "Seed of all random numbers.", FROM_ZERO, 0)
@option(
    "--images",
    "mnist: .npz file with train_images, test_images and test_labels. Default: procedural glyphs stand in.",
    PATH,
)
@option(
    "--snr snrs",
    "Signal-to-noise ratio; may be given several times. Default: the paper's three.",
    POSITIVE,
    multiple=True,
)
@option("--iterations", "Iterations of every run. Default: 100 (paper), 60.", COUNT)
@option(
    "--prior weights",
    "Learned prior: glyphs, mnist, or a .safetensors file. Default: trained, or shipped (mnist).",
    metavar="NAME|PATH",
)
@option("--train-steps", "Steps of the training, where there is one.", COUNT)
@option("-o --output", "Folder to write. Default: mtd-EXPERIMENT-METHOD.", PATH)
@option("--device", "Where E-steps run.", Device(), "cpu", metavar="cpu|cuda[:i]")
@option("--jobs", "Runs at a time, of one thread each. Default: one per core; one on a GPU.", COUNT)
@force_option
@json_option
@click.pass_context
def command(ctx: click.Context, /, output: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Repeat an EXPERIMENT of arXiv:2312.08500 and write a report with its figures.

    gaussian: 5 x 5 images N(mu, I) at SNR 1, 5, 10. mnist: digits at SNR 0.1, 0.5, 1. Every target is recovered without
    and with a learned prior; the oracle knows places and rotations. Trained weights stay in the output folder and are used again.
    """
    from mtdcore._base.optional import optional

    from ..run.folder import RunFolder, refuse_to_replace
    from ..run.output import refuse_foreign_results

    if options["images"] is not None and options["experiment"] != "mnist":
        raise click.UsageError("--images goes with mnist; the Gaussian images are drawn.")
    folder = RunFolder(output or Path(f"mtd-{options['experiment']}-{options['method']}"))
    refuse_to_replace(folder.record, force)
    optional("torch", "torch")
    from ..reproduce.experiment import Settings, reproduce
    from ..reproduce.tables import text_table

    with locked(folder.path):
        refuse_foreign_results(folder)
        folder.clear()
        record = reproduce(folder, Settings(**options), command_line(ctx))
    if not as_json:
        click.echo(text_table(record["table"]))
    emit(record if as_json else {"report": str(folder.page)}, as_json)
