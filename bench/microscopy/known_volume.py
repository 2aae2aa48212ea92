"""The volume of a run of the command line beside a known structure, which is looked at once the run is done.

    mtd import betagal.npz --key 'micrograph/0[1-7]' --pixel-size 7.08 --invert -o betagal.zarr
    mtd recover betagal.zarr --volume --box-size 32 --symmetry D2 --diameter 28 --band 0.22 -o betagal
    python bench/microscopy/known_volume.py betagal --map betagal.npz --diameter 28 --band 0.22 -o figures

    mtd import apoferritin.npz --key 'frame_average/*' --pixel-size 6 --invert -o apoferritin.zarr
    mtd recover apoferritin.zarr --volume --box-size 24 --symmetry O --diameter 21 -o apoferritin
    python bench/microscopy/known_volume.py apoferritin --structure proteins.npz 4v1w --diameter 21 -o figures

Beta-galactosidase (EMPIAR-10017 through CryoSegNet, 7.08 angstrom per pixel) had been denoised before: frequencies above 0.22 cycles per
pixel (32 angstrom) hold nothing and are left alone.

Micrographs that were denoised, or binned, say little of how strong a shell of the particle is. So the map has the power of the known one
in each shell before it is turned (*matched*); the shape with shells as strong as they came is given beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mtdcore.model.volumes.grids import ball, low_passed
from mtdcore.model.volumes.maps import read_map, write_map
from mtdcore.results.volumes import (
    align_volumes,
    cosine,
    fourier_shell_correlation,
    matched_to,
    shape_correlation,
)
from mtdcore.synthetic.volumes import Gaussians

#: Standard deviation of the density of a point of a structure, voxels of the run.
_BLUR = 0.7


def from_map(archive: Path, side: int, voxel: float) -> np.ndarray:
    """``reference_map`` of an archive in the box of the run, cut from its spectrum."""
    with np.load(archive) as data:
        given, own = data["reference_map"].astype(np.float64), float(data["reference_map_voxel"])
    large = round(side * voxel / own)
    cube = np.zeros((large,) * 3)
    cube[tuple(slice(large // 2 - n // 2, large // 2 - n // 2 + n) for n in given.shape)] = given
    spectrum = np.fft.fftn(np.fft.ifftshift(cube))
    kept = np.r_[0 : (side + 1) // 2, 1 - (side + 1) // 2 : 0]  # without the frequency at the edge
    grid = np.ix_(*[kept % side] * 3)
    small = np.zeros((side,) * 3, complex)
    small[grid] = spectrum[np.ix_(*[kept % large] * 3)]
    return np.fft.fftshift(np.fft.ifftn(small).real) * ball(side)


def from_structure(archive: Path, name: str, side: int, voxel: float) -> np.ndarray:
    """A structure of an archive of points as density in the box of the run."""
    with np.load(archive, allow_pickle=False) as data:
        i = int(np.flatnonzero(np.char.lower(data["pdb_id"]) == name.lower())[0])
        cut = slice(int(data["offset"][i]), int(data["offset"][i + 1]))
        places, weights = data["xyz"][cut].astype(float), data["weight"][cut].astype(float)
    places = places - weights @ places / weights.sum()
    return Gaussians.of(places / voxel, _BLUR, weights).volume(side) * ball(side)


def compared(
    volume: np.ndarray, known: np.ndarray, voxel: float, diameter: float | None
) -> tuple[np.ndarray, dict[str, object]]:
    """A map on the known one, and its scores."""
    aligned = align_volumes(matched_to(volume, known), known)
    placed, support = aligned.volume, ball(len(known))
    curve = fourier_shell_correlation(placed * support, known)
    aspherical = fourier_shell_correlation(placed * support, known, "aspherical")
    shown = len(known) // 2
    return placed, {
        "correlation": round(cosine(placed * support, known), 3),
        "shape_matched": round(shape_correlation(placed, known, diameter), 3),
        "shape": round(shape_correlation(aligned.applied(volume), known, diameter), 3),
        "mirrored": aligned.mirrored,
        "fsc": [round(float(c), 2) for c in curve.correlation[:shown]],
        "fsc_aspherical": [round(float(c), 2) for c in aspherical.correlation[:shown]],
        "angstrom_at_half": round(voxel * curve.resolution(0.5), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of mtd recover --volume")
    known = parser.add_mutually_exclusive_group(required=True)
    known.add_argument("--map", type=Path, help="archive with reference_map")
    known.add_argument("--structure", nargs=2, metavar=("ARCHIVE", "PDB"), help="points, and their name")
    parser.add_argument("--diameter", type=float, help="of the particle in pixels; default: the box")
    parser.add_argument("--band", type=float, default=0.5, help="cycles per pixel that are compared")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    volume, voxel = read_map(options.run / "volume.mrc")
    side = len(volume)
    if options.map is not None:
        wanted = from_map(options.map, side, voxel)
    else:
        wanted = from_structure(Path(options.structure[0]), options.structure[1], side, voxel)
    wanted = low_passed(wanted, options.band)
    placed, scores = compared(low_passed(volume, options.band), wanted, voxel, options.diameter)
    result = json.loads((options.run / "run.json").read_text())["result"]
    print(json.dumps({"copies": round(result["copies"]), "evidence": round(result["evidence"])} | scores))
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        write_map(options.output / "placed.mrc", placed, voxel)
        write_map(options.output / "known.mrc", wanted, voxel)
        draw(placed, wanted, options.output / "sections.png")


def draw(recovered: np.ndarray, known: np.ndarray, path: Path) -> None:
    """Central sections and projections of both maps as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.9), layout="tight")
    axes = figure.subplots(2, 6)
    for row, (volume, name) in zip(axes, ((recovered, "recovered"), (known, "known map")), strict=True):
        middle = len(volume) // 2
        images = [volume.take(middle, axis) for axis in range(3)] + [volume.sum(axis) for axis in range(3)]
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image, cmap="gray", interpolation="bicubic")
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    for ax, title in zip(
        axes[0], [f"{kind} {axis}" for kind in ("section", "projection") for axis in "zyx"], strict=True
    ):
        ax.set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
