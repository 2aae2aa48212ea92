"""The options that say how micrographs are prepared, shared by the commands that do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal.console import F, log
from ..terminal.options import POSITIVE, option

if TYPE_CHECKING:
    from mtdcore.data.preparation.prepare import Preparation


_DEFECTS = option(
    "--defects",
    "Dead and hot pixels, looked for in each image as it is stored: masked, or taken as they are.",
    click.Choice(["mask", "keep"]),
    "mask",
)

_OPTIONS = (
    option(
        "--borders",
        "Borders that are constant or smeared: masked, or taken as they are.",
        click.Choice(["mask", "keep"]),
        "mask",
    ),
    option(
        "--contaminants",
        "Carbon, ice crystals and other things that are no particles: masked, or taken as they are.",
        click.Choice(["mask", "keep"]),
        "mask",
    ),
    option("--contaminant-width", "About half a particle, for that, binned pixels.", POSITIVE, 10.0),
    option(
        "--invert/--no-invert",
        "Negate the pixels, so that dark particles become bright. Default: for MRC files and STAR lists, raw micrographs.",
        default=None,
    ),
    option(
        "--ctf/--no-ctf flip_phases",
        "Flip phases by the CTF columns of a STAR list and model |CTF|. Default: where they are known.",
        default=None,
    ),
    option("--bin", "Fourier binning factor.", click.IntRange(1), 1),
    option(
        "--mask-beyond",
        "Mask pixels further than S standard deviations from the median (dead pixels, ice).",
        POSITIVE,
        metavar="S",
    ),
    option("--mask-edge", "Mask so many binned pixels along every edge.", click.IntRange(0), 0),
    option(
        "--background",
        "Smooth background to subtract. Default: gaussian; none for signals.",
        click.Choice(["gaussian", "polynomial", "none"]),
        None,
    ),
    option(
        "--background-width",
        "Standard deviation of the Gaussian, binned pixels. Default: an eighth of the shorter side.",
        POSITIVE,
    ),
    option("--background-degree", "Degree of the polynomial.", click.IntRange(0, 8), 2),
    option(
        "--whiten/--no-whiten", "Divide by the radial spectrum of the noise, and model that.", default=False
    ),
    option(
        "--normalise/--no-normalise",
        "Bring each image to median 0 and robust standard deviation 1.",
        default=True,
    ),
)


def preparation_options(function: F) -> F:
    """The options of :class:`mtdcore.data.micrographs.Preparation`."""
    return more_preparation_options(_DEFECTS(function))


def more_preparation_options(function: F) -> F:
    """The same without ``--defects``, for a command that has it already."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def preparation(sources: Sequence[Path], options: Mapping[str, Any], signals: bool = False) -> Preparation:
    """The preparation that the options ask for; options that are not given follow from the format of the sources.

    Args:
        sources: the files.
        options: of the command line.
        signals: whether the sources hold signals; then no background is subtracted by default, since the length of the motif is unknown.

    Raises:
        click.UsageError: raw micrographs are mixed with other files and neither --invert nor --no-invert is given; or signals are to be whitened.
    """
    from mtdcore.data.preparation.pixels import MRC
    from mtdcore.data.preparation.prepare import Preparation

    raw = sum(source.suffix.lower() in (*MRC, ".star") for source in sources)
    options = {name: value for name, value in options.items() if name != "sampling_rate"}  # not a step
    if signals and options["whiten"]:
        raise click.UsageError(
            "--whiten is for images: flatten the spectrum of signals by a filter of your own, and leave it out"
        )
    if options["background"] is None:
        options["background"] = "none" if signals else "gaussian"
    if options["invert"] is None:
        if 0 < raw < len(sources):
            raise click.UsageError(
                "MRC files and others together: say --invert or --no-invert for all of them"
            )
        options["invert"] = raw > 0
        if raw:
            log("inverting the contrast: raw micrographs have dark particles (--no-invert keeps it)")
    return Preparation(**options)
