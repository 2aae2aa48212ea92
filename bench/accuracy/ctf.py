"""Micrographs with a CTF and coloured noise: recovery with whitening and CTF on, beside off, from warm and from cold starts.

    python bench/accuracy/ctf.py [--seeds N] [--snr S ...] [--micrographs M]

Copies of a glyph in a box of 40 pixels (4 angstrom each), eleven on each of four micrographs of 256 x 256 pixels with defocus from 1.2 to 2.4
micrometre and some astigmatism, contrast as recorded (dark); the noise falls as 0.2 + 1 / (1 + f / 0.05), on a slow background. SNR is
that of the copies, after the CTF, against the noise, both per pixel of the box. Written as MRC files with a STAR list, read back,
prepared and recovered (40 iterations, four rotations, no prior): *warm* from the glyph blurred by 4 pixels, *cold* from the default
start, random pixels. Scores, each the Pearson correlation with the glyph, best over rotations and shifts of +-6 pixels: of the warm start,
of the recovered images, and of the plain average of the windows at the true poses.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import mrcfile
import numpy as np
from scipy import fft, ndimage

import mtdcore
from mtdcore._base.numerics.fourier import radial_frequencies
from mtdcore.data.micrographs.measurement import open_micrographs
from mtdcore.data.micrographs.star import write_star
from mtdcore.data.preparation.ctf import Ctf
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.mstep.wiener import WienerUpdate
from mtdcore.results.metrics import correlation

BOX, GLYPH, SIDE, PIXEL = 40, 24, 256, 4.0

#: Grey values per unit of the glyph.
GREY = 30.0


def project(
    folder: Path, seed: int, snr: float, micrographs: int = 4
) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """The STAR list of the files written; the glyph in its box; corners and rotations of its copies."""
    rng = np.random.default_rng(seed)
    glyph = np.pad(mtdcore.synthetic.glyphs.glyphs(1, GLYPH, seed)[0], (BOX - GLYPH) // 2)
    sim = mtdcore.simulate(
        glyph,
        side=SIDE,
        density=0.25,
        noise_std=0.0,
        separation=0.75,
        micrographs=micrographs,
        seed=seed,
        dtype="float64",
    )
    f = radial_frequencies((SIDE, SIDE)).astype(np.float64)
    colour = 0.2 + 1 / (1 + f / 0.05)
    rows = np.linspace(-1, 1, SIDE)
    rolling = rows[:, None] ** 2 + 0.5 * rows
    ctfs = [Ctf(d + 400, d - 400, 37 * i) for i, d in enumerate(np.linspace(12000, 24000, micrographs))]
    table: dict[str, list[object]] = {
        "rlnMicrographName": [],
        "rlnMicrographPixelSize": [PIXEL] * micrographs,
    }
    for i, (clean, ctf) in enumerate(zip(sim.measurement.array, ctfs, strict=True)):
        grid = ctf.grid(clean.shape, PIXEL)
        seen = fft.irfft2(fft.rfft2(clean) * grid, clean.shape)
        alone = fft.irfft2(fft.rfft2(np.pad(glyph, BOX)) * ctf.grid((3 * BOX,) * 2, PIXEL), (3 * BOX,) * 2)
        power = np.mean(alone[BOX:-BOX, BOX:-BOX] ** 2)
        noise = fft.irfft2(fft.rfft2(rng.normal(size=clean.shape)) * colour, clean.shape)
        noise *= np.sqrt(power / snr) / noise.std()
        name = f"m{i}.mrc"
        pixels = 500 + GREY * (seen + noise + 3 * noise.std() * rolling)
        mrcfile.write(folder / name, pixels.astype(np.float32), overwrite=True, voxel_size=PIXEL)
        table["rlnMicrographName"].append(name)
        for label, value in {
            "rlnDefocusU": ctf.defocus_u,
            "rlnDefocusV": ctf.defocus_v,
            "rlnDefocusAngle": ctf.defocus_angle,
            "rlnVoltage": ctf.voltage,
            "rlnSphericalAberration": ctf.spherical_aberration,
            "rlnAmplitudeContrast": ctf.amplitude_contrast,
        }.items():
            table.setdefault(label, []).append(value)
    write_star(folder / "micrographs.star", "micrographs", table)
    return folder / "micrographs.star", glyph, sim.positions, sim.rotation_indices


def score(image: np.ndarray, glyph: np.ndarray) -> float:
    return max(correlation(np.rot90(image, k), glyph, max_shift=6) for k in range(4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.3])
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--starts", type=int, default=1, help="cold starts that race")
    options = parser.parse_args()
    print(" SNR  seed  whitening  CTF     warm    cold   true poses   copies, warm and cold (true)")
    seeds = range(options.first, options.first + options.seeds)
    for snr, seed in itertools.product(options.snr, seeds):
        with tempfile.TemporaryDirectory() as folder:
            star, glyph, positions, turns = project(Path(folder), seed, snr, options.micrographs)
            start = ndimage.gaussian_filter(glyph, 4.0)
            print(f"{snr:4}  {seed:4}  start          {score(start, glyph):9.3f}")
            for whiten, ctf in itertools.product((True, False), repeat=2):
                source = open_micrographs(star, Preparation(whiten=whiten, flip_phases=ctf))
                prepared = [source.preparation.read(one) for one in source.micrographs]
                stack = np.stack([one.pixels for one in prepared])
                transfer = np.stack([one.transfer for one in prepared])
                facts = (
                    None
                    if (transfer == 1).all()
                    else mtdcore.Micrographs(np.ones(len(stack)), transfer=transfer)
                )
                begin = start * GREY / np.median([one.scale for one in prepared])
                warm, cold = (
                    mtdcore.recover(
                        stack,
                        box_size=BOX,
                        min_separation=30,
                        initial=initial,
                        starts=None if initial is begin else options.starts,
                        update=WienerUpdate(),
                        iterations=40,
                        micrographs=facts,
                        noise="white",
                        backend="cpu",
                    )
                    for initial in (begin, None)
                )
                windows = [
                    np.rot90(stack[m, r : r + BOX, c : c + BOX], -k)
                    for (m, r, c), k in zip(positions, turns, strict=True)
                ]
                print(
                    f"{snr:4}  {seed:4}  {'on' if whiten else 'off':9}  {'on' if ctf else 'off':4}{score(warm.target, glyph):8.3f}"
                    f"{score(cold.target, glyph):8.3f}{score(np.mean(windows, axis=0), glyph):13.3f}   "
                    f"{warm.expected_count:.0f}, {cold.expected_count:.0f} ({len(positions)})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
