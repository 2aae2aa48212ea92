"""Beta-galactosidase from its micrographs, cold start, no picking; the known structure is looked at once the volume stands.

    python bench/microscopy/betagal_volume.py path/to/betagal.npz --pictures 1 2 3 4 5 6 7 --starts 2 -o figures/

    mtd import path/to/betagal.npz --key 'micrograph/0[1-7]' --pixel-size 7.08 --invert -o measurement.zarr
    mtd recover measurement.zarr --volume --box-size 32 --symmetry D2 --diameter 25 --band 0.22 -o run
    python bench/microscopy/betagal_volume.py path/to/betagal.npz --run run

The first command cuts the most even crop of each picture and whitens it beforehand; the others take the pictures whole, as users do, and score
the map of that run. The pictures (EMPIAR-10017 through CryoSegNet, 7.08 angstrom per pixel) had been denoised before, so frequencies above 0.22 cycles per
pixel (32 angstrom) hold nothing: they are left alone. Noise is whitened by a radial spectrum of the blocks with the least structure.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from mtdcore.em.volumes.plan import VolumePlan
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.model.volumes.grids import ball, filtered, low_passed
from mtdcore.model.volumes.maps import read_map, write_map
from mtdcore.results.volumes import (
    align_volumes,
    cosine,
    fourier_shell_correlation,
    matched_to,
    shape_correlation,
)

BOX, SEPARATION, DIAMETER, VOXEL, BAND = 32, 17, 28.0, 7.08, 0.22


def prepared(picture: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright particles, no background, the most even crop, white noise of standard deviation 1; and the filter that made it white.

    The filter is given by its amplitudes at 0, 1/64, 2/64, ... cycles per pixel.
    """
    flat = -picture.astype(np.float64)
    flat -= gaussian_filter(flat, 24)
    variance = uniform_filter(flat**2, 48)
    best, corner = np.inf, (0, 0)
    for row in range(0, flat.shape[0] - side + 1, 16):
        for column in range(0, flat.shape[1] - side + 1, 16):
            seen = variance[row + 24 : row + side - 24 : 12, column + 24 : column + side - 24 : 12]
            unevenness = seen.std() / seen.mean()
            if unevenness < best:
                best, corner = unevenness, (row, column)
    crop = flat[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    blocks = np.lib.stride_tricks.sliding_window_view(crop, (64, 64))[::16, ::16].reshape(-1, 64, 64)
    passed = gaussian_filter(crop, 2) - gaussian_filter(crop, 10)
    energy = (
        np.lib.stride_tricks.sliding_window_view(passed**2, (64, 64))[::16, ::16].mean(axis=(2, 3)).ravel()
    )
    quiet = blocks[np.argsort(energy)[: max(4, len(blocks) // 10)]]
    window = np.hanning(64)[:, None] * np.hanning(64)
    power = np.mean(
        np.abs(np.fft.fft2((quiet - quiet.mean(axis=(1, 2), keepdims=True)) * window)) ** 2, axis=0
    )
    power /= np.sum(window**2)
    line = np.fft.fftfreq(64)
    ring = np.rint(np.hypot(line[:, None], line) * 64).astype(int)
    radial = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    # Beyond 0.19 cycles per pixel the pictures hold next to nothing: dividing by it would invent noise there.
    radial = np.maximum(radial, radial[12])
    f = np.fft.fftfreq(side)
    noise = np.interp(np.hypot(f[:, None], f) * 64, np.arange(len(radial)), radial)
    white = np.fft.ifft2(np.fft.fft2(crop) / np.sqrt(noise)).real.astype(np.float32)
    return white, 1.0 / np.sqrt(radial)


def reference(data: np.lib.npyio.NpzFile) -> np.ndarray:
    """The known structure on the voxels of the run."""
    given = data["reference_map"].astype(np.float64)
    cube = np.zeros((64, 64, 64))
    low = [32 - n // 2 for n in given.shape]
    cube[tuple(slice(a, a + n) for a, n in zip(low, given.shape, strict=True))] = given
    spectrum = np.fft.fftn(np.fft.ifftshift(cube))
    kept = np.r_[0:16, -15:0]
    small = np.zeros((32, 32, 32), complex)
    small[np.ix_(kept, kept, kept)] = spectrum[np.ix_(kept, kept, kept)]
    return np.fft.fftshift(np.fft.ifftn(small).real) * ball(BOX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7])
    parser.add_argument("--side", type=int, default=400)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--symmetry", default="D2")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="score this folder of mtd recover --volume")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    data = np.load(options.data)
    if options.run is not None:
        score_run(data, options.run, options.output)
        return
    both = [prepared(data[f"micrograph/{i:02d}"], options.side) for i in options.pictures]
    pixels = np.stack([white for white, _ in both])
    plan = VolumePlan(
        BOX,
        options.symmetry,
        iterations=options.iterations,
        first_band=0.09,
        last_band=BAND,
        cooling=0.0,
        whole=0.25,
        seed=options.seed,
    )

    def said(state: object) -> None:
        print(json.dumps({k: round(v, 3) for k, v in vars(state.history[-1]).items()}), flush=True)  # type: ignore[attr-defined]

    began = time.process_time()
    found = recover_volume(
        pixels,
        box_size=BOX,
        noise_std=1.0,
        min_separation=SEPARATION,
        diameter=DIAMETER,
        plan=plan,
        starts=options.starts,
        callback=said,
    )
    seconds = time.process_time() - began
    # The volume is that of filtered pictures: what the filter did is undone for the second map.
    amplitude = np.mean([white for _, white in both], axis=0)
    shell = np.arange(29) / BOX
    undone = np.interp(shell * 64, np.arange(len(amplitude)), 1.0 / amplitude)
    placed, wanted, scores = compared(found.volume, data)
    plain = filtered(found.volume, undone)
    _, _, unfiltered = compared(plain, data)
    print(
        json.dumps(
            {
                "pictures": options.pictures,
                "symmetry": options.symmetry,
                "copies": round(found.expected_count),
                "evidence": round(found.evidence),
                "cpu_seconds": round(seconds),
                "shape_unfiltered": unfiltered["shape"],
            }
            | scores
        )
    )
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        write_map(options.output / "betagal.mrc", placed, VOXEL)
        write_map(options.output / "betagal_unfiltered.mrc", plain, VOXEL)
        write_map(options.output / "reference.mrc", wanted, VOXEL)
        draw(placed, wanted, options.output / "sections.png")


def compared(
    volume: np.ndarray, data: np.lib.npyio.NpzFile
) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    """A map on the known one, that one as far as a run sees, and scores.

    The pictures had been denoised: how strong a shell is tells of that, not of the particle. So the map has the power of the known one in
    each shell before it is turned (*matched*); shells as strong as they came are scored beside it.
    """
    # Only now the known structure.
    wanted = low_passed(reference(data), BAND)
    seen = low_passed(volume, BAND)
    aligned = align_volumes(matched_to(seen, wanted), wanted)
    placed = aligned.volume
    curve = fourier_shell_correlation(placed * ball(BOX), wanted)
    scores = {
        "correlation": round(cosine(placed * ball(BOX), wanted), 3),
        "shape_matched": round(shape_correlation(placed, wanted, DIAMETER), 3),
        "shape": round(shape_correlation(aligned.applied(seen), wanted, DIAMETER), 3),
        "mirrored": aligned.mirrored,
        "fsc": [round(float(c), 2) for c in curve.correlation[:9]],
        "angstrom_at_half": round(VOXEL * curve.resolution(0.5), 1),
    }
    return placed, wanted, scores


def score_run(data: np.lib.npyio.NpzFile, run: Path, output: Path | None) -> None:
    """Print the scores of the map of a run of the command line, in which the filter of the noise is undone already."""
    placed, wanted, scores = compared(read_map(run / "volume.mrc")[0], data)
    result = json.loads((run / "run.json").read_text())["result"]
    print(json.dumps({"copies": round(result["copies"]), "evidence": round(result["evidence"])} | scores))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        draw(placed, wanted, output / "sections.png")


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
