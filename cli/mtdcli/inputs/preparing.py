"""The options that say how micrographs are prepared, shared by the commands that do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal.console import F, log

if TYPE_CHECKING:
    from mtdcore.data.preparation.prepare import Preparation

_POSITIVE = click.FloatRange(min=0, min_open=True)

_OPTIONS = (
    click.option(
        "--defects",
        type=click.Choice(["mask", "keep"]),
        default="mask",
        show_default=True,
        help="Dead and hot pixels, looked for in each image as it is stored: masked, or taken as they are.",
    ),
    click.option(
        "--invert/--no-invert",
        default=None,
        help="Negate the pixels, so that dark particles become bright. Default: for MRC files and STAR lists, raw micrographs.",
    ),
    click.option(
        "--ctf/--no-ctf",
        "flip_phases",
        default=None,
        help="Flip phases by the CTF columns of a STAR list and model |CTF|. Default: where they are known.",
    ),
    click.option(
        "--bin", type=click.IntRange(1), default=1, show_default=True, help="Fourier binning factor."
    ),
    click.option(
        "--mask-beyond",
        type=_POSITIVE,
        metavar="S",
        help="Mask pixels further than S standard deviations from the median (dead pixels, ice).",
    ),
    click.option(
        "--mask-contaminants",
        type=_POSITIVE,
        metavar="S",
        help="Mask regions whose smoothed grey value is further than S standard deviations from the median.",
    ),
    click.option(
        "--contaminant-width",
        type=_POSITIVE,
        default=10.0,
        show_default=True,
        help="Smoothing for that, binned pixels.",
    ),
    click.option(
        "--mask-edge",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Mask so many binned pixels along every edge.",
    ),
    click.option(
        "--background",
        type=click.Choice(["gaussian", "polynomial", "none"]),
        default="gaussian",
        show_default=True,
        help="Smooth background to subtract.",
    ),
    click.option(
        "--background-width",
        type=_POSITIVE,
        help="Standard deviation of the Gaussian, binned pixels. Default: an eighth of the shorter side.",
    ),
    click.option(
        "--background-degree",
        type=click.IntRange(0, 8),
        default=2,
        show_default=True,
        help="Degree of the polynomial.",
    ),
    click.option(
        "--whiten/--no-whiten",
        default=False,
        show_default=True,
        help="Divide by the radial spectrum of the noise, and model that.",
    ),
    click.option(
        "--normalise/--no-normalise",
        default=True,
        show_default=True,
        help="Bring each image to median 0 and robust standard deviation 1.",
    ),
)


def preparation_options(function: F) -> F:
    """The options of :class:`mtdcore.data.micrographs.Preparation`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def preparation(sources: Sequence[Path], options: Mapping[str, Any]) -> Preparation:
    """The preparation that options ask for; what they leave open follows from the format of the sources.

    Raises:
        click.UsageError: raw micrographs and others together, and --invert not decided.
    """
    from mtdcore.data.preparation.pixels import MRC
    from mtdcore.data.preparation.prepare import Preparation

    raw = sum(source.suffix.lower() in (*MRC, ".star") for source in sources)
    options = dict(options)
    if options["invert"] is None:
        if 0 < raw < len(sources):
            raise click.UsageError(
                "MRC files and others together: say --invert or --no-invert for all of them"
            )
        options["invert"] = raw > 0
        if raw:
            log("inverting the contrast: raw micrographs have dark particles (--no-invert keeps it)")
    return Preparation(**options)
