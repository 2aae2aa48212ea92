"""Two digits in one measurement: both images and their shares (window method, shipped prior; side 44 L, SNR 0.2).

python bench/accuracy/classes.py mnist.npz --digits 3 8 --share 0.5 --share 0.8
"""

from __future__ import annotations

import argparse
from itertools import permutations

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge import load_prior


def mixture(
    targets: np.ndarray, share: float, side: int, snr: float, seed: int
) -> tuple[np.ndarray, float, np.ndarray]:
    """Pixels, noise level and shares of a measurement in which each copy shows target 0 or, less often, target 1."""
    sigma = float(np.sqrt(np.mean(np.square(targets)) / snr))
    made = mtd.simulate(targets[0], side=side, density=0.1, noise_std=sigma, rotations=4, seed=seed)
    pixels = made.measurement.array[0].copy()
    copies = len(made.positions)
    second = np.random.default_rng(seed).permutation(copies)[round(share * copies) :]
    length = targets.shape[1]
    for i in second:
        _, row, column = made.positions[i]
        turned = np.rot90(targets[1] - targets[0], made.rotation_indices[i])
        pixels[row : row + length, column : column + length] += turned
    weights = np.array([copies - len(second), len(second)]) / copies
    return pixels, sigma, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help=".npz with test_images and test_labels")
    parser.add_argument("--digits", type=int, nargs=2, default=(3, 8))
    parser.add_argument("--share", type=float, action="append", help="of the first digit; default .5 and .8")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--example", type=int, default=0, help="which image of a digit")
    parser.add_argument("--boxes", type=int, default=44, help="side of the measurement in boxes")
    parser.add_argument("--snr", type=float, default=0.2)
    parser.add_argument("--starts", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.images) as data:
        labels, images = data["test_labels"], data["test_images"] / 255.0
    targets = np.stack([images[np.flatnonzero(labels == d)[options.example]] for d in options.digits])
    prior = load_prior("mnist")
    for share in options.share or (0.5, 0.8):
        for seed in options.seeds:
            pixels, sigma, weights = mixture(targets, share, options.boxes * 28, options.snr, seed)
            found = mtd.recover(
                pixels,
                box_size=28,
                rotations=4,
                noise_std=sigma,
                prior=prior,
                classes=2,
                starts=options.starts,
                seed=seed,
            )
            assert found.class_weights is not None
            errors, order = min(
                (
                    [
                        mtd.relative_error(found.target[c], t, max_shift=6)
                        for c, t in zip(order, targets, strict=True)
                    ],
                    order,
                )
                for order in permutations(range(2))
            )
            shown = [found.class_weights[c] for c in order]
            print(
                f"{options.digits[0]}:{options.digits[1]} = {weights[0]:.2f}:{weights[1]:.2f}, seed {seed}: "
                f"E_s {errors[0]:.3f} / {errors[1]:.3f}, weights {shown[0]:.3f} / {shown[1]:.3f}, "
                f"{found.expected_count:.0f} copies, {found.evidence:.0f} nats, {len(found.history)} iterations, "
                f"{sum(r.seconds for r in found.history):.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
