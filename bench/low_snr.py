"""Below the published range: digits in large measurements (side 44 L, 195 copies), window method, shipped prior.

python bench/low_snr.py mnist.npz --snr 0.05 --snr 0.03
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge import load_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help=".npz with test_images and test_labels")
    parser.add_argument("--snr", type=float, action="append")
    parser.add_argument("--boxes", type=int, default=44, help="side of the measurement in boxes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.images) as data:
        labels, images = data["test_labels"], data["test_images"] / 255.0
    prior = load_prior("mnist")
    for snr in options.snr or [0.05]:
        errors = []
        for digit in range(10):
            target = images[np.flatnonzero(labels == digit)[0]]
            made = mtd.simulate(
                target, side=options.boxes * 28, density=0.1, snr=snr, rotations=4, seed=digit
            )
            found = mtd.recover(
                made.measurement, box_size=28, rotations=4, noise_std=made.noise_std, prior=prior
            )
            errors.append(mtd.relative_error(found.target, target, max_shift=6))
            print(
                f"SNR {snr:g}, digit {digit}: E {mtd.relative_error(found.target, target):.3f}, E_s {errors[-1]:.3f}, "
                f"{found.expected_count:.0f} copies, {found.evidence:.0f} nats",
                flush=True,
            )
        print(f"SNR {snr:g}: mean E_s {np.mean(errors):.3f}, largest {max(errors):.3f}")


if __name__ == "__main__":
    main()
