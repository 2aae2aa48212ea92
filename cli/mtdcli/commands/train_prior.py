"""``mtd train-prior``: images to weights that ``mtd recover --prior`` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..run.output import clean_beside, refuse_weights
from ..run.stopping import patiently
from ..terminal.console import F, command_line, emit, force_option, json_option, log
from ..terminal.progress import Progress

if TYPE_CHECKING:
    from mtdbridge import TrainingProgress

_COUNT = click.IntRange(min=1)
_FROM_ZERO = click.IntRange(min=0)
_SHARE = click.FloatRange(min=0, max=1)
_POSITIVE = click.FloatRange(min=0, min_open=True)


def _channels(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """``24,48,96`` as a list."""
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected three positive numbers such as 24,48,96; got {value!r}")
    return [int(part) for part in parts]


def _option(flag: str, kind: Any, default: Any, text: str, **more: Any) -> Callable[[F], F]:
    return click.option(flag, type=kind, default=default, show_default=default is not None, help=text, **more)


@click.command()
@click.argument("images")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Weights file (.safetensors)."
)
@_option(
    "--network",
    click.Choice(["denoiser", "unet", "mlp"]),
    "denoiser",
    "denoiser, or one of the paper's: unet, mlp.",
)
@_option("--key", str, None, "Name of the array inside an .npz file. Default: train_images.")
@_option("--steps", _COUNT, 10_000, "Optimiser steps.")
@_option("--batch-size", _COUNT, 64, "Images per step.")
@_option("--learning-rate", _POSITIVE, 2e-3, "Highest rate of the cosine schedule.")
@_option("--ema-decay", _SHARE, 0.999, "Decay of the averaged weights.")
@_option(
    "--levels",
    (_POSITIVE, _POSITIVE),
    (0.02, 4.0),
    "Lowest and highest noise level of the denoiser, in image units.",
    metavar="LOW HIGH",
)
@_option(
    "--channels",
    str,
    None,
    "Channels of the denoiser at full, half and quarter resolution.",
    callback=_channels,
    metavar="A,B,C",
)
@_option("--width", _COUNT, None, "Width of the unet or mlp.")
@_option("--validation", _FROM_ZERO, 1000, "Images held out, the last ones.")
@_option("--shift", _FROM_ZERO, 0, "Augment: shift by up to this many pixels.")
@_option("--shift-fraction", _SHARE, 1.0, "Share of the images that are shifted.")
@click.option("--flip", is_flag=True, help="Augment: mirror left-right.")
@click.option(
    "--rotate", is_flag=True, help="Augment: turn by right angles (the prior then knows no upright)."
)
@click.option(
    "--hutchinson", is_flag=True, help="mlp: estimate the trace of the loss instead of computing it."
)
@_option(
    "--precision",
    click.Choice(["float32", "bfloat16"]),
    "float32",
    "bfloat16: mixed precision, faster on newer processors.",
)
@_option("--seed", _FROM_ZERO, 0, "Seed of weights, order, noise and augmentation.")
@_option("--device", str, "cpu", "Where to train.", metavar="cpu|cuda[:i]")
@_option("--threads", _COUNT, None, "CPU threads. Default: all cores.")
@click.option(
    "--resume", is_flag=True, help="Continue an interrupted training; --steps may differ from before."
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    images: str,
    output: Path,
    resume: bool,
    force: bool,
    as_json: bool,
    threads: int | None,
    **parameters: Any,
) -> None:
    """Train a learned prior on IMAGES: an .npz, .npy, .idx(.gz) or .zarr file of square images, or glyphs[:COUNT].

    OUTPUT receives the weights with their description, OUTPUT with .html instead the report: loss, denoising error per
    noise level, and images drawn from the prior. The averaged weights can be used from the first minutes on.
    """
    from mtdcore.errors import ParameterError

    if output.suffix != ".safetensors":
        raise ParameterError(f"expected an output that ends in .safetensors; got {output.name}.")
    refuse_weights(output, resume or force, [Path(images)])
    clean_beside(output)
    from mtdbridge import Augmentation, Pace, train_prior

    from ..report.prior import write_prior_report

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    augmentation = Augmentation(
        *(parameters.pop(name) for name in ("shift", "shift_fraction", "flip", "rotate"))
    )
    given = {name: parameters.pop(name) for name in ("channels", "width")}
    with patiently() as stop, Progress("train", parameters["steps"]) as bar:

        def after(progress: TrainingProgress) -> bool:
            fields = {"loss": f"{progress.loss:.4g}", "images/s": f"{progress.images_per_second:.0f}"}
            bar.update(progress.step, fields)
            return stop.signum is not None

        prior = train_prior(
            images,
            output=output,
            network_options={name: value for name, value in given.items() if value is not None},
            augmentation=augmentation,
            resume=resume,
            pace=Pace(report_every=50),
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
