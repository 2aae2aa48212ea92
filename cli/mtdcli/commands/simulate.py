"""``mtd simulate``: a measurement with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal.console import emit, force_option, json_option
from ..terminal.options import Shape

if TYPE_CHECKING:
    import numpy as np

_POSITIVE = click.FloatRange(min=0, min_open=True)


class _Rotations(click.ParamType[int | str]):
    name = "K|continuous"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == "continuous" else click.IntRange(min=1).convert(value, param, ctx)


@click.command()
@click.argument("target")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Zarr measurement to write."
)
@click.option(
    "--box-size", type=click.IntRange(min=8), default=28, show_default=True, help="Side of a glyph, pixels."
)
@click.option(
    "--size", type=Shape(), help="Pixels of a micrograph, HxW or one number. Default: 11 boxes square."
)
@click.option("--density", type=_POSITIVE, help="Share of the area that copies cover. Default: 0.1.")
@click.option("--count", type=click.IntRange(min=0), help="Copies in each micrograph, instead of --density.")
@click.option("--snr", type=_POSITIVE, help="Signal-to-noise ratio ||F||^2 / (L sigma)^2. Default: 1.")
@click.option(
    "--noise-std", type=click.FloatRange(min=0), help="Standard deviation of the noise, instead of --snr."
)
@click.option(
    "--rotations",
    type=_Rotations(),
    default="4",
    show_default=True,
    help="Equally spaced rotations, or any angle.",
)
@click.option(
    "--separation",
    type=_POSITIVE,
    default=2.0,
    show_default=True,
    help="Smallest distance of two copies, boxes.",
)
@click.option(
    "--micrographs", type=click.IntRange(min=1), default=1, show_default=True, help="Number of micrographs."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bits."
)
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
    a square image file. The measurement keeps the truth for `mtd evaluate`.
    """
    import mtdcore as mtd

    from ..run.output import refuse_output

    refuse_output(output, force, [Path(target)])
    image = _image(target, box_size, given["seed"])
    if given["density"] is None and given["count"] is None:
        given["density"] = 0.1
    if given["snr"] is None and given["noise_std"] is None:
        given["snr"] = 1.0
    shape = size or (11 * len(image), 11 * len(image))
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
    from mtdcore.errors import ParameterError
    from mtdcore.synthetic.glyphs import glyphs

    from ..inputs.sources import read_image

    name, _, number = target.partition(":")
    if name != "glyph":
        return read_image(Path(target))
    if number and not number.isdecimal():
        raise ParameterError(f"TARGET should be 'glyph', 'glyph:N' or an image file; got {target!r}.")
    index = int(number or 0)
    image: np.ndarray = glyphs(index + 1, box_size, seed)[index]
    return image
