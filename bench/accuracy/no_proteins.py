"""What the prior of proteins does to things that are no proteins: digits, rings and gold beads.

    python bench/accuracy/no_proteins.py mnist.npz

Two tables: the error of its denoiser (mean of ||D(x + s n; s) - x|| / ||x|| over noise draws, s in root mean squares of the image),
where doing nothing has the error s; and E_s of recoveries at side 11 L without a prior and with it, where "harm" would be a
larger error with it.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge import load_prior
from mtdcore.model.priors import denoise
from mtdcore.results.metrics import forgiven_shift, relative_error

SIDE, LEVELS, DRAWS = 28, (0.1, 0.3, 1.0), 8


def ring(radius: float, width: float) -> np.ndarray:
    """A ring with edges one pixel wide."""
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    distance = np.hypot(offset[:, None], offset)
    return np.clip(width / 2 + 0.5 - np.abs(distance - radius), 0.0, 1.0)


def bead(radius: float) -> np.ndarray:
    """A gold bead: the thickness of a ball, which projections of dense metal show, far brighter than its surroundings."""
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    square = offset[:, None] ** 2 + offset**2
    return np.asarray(np.sqrt(np.maximum(radius**2 - square, 0.0)) / radius)


def objects(images: str) -> dict[str, np.ndarray]:
    """Name -> (28, 28), root mean square 1."""
    with np.load(images) as data:
        labels, digits = data["test_labels"], data["test_images"] / 255.0
    found = {f"digit {d}": digits[np.flatnonzero(labels == d)[0]] for d in (3, 8)}
    found |= {"ring": ring(8.0, 2.0), "bead": bead(5.0)}
    return {name: image / np.sqrt(np.mean(image**2)) for name, image in found.items()}


def denoised(image: np.ndarray, level: float, prior: mtd.Prior) -> float:
    """Relative error of the denoiser, mean over noise draws."""
    noisy = image + level * np.random.default_rng(0).standard_normal((DRAWS, *image.shape))
    errors = np.linalg.norm(denoise(prior, noisy, level) - image, axis=(1, 2))
    return float(errors.mean() / np.linalg.norm(image))


def recovered(image: np.ndarray, snr: float, prior: mtd.Prior | None) -> float:
    """E_s of a recovery."""
    made = mtd.simulate(image, side=11 * SIDE, density=0.1, snr=snr, rotations=4, seed=0)
    found = mtd.recover(made.measurement, box_size=SIDE, rotations=4, noise_std=made.noise_std, prior=prior)
    return relative_error(found.target, image, 4, forgiven_shift(SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help=".npz with test_images and test_labels")
    parser.add_argument("--snr", type=float, nargs="*", default=[0.5, 0.1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("proteins-2d", box_size=SIDE)
    things = objects(options.images)
    for name, image in things.items():
        errors = ", ".join(f"s {level:g}: {denoised(image, level, prior):.3f}" for level in LEVELS)
        print(f"denoiser, {name}: {errors}", flush=True)
    for snr in options.snr:
        for name, image in things.items():
            alone, helped = (recovered(image, snr, p) for p in (None, prior))
            print(f"SNR {snr:g}, {name}: E_s {alone:.3f} without a prior, {helped:.3f} with it", flush=True)


if __name__ == "__main__":
    main()
