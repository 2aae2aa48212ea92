"""``mtd train-prior``: images to weights that ``mtd recover --prior`` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..run.output import clean_beside, refuse_weights
from ..terminal.console import command_line, emit, force_option, json_option, log
from ..terminal.options import COUNT, FROM_ZERO, PATH, POSITIVE, option
from ..terminal.progress import Progress
from ..terminal.stopping import patiently

if TYPE_CHECKING:
    from mtdbridge import TrainingProgress

_SHARE = click.FloatRange(min=0, max=1)


def _channels(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """``24,48,96`` as a list."""
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected three positive numbers such as 24,48,96; got {value!r}")
    return [int(part) for part in parts]


#: Options of a training on images that a training on proteins takes too.
_OF_PROTEINS = ("steps", "learning_rate", "ema_decay", "precision", "seed", "device")


@click.command()
@click.argument("images", required=False)
@option(
    "--proteins",
    "Instead of IMAGES: structures, an .npz or a folder of PDB and mmCIF files.",
    click.Path(exists=True, path_type=Path),
    metavar="NPZ|FOLDER",
)
@option("--volumes", "--proteins: densities instead of projections.", is_flag=True)
@option(
    "--minutes",
    "--proteins: wall-clock time of the training. Default: 60, or as long as --steps take.",
    POSITIVE,
)
@option(
    "--microscope",
    "--proteins: share of the projections with the CTF of a microscope. Default: 0.5.",
    _SHARE,
    metavar="SHARE",
)
@option(
    "--start",
    "--proteins: weights of an earlier training to go on from.",
    click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="WEIGHTS",
)
@option("-o --output", "Weights file (.safetensors).", PATH, required=True)
@option(
    "--network",
    "denoiser, or one of the paper's: unet, mlp.",
    click.Choice(["denoiser", "unet", "mlp"]),
    "denoiser",
)
@option("--key", "Name of the array inside an .npz file. Default: train_images.", str)
@option("--steps", "Optimiser steps.", COUNT, 10_000)
@option("--batch-size", "Images per step.", COUNT, 64)
@option("--learning-rate", "Highest rate of the cosine schedule.", POSITIVE, 2e-3)
@option("--ema-decay", "Decay of the averaged weights.", _SHARE, 0.999)
@option(
    "--levels",
    "Lowest and highest noise level of the denoiser, in image units.",
    (POSITIVE, POSITIVE),
    (0.02, 4.0),
    metavar="LOW HIGH",
)
@option(
    "--channels",
    "Channels of the denoiser at full, half and quarter resolution.",
    str,
    callback=_channels,
    metavar="A,B,C",
)
@option("--width", "Width of the unet or mlp.", COUNT)
@option("--validation", "Images held out, the last ones.", FROM_ZERO, 1000)
@option("--shift", "Augment: shift by up to this many pixels.", FROM_ZERO, 0)
@option("--shift-fraction", "Share of the images that are shifted.", _SHARE, 1.0)
@option("--flip", "Augment: mirror left-right.", is_flag=True)
@option("--rotate", "Augment: turn by right angles (the prior then knows no upright).", is_flag=True)
@option("--hutchinson", "mlp: estimate the trace of the loss instead of computing it.", is_flag=True)
@option(
    "--precision",
    "bfloat16: mixed precision, faster on newer processors.",
    click.Choice(["float32", "bfloat16"]),
    "float32",
)
@option("--seed", "Seed of weights, order, noise and augmentation.", FROM_ZERO, 0)
@option("--device", "Where to train.", str, "cpu", metavar="cpu|cuda[:i]")
@option("--threads", "CPU threads. Default: all cores.", COUNT)
@option("--resume", "Continue an interrupted training; --steps may differ from before.", is_flag=True)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    images: str | None,
    proteins: Path | None,
    volumes: bool,
    minutes: float | None,
    microscope: float | None,
    start: Path | None,
    output: Path,
    resume: bool,
    force: bool,
    as_json: bool,
    threads: int | None,
    **parameters: Any,
) -> None:
    """Train a learned prior on IMAGES: an .npz, .npy, .idx(.gz) or .zarr file of square images, or glyphs[:COUNT].

    With --proteins: on projections or densities of protein structures, drawn as the training needs them; --steps,
    --learning-rate, --ema-decay, --precision, --seed, --device and --threads then count as well.

    OUTPUT receives the weights with their description, OUTPUT with .html instead the report: loss, denoising error per
    noise level, and images drawn from the prior. The averaged weights can be used from the first minutes on.
    """
    from mtdcore.errors import ParameterError

    if output.suffix != ".safetensors":
        raise ParameterError(f"expected an output that ends in .safetensors; got {output.name}.")
    if (images is None) == (proteins is None):
        raise click.UsageError("expected either IMAGES or --proteins.")
    source = images if proteins is None else str(proteins)
    beside = (".html",) if proteins is None else (".full.safetensors", ".json")
    refuse_weights(output, beside, resume or force, [Path(str(source)), *([start] if start else [])])
    clean_beside(output, beside)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if proteins is not None:
        chosen = {name: value for name, value in parameters.items() if _given(ctx, name)}
        if resume or chosen.keys() - set(_OF_PROTEINS):
            flags = sorted("--" + name.replace("_", "-") for name in chosen.keys() - set(_OF_PROTEINS))
            raise click.UsageError(f"--proteins does not take {', '.join(flags) or '--resume'}.")
        if volumes and microscope is not None:
            raise click.UsageError("--microscope is of projections, not of --volumes.")
        _train_on_proteins(
            ctx, proteins, output, volumes, minutes, chosen | {"start": start}, microscope, as_json
        )
        return
    if volumes or (minutes, microscope, start) != (None, None, None):
        raise click.UsageError("--volumes, --minutes, --microscope and --start go with --proteins.")
    assert images is not None
    from mtdbridge import Augmentation, Pace, train_prior

    from ..report.prior import write_prior_report

    augmentation = Augmentation(
        *(parameters.pop(name) for name in ("shift", "shift_fraction", "flip", "rotate"))
    )
    given = {name: parameters.pop(name) for name in ("channels", "width")}
    with patiently() as stop, Progress("train", parameters["steps"]) as bar:

        def after(progress: TrainingProgress) -> None:
            fields = {"loss": f"{progress.loss:.4g}", "images/s": f"{progress.images_per_second:.0f}"}
            bar.update(progress.step, fields)

        prior = train_prior(
            images,
            output=output,
            network_options={name: value for name, value in given.items() if value is not None},
            augmentation=augmentation,
            resume=resume,
            pace=Pace(report_every=50, stopping=lambda: stop.asked),
            callback=after,
            **parameters,
        )
    again = command_line(ctx)
    if stop.signum is not None:
        log(f"stopped; continue with: {again} --resume")
        ctx.exit(128 + stop.signum)
    report = output.with_suffix(".html")
    write_prior_report(report, prior, again)
    assert prior.card is not None
    done = {name: prior.card.training[name] for name in ("steps_done", "images_seen", "seconds")}
    emit({"weights": str(output), "report": str(report), **done, **prior.card.metrics["validation"]}, as_json)


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _train_on_proteins(
    ctx: click.Context,
    proteins: Path,
    output: Path,
    volumes: bool,
    minutes: float | None,
    chosen: dict[str, Any],
    microscope: float | None,
    as_json: bool,
) -> None:
    """Train on structures for a time or a number of steps, and print the validation figures reached."""
    from mtdbridge import train_protein_prior
    from mtdbridge.proteins.plans import PLANS

    name = "proteins-3d" if volumes else "proteins-2d"
    if microscope is not None:
        chosen["drawing"] = replace(PLANS[name].drawing, microscope=microscope)
    if minutes is None and "steps" not in chosen:
        minutes = 60.0
    total = 100
    with patiently() as stop, Progress("train", total) as bar:

        def after(entry: dict[str, Any]) -> bool:
            by_clock = 0.0 if minutes is None else entry["seconds"] / (60 * minutes)
            by_step = entry["step"] / chosen["steps"] if "steps" in chosen else 0.0
            done = min(total, int(total * max(by_clock, by_step)))
            bar.update(done, {"loss": f"{entry['loss'] or 0:.4g}", "drawings": f"{entry['drawings']}"})
            return stop.signum is not None

        prior = train_protein_prior(
            proteins,
            output=output,
            plan=name,
            callback=after,
            seconds=None if minutes is None else 60 * minutes,
            **chosen,
        )
    if stop.signum is not None:
        log(f"stopped; what was learned so far stands in {output}")
        ctx.exit(128 + stop.signum)
    assert prior.card is not None
    done = {name: prior.card.training[name] for name in ("steps_done", "images_seen", "seconds_done")}
    files = {"weights": str(output), "curves": str(output.with_suffix(".json"))}
    emit({**files, **done, "validation": prior.card.metrics["validation"]}, as_json)
