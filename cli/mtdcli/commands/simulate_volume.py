"""``mtd simulate --volume``: micrographs of a volume with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal.console import emit, force_option, json_option
from ..terminal.options import COUNT, FROM_ZERO, POSITIVE, Shape, measurement_output, option

if TYPE_CHECKING:
    import numpy as np

    from mtdcore.synthetic.volumes import Gaussians

_STRUCTURES = (".pdb", ".ent", ".cif", ".mmcif")


@click.command()
@click.argument("target")
@measurement_output
@option("--box-size", "Side of the box, pixels. Default: that of a map, 16 otherwise.", click.IntRange(min=8))
@option("--voxel-size", "Angstrom, of a structure file. Default: its radius becomes 0.4 boxes.", POSITIVE)
@option("--resolution", "Angstrom, of a structure file. Default: 3.5 voxels.", POSITIVE)
@option("--size", "Pixels of a micrograph, HxW or one number. Default: a density of 0.35.", Shape())
@option("--count", "Copies in each micrograph.", COUNT, 40)
@option("--micrographs", "Number of micrographs.", COUNT, 8)
@option("--snr", "Signal-to-noise ratio, mean of ||A_t V||^2 / (L sigma)^2. Default: 1.", POSITIVE)
@option("--noise-std", "Standard deviation of the noise, instead of --snr.", click.FloatRange(min=0))
@option("--min-separation", "Smallest distance of two copies, pixels. Default: the box.", COUNT)
@option("--subpixel", "Copies lie anywhere between pixels.", is_flag=True)
@option(
    "--amplitude-std",
    "Standard deviation of the amplitudes of the copies, log-normal with mean 1.",
    click.FloatRange(min=0),
    0.0,
)
@option("--seed", "Same seed, same bits.", FROM_ZERO, 0)
@force_option
@json_option
def command(
    target: str,
    output: Path,
    box_size: int | None,
    voxel_size: float | None,
    resolution: float | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Project TARGET in random directions to random places and add white noise. TARGET is 'protein' (or 'protein:5': a chain of
    60 residues, the sixth of them), a cubic MRC map, or a PDB or mmCIF file.
    """
    from mtdcore.synthetic.particles import simulate_volume

    from ..run.folder import refuse_to_replace

    refuse_to_replace(output, force)
    thing, side, size = _thing(target, box_size, voxel_size, resolution)
    if given["snr"] is None and given["noise_std"] is None:
        given["snr"] = 1.0
    made = simulate_volume(thing, box_size=side, **given)
    made.save(output, force, size)
    emit(
        {
            "measurement": str(output),
            "micrographs": made.pixels.shape[0],
            "height": made.pixels.shape[1],
            "width": made.pixels.shape[2],
            "box_size": side,
            "copies": len(made.positions),
            "noise_std": made.noise_std,
        },
        as_json,
    )


def _thing(
    target: str, box_size: int | None, voxel_size: float | None, resolution: float | None
) -> tuple[np.ndarray | Gaussians, int, float | None]:
    """The volume or Gaussians to project, the side of the box, and the voxel size in angstrom (None: unknown)."""
    from mtdcore.errors import ParameterError, StorageError
    from mtdcore.model.volumes.maps import read_map
    from mtdcore.synthetic.coordinates import density, read_atoms
    from mtdcore.synthetic.volumes import chain

    name, _, number = target.partition(":")
    side = box_size or 16
    if name == "protein":
        if number and not number.isdecimal():
            raise ParameterError(f"TARGET should be 'protein' or 'protein:N'; got {target!r}.")
        return chain(side, int(number or 0)), side, None
    if not Path(target).exists():
        raise StorageError(
            f"TARGET should be 'protein', 'protein:N', a map or a structure file; there is no file {target}."
        )
    if Path(target).suffix.lower() in _STRUCTURES:
        places, electrons = read_atoms(target)
        return density(places, electrons, side, voxel_size, resolution), side, voxel_size
    volume, size = read_map(target)
    if box_size not in (None, len(volume)):
        raise ParameterError(
            f"the map {target} has a side of {len(volume)} voxels; got --box-size {box_size}."
        )
    return volume, len(volume), size
