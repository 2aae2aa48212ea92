"""``mtd import``: files of images or signals to one normalised Zarr measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..inputs.preparing import preparation_options
from ..terminal.console import emit, force_option, json_option
from ..terminal.options import option


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("-o --output", "Zarr measurement to write.", click.Path(path_type=Path), required=True)
@option("--key", "Arrays of an .npz file to take: a name or a pattern such as 'frames/*'.")
@option(
    "--pixel-size",
    "Angstrom per pixel of SOURCES, where a STAR list does not say. Trusted more than headers are.",
    click.FloatRange(min=0, min_open=True),
    metavar="A",
)
@option(
    "--sampling-rate",
    "Samples per second of SOURCES that are signals, where the file does not say (.wav does): copies are then told in seconds, too.",
    click.FloatRange(min=0, min_open=True),
    metavar="HZ",
)
@preparation_options
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out micrographs that are missing, damaged or of another size, say which, and go on.",
)
@force_option
@json_option
def command(
    sources: tuple[Path, ...],
    output: Path,
    key: str | None,
    pixel_size: float | None,
    sampling_rate: float | None,
    skip_bad: bool,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Turn image files into one measurement. SOURCES are .star lists of micrographs, .mrc(s), .tif, .npy, .npz or .png
    files, or patterns such as 'micrographs/*.mrc'. Signals are .csv (a column for each channel), .wav, or .npy.

    All images must have one size; each becomes one micrograph of the stack, an OME-Zarr image that other programs open.
    Pixels that are not finite, and dead or hot ones, become NaN and are ignored by `mtd recover`.
    """
    from ..inputs.frames import Frames
    from ..inputs.preparing import preparation
    from ..inputs.sources import sampling_rate as known_rate
    from ..inputs.stack import write_stack
    from ..run.output import refuse_output

    refuse_output(output, force, sources)
    frames = Frames(sources, key, pixel_size, skip_bad)
    refuse_output(output, force, frames.files)
    steps = preparation(frames.sources, options, signals=frames.signals)
    known = known_rate(frames.sources[0])  # logs the use of a column of times
    rate = sampling_rate or known
    emit({"measurement": str(output), **write_stack(frames, steps, output, force, rate)}, as_json)
