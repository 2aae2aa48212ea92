"""``mtd simulate``: a measurement with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal.console import emit, force_option, json_option
from ..terminal.options import COUNT, FROM_ZERO, POSITIVE, Shape, measurement_output, option
from ..terminal.volumes import WithVolume

if TYPE_CHECKING:
    import numpy as np


class _Rotations(click.ParamType[int | str]):
    name = "rotations"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == "continuous" else COUNT.convert(value, param, ctx)


@click.command("simulate", cls=WithVolume)
@click.argument("target")
@measurement_output
@option("--box-size", "Side of the box around a glyph, pixels.", click.IntRange(min=8), 28, metavar="L")
@option(
    "--size",
    "Pixels of a micrograph, HxW or one number. Default: 11 boxes square; of a signal 121 boxes in a row.",
    Shape(),
    metavar="HxW",
)
@option("--density", "Share of the area that copies cover. Default: 0.1.", POSITIVE)
@option("--count", "Copies in each micrograph, instead of --density.", FROM_ZERO)
@option("--snr", "Signal-to-noise ratio ||F||^2 / (L sigma)^2. Default: 1.", POSITIVE)
@option(
    "--noise-std",
    "Standard deviation of the noise, in units of TARGET, instead of --snr.",
    click.FloatRange(min=0),
)
@option(
    "--rotations",
    "Equally spaced rotations of a copy, or any angle. Default: 4; 1 of a TARGET that is no square.",
    _Rotations(),
    None,
    metavar="K|continuous",
)
@option("--mirror", "Half of the copies show the mirror image of TARGET.", is_flag=True)
@option("--subpixel", "Copies lie anywhere between pixels.", is_flag=True)
@option(
    "--amplitude-std",
    "Standard deviation of the amplitudes of copies, which are log-normal with mean 1.",
    click.FloatRange(min=0),
    0.0,
    metavar="S",
)
@option(
    "--min-separation",
    "Smallest distance of two copies, pixels. Default: two boxes.",
    COUNT,
    metavar="D",
)
@option("--micrographs", "Number of micrographs.", COUNT, 1)
@option("--seed", "Seed of all random numbers.", FROM_ZERO, 0)
@force_option
@json_option
def command(
    target: str,
    output: Path,
    box_size: int,
    size: tuple[int, int] | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Place copies of TARGET at random and add white noise. TARGET is 'glyph' (or 'glyph:5', the sixth of this seed) or
    an image file; a .npy file of one axis is the motif of a signal. The measurement keeps the truth for `mtd evaluate`.
    """
    import mtdcore as mtd

    from ..run.output import refuse_output

    refuse_output(output, force, [Path(target)])
    image = _image(target, box_size, given["seed"])
    if given["density"] is None and given["count"] is None:
        given["density"] = 0.1
    if given["snr"] is None and given["noise_std"] is None:
        given["snr"] = 1.0
    high, wide = image.shape
    shape = size or ((11 * high, 11 * high) if high == wide else (high, 121 * wide))
    simulation = mtd.simulate(image, shape=shape, path=output, overwrite=force, **given)
    emit(
        {
            "measurement": str(output),
            "micrographs": simulation.measurement.shape[0],
            "height": shape[0],
            "width": shape[1],
            "copies": len(simulation.positions),
            "noise_std": simulation.noise_std,
        },
        as_json,
    )


def _image(target: str, box_size: int, seed: int) -> np.ndarray:
    from mtdcore.errors import ParameterError, StorageError
    from mtdcore.synthetic.glyphs import glyphs

    from ..inputs.sources import read_image

    name, _, number = target.partition(":")
    if name != "glyph":
        if not Path(target).exists():
            raise StorageError(
                f"TARGET should be 'glyph', 'glyph:N' or an image file; there is no file {target}."
            )
        return read_image(Path(target))
    if number and not number.isdecimal():
        raise ParameterError(f"TARGET should be 'glyph', 'glyph:N' or an image file; got {target!r}.")
    index = int(number or 0)
    image: np.ndarray = glyphs(index + 1, box_size, seed)[index]
    return image
