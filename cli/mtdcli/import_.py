"""``mtd import``: image files to one normalised Zarr measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import emit, force_option, json_option, log
from .progress import Progress


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Zarr measurement to write."
)
@click.option("--key", help="Arrays of an .npz file to take: a name or a pattern such as 'frames/*'.")
@click.option(
    "--invert/--no-invert",
    default=None,
    help="Negate the pixels, so that dark particles become bright. Default: only for MRC files, raw micrographs.",
)
@click.option(
    "--background",
    type=click.Choice(["gaussian", "polynomial", "none"]),
    default="gaussian",
    show_default=True,
    help="Smooth background to subtract.",
)
@click.option(
    "--background-width",
    type=click.FloatRange(min=0, min_open=True),
    help="Standard deviation of the Gaussian, pixels. Default: an eighth of the shorter side.",
)
@click.option(
    "--background-degree",
    type=click.IntRange(0, 8),
    default=2,
    show_default=True,
    help="Degree of the polynomial.",
)
@click.option(
    "--normalise/--no-normalise",
    default=True,
    show_default=True,
    help="Bring each image to median 0 and robust standard deviation 1.",
)
@click.option(
    "--mask-beyond",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Mask pixels further than S standard deviations from the median (contaminants, dead pixels).",
)
@force_option
@json_option
def command(sources: tuple[Path, ...], output: Path, as_json: bool, force: bool, **options: Any) -> None:
    """Turn image files into one measurement: SOURCES are .npy, .npz, .png, .tif or .mrc(s) files.

    All images must have one size; each becomes one micrograph of the stack. Pixels that are not finite stay so and
    are ignored by `mtd recover`.
    """
    from .run_folder import refuse_to_replace
    from .sources import MRC

    refuse_to_replace(output, force)
    if options["invert"] is None:
        mrc = sum(source.suffix.lower() in MRC for source in sources)
        if 0 < mrc < len(sources):
            raise click.UsageError(
                "MRC files and others together: say --invert or --no-invert for all of them"
            )
        options["invert"] = mrc > 0
        if mrc:
            log("inverting the contrast: raw micrographs have dark particles (--no-invert keeps it)")
    emit({"measurement": str(output), **_write(sources, output, force, options)}, as_json)


def _write(sources: tuple[Path, ...], output: Path, force: bool, options: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    import mtdcore
    from mtdcore.measurement.zarr_store import creating

    from .preprocess import prepare
    from .sources import read_images

    shape = _common_shape(sources, options["key"])
    attributes = {
        "version": mtdcore.__version__,
        "made_by": "import",
        "sources": [str(source) for source in sources],
        "parameters": options,
    }
    size, dtype = f"{shape[1]} x {shape[2]}", np.dtype(np.float32)
    stds: list[float] = []
    images = (image for source in sources for image in read_images(source, options["key"]))
    with (
        creating(output, shape, dtype, {"mtdcore": attributes}, overwrite=force) as (array, _),
        Progress("import", shape[0], "micrographs") as bar,
    ):
        for index, image in enumerate(images):
            array[index], std = prepare(np.array(image, dtype), **options)
            stds.append(std)
            bar.update(index + 1)
    log(f"{shape[0]} micrograph(s) of {size} pixels; pixel scale {min(stds):.4g} to {max(stds):.4g}")
    return {"micrographs": shape[0], "height": shape[1], "width": shape[2]}


def _common_shape(sources: tuple[Path, ...], key: str | None) -> tuple[int, int, int]:
    """(images, H, W) of all sources together."""
    from mtdcore.errors import InputError

    from .sources import read_images

    count, size = 0, None
    for source in sources:
        for image in read_images(source, key):
            size = size or image.shape
            if image.shape != size:
                raise InputError(
                    f"all images should have the size of the first, {size[0]} x {size[1]}; {source} has "
                    f"{image.shape[0]} x {image.shape[1]}: import each size into its own measurement."
                )
            count += 1
    if size is None:
        raise InputError("the sources hold no image.")
    return count, size[0], size[1]
