"""Micrographs as they come, of a protein that is known: MRC files and a STAR table, through the command line.

    python bench/microscopy/simulated_volume.py proteins.npz -o simulated [--protein 2] [--seed 0] [--plain]

Nothing of the package makes the pictures: copies are sums of the projected Gaussians of the residues at random rotations. With ``--plain`` they lie on
whole pixels, in white noise, behind the CTF of each micrograph. Without, they lie between pixels and differ in strength (0.15), and each
micrograph has a noise level (0.2), slow noise (a third of the white), a gradient of two noise levels, a bead ten times as bright as a copy, and a gain and an offset of its
own. Dark on light, float32, 4 angstrom per pixel, defocus 0.8 to 2.2 micrometre. SNR is that before the CTF. Structures of the validation part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
from scipy.spatial.transform import Rotation

from mtdcore.model.volumes.grids import ball
from mtdcore.results.volumes import align_volumes, fourier_shell_correlation, shape_correlation

BOX, PIXEL, SIDE, COPIES = 24, 4.0, 400, 30

#: Radius of the particle and width of a residue, pixels.
RADIUS, WIDTH = 0.38 * BOX, 0.055 * BOX

#: 300 kV, spherical aberration of 2.7 mm, in angstrom; amplitude contrast.
WAVELENGTH, ABERRATION, CONTRAST = 0.0196875, 2.7e7, 0.1

OPTICS = f"""
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 {PIXEL} 300.0 2.7 {CONTRAST}

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""


def residues(archive: Path, index: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) places x, y, z in pixels about their centre of mass, and (n,) weights of a validation structure."""
    with np.load(archive, allow_pickle=False) as data:
        size = data["n_residues"]
        fits = (data["split"] == 1) & (size >= 250) & (size <= 400) & ~data["trace"]
        i = int(np.flatnonzero(fits)[index])
        cut = slice(int(data["offset"][i]), int(data["offset"][i + 1]))
        places, weights = data["xyz"][cut].astype(float), data["weight"][cut].astype(float)
    places -= weights @ places / weights.sum()
    return places * (RADIUS / np.linalg.norm(places, axis=1).max()), weights


def _gaussians(at: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(np.exp(-((np.arange(side)[:, None] - at) ** 2) / (2 * WIDTH**2)))


def projected(places: np.ndarray, weights: np.ndarray, row: float, column: float, side: int) -> np.ndarray:
    """(side, side) projection along z with its centre at (row, column)."""
    return np.asarray(
        (_gaussians(row + places[:, 1], side) * weights) @ _gaussians(column + places[:, 0], side).T
    )


def density(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(L, L, L) axes z, y, x."""
    x, y, z = (_gaussians(BOX // 2 + places[:, k], BOX) for k in range(3))
    return np.asarray(np.einsum("zn,yn,xn,n->zyx", z, y, x, weights) / (np.sqrt(2 * np.pi) * WIDTH))


def transfer(defocus: float) -> np.ndarray:
    """(SIDE, SIDE) CTF, bright at low frequencies."""
    squared = np.square(np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE, PIXEL)] * 2, indexing="ij")))
    phase = np.pi * WAVELENGTH * squared * (defocus - 0.5 * ABERRATION * WAVELENGTH**2 * squared)
    return np.asarray(np.sqrt(1 - CONTRAST**2) * np.sin(phase) + CONTRAST * np.cos(phase))


def slow(rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE) noise of amplitude 1 / f and standard deviation 1."""
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2, indexing="ij"))
    frequency[0, 0] = np.inf
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / frequency).real
    return np.asarray(noise / noise.std())


def micrograph(
    places: np.ndarray,
    weights: np.ndarray,
    sigma: float,
    defocus: float,
    plain: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """(SIDE, SIDE) float32 with its copies, noise and units."""
    clean, corners = np.zeros((SIDE, SIDE)), np.empty((0, 2))
    while len(corners) < COPIES:
        at = rng.uniform(0.6 * BOX, SIDE - 0.6 * BOX, 2)
        at = np.rint(at) if plain else at
        if len(corners) == 0 or np.hypot(*(corners - at).T).min() > BOX:
            corners = np.vstack([corners, at])
            turned = places @ Rotation.random(random_state=rng).as_matrix().T
            clean += (1.0 if plain else np.exp(rng.normal(0.0, 0.15))) * projected(
                turned, weights, at[0], at[1], SIDE
            )
    seen = np.fft.ifft2(np.fft.fft2(clean) * transfer(defocus)).real / sigma
    noise = rng.standard_normal((SIDE, SIDE))
    if not plain:
        level, angle = np.exp(rng.normal(0.0, 0.2)), rng.uniform(0, 2 * np.pi)
        row, column = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
        noise = level * (noise + 0.3 * slow(rng)) + 2.0 * (np.cos(angle) * row + np.sin(angle) * column)
        y, x = rng.uniform(-0.4, 0.4, 2)
        noise += 12.0 * (np.hypot(row - y, column - x) * SIDE < 9)
    return (rng.uniform(900, 1100) - rng.uniform(40, 60) * (seen + noise)).astype(np.float32)


def write(folder: Path, archive: Path, options: argparse.Namespace) -> np.ndarray:
    """Make the micrographs and their table in ``folder``; the true volume."""
    rng = np.random.default_rng(options.seed)
    places, weights = residues(archive, options.protein)
    turns = Rotation.random(50, random_state=rng).as_matrix()
    energy = [np.mean(projected(places @ t.T, weights, BOX // 2, BOX // 2, BOX) ** 2) for t in turns]
    sigma = float(np.sqrt(np.mean(energy) / options.snr))
    folder.mkdir(parents=True, exist_ok=True)
    table = OPTICS
    for m in range(options.micrographs):
        defocus = rng.uniform(8000, 22000)
        with mrcfile.new(folder / f"m{m:03d}.mrc", overwrite=True) as file:
            file.set_data(micrograph(places, weights, sigma, defocus, options.plain, rng))
            file.voxel_size = PIXEL
        table += f"m{m:03d}.mrc 1 {defocus:.2f} {defocus:.2f} 0.0\n"
    (folder / "micrographs_ctf.star").write_text(table)
    return density(places, weights)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="points, weights and parts of structures")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--protein", type=int, default=2)
    parser.add_argument("--snr", type=float, default=2.0)
    parser.add_argument("--micrographs", type=int, default=12)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recover", default="", help="more options of mtd recover")
    options = parser.parse_args()
    truth = write(options.output / "micrographs", options.archive, options)

    def mtd(*words: object) -> None:
        command = [Path(sys.executable).with_name("mtd"), *words]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)

    imported, run = options.output / "micrographs.zarr", options.output / "run"
    mtd("import", options.output / "micrographs/micrographs_ctf.star", "--invert", "-o", imported, "--force")
    more = ["--volume", "--box-size", BOX, "--no-halves", *options.recover.split()]
    mtd("recover", imported, "-o", run, *more, "--force")
    with mrcfile.open(run / "volume.mrc") as file:
        aligned = align_volumes(file.data.astype(float), truth)
    curve = fourier_shell_correlation(aligned.volume * ball(BOX), truth)
    result = json.loads((run / "run.json").read_text())["result"]
    print(
        f"shape {shape_correlation(aligned.volume, truth):.3f}, correlation {aligned.correlation:.3f}, shells",
        *(f"{c:.2f}" for c in curve.correlation[1:8]),
        f"; {result['copies']:.0f} copies of {options.micrographs * COPIES}, {result['evidence']:.0f} nats, J {result['orientation_information']:.1f}",
    )


if __name__ == "__main__":
    main()
