"""``mtd import``: image files to one normalised Zarr measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..inputs.preparing import preparation_options
from ..terminal.console import emit, force_option, json_option, log
from ..terminal.progress import Progress

if TYPE_CHECKING:
    from mtdcore.data.preparation.prepare import Preparation


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Zarr measurement to write."
)
@click.option("--key", help="Arrays of an .npz file to take: a name or a pattern such as 'frames/*'.")
@click.option(
    "--pixel-size",
    type=click.FloatRange(min=0, min_open=True),
    metavar="A",
    help="Angstrom per pixel of SOURCES, where a STAR list does not say. Trusted more than headers are.",
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
    skip_bad: bool,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Turn image files into one measurement. SOURCES are .star lists of micrographs, .mrc(s), .tif, .npy, .npz or .png
    files, or patterns such as 'micrographs/*.mrc'.

    All images must have one size; each becomes one micrograph of the stack, an OME-Zarr image that other programs open.
    Pixels that are not finite, and dead or hot ones, become NaN and are ignored by `mtd recover`.
    """
    from ..inputs.frames import Frames
    from ..inputs.preparing import preparation
    from ..run.output import refuse_output

    refuse_output(output, force, sources)
    frames = Frames(sources, key, pixel_size, skip_bad)
    refuse_output(output, force, frames.files)
    steps = preparation(frames.sources, options)
    emit({"measurement": str(output), **write_stack(frames, steps, output, force)}, as_json)


def write_stack(frames: Any, steps: Preparation, output: Path, force: bool = False) -> dict[str, Any]:
    """Prepare micrographs and write them as one OME-Zarr stack with their table.

    Args:
        frames: a :class:`mtdcli.inputs.frames.Frames`.
        steps: what is done to each.
        output: the folder to write.
        force: replace a measurement that mtd wrote there.

    Returns:
        What was written: micrographs, height, width, masked_pixels, pixel_size, skipped.
    """
    import dataclasses

    import numpy as np

    import mtdcore
    from mtdcore.data.micrographs.table import Entry, MicrographTable
    from mtdcore.data.zarr.store import creating

    first = frames.usable[0]
    height, width = steps.shape(first.shape)
    pixel_size = None if first.pixel_size is None else first.pixel_size * steps.bin
    attributes = {
        "version": mtdcore.__version__,
        "made_by": "import",
        "sources": [str(source) for source in frames.sources],
        "parameters": dataclasses.asdict(steps) | {"key": frames.key, "pixel_size": frames.pixel_size},
    }
    shape = (len(frames.usable), height, width)
    entries: list[Entry] = []
    masked = 0
    with (
        creating(
            output,
            shape,
            np.dtype(np.float32),
            {"mtdcore": attributes},
            overwrite=force,
            pixel_size=pixel_size,
            ome=True,
            inputs=frames.files,
        ) as (array, folder),
        Progress("import", shape[0], "micrographs") as bar,
    ):
        for micrograph, prepared in frames.prepared(steps):
            array[len(entries)] = prepared.pixels
            entries.append(Entry.of(micrograph, prepared, steps.bin, steps.invert))
            masked += int(np.isnan(prepared.pixels).sum())
            bar.update(len(entries))
        array.resize((len(entries), height, width))  # without those that turned out unusable on reading
        MicrographTable(tuple(entries)).save(folder)
    scales = [entry.scale for entry in entries]
    log(
        f"{len(entries)} micrograph(s) of {height} x {width} pixels; pixel scale {min(scales):.4g} to {max(scales):.4g}; "
        f"{frames.contrast}"
    )
    if masked:
        log(f"{masked} of {len(entries) * height * width} pixels are masked (invalid, defective or as asked)")
    return {
        "micrographs": len(entries),
        "height": height,
        "width": width,
        "masked_pixels": masked,
        "pixel_size": pixel_size,
        "skipped": frames.skipped,
    }
