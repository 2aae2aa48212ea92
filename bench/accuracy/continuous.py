"""Copies at any angle: MNIST digits, side 11 L, density 0.1, window method, shipped prior, local search over angles.

python bench/accuracy/continuous.py mnist.npz --seeds 3

Every run prints a line as soon as it is done. Errors are minimised over the angle (1 degree) and over shifts of up to
6 pixels. The floor is the plain average of the copies at their true places and angles, denoised.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge import load_prior
from mtdcli.reproduce.cases import digit_experiment, pixels_of
from mtdcore.model.priors import denoise
from mtdcore.model.rotations import rotate
from mtdcore.synthetic.simulate import Simulation

_DEGREES, _SHIFT = 360, 6


def floor(made: Simulation, prior: mtd.Prior) -> np.ndarray:
    """(L, L) average of the copies, cut out and turned back, and denoised."""
    side, pixels = len(made.target), pixels_of(made).astype(np.float64)
    copies = [
        rotate(pixels[row : row + side, column : column + side], [-angle])[0]
        for (_, row, column), angle in zip(made.positions, made.angles, strict=True)
    ]
    level = made.noise_std / math.sqrt(len(copies))
    return np.asarray(denoise(prior, np.mean(copies, axis=0)[None], level)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help=".npz with train_images, test_images and test_labels")
    parser.add_argument("--snr", type=float, action="append", help="default: 1 and 0.3")
    parser.add_argument("--seeds", type=int, default=3, help="measurements of each digit")
    parser.add_argument("--digits", type=int, default=10)
    parser.add_argument("--rotations", type=int, default=72)
    parser.add_argument("--iterations", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("mnist")
    errors: dict[float, list[tuple[float, float]]] = {}
    for case in digit_experiment(options.digits, options.images).cases(
        options.snr or [1.0, 0.3], options.seeds
    ):
        made = mtd.simulate(
            case.image, side=308, density=0.1, snr=case.snr, rotations="continuous", seed=case.seed
        )
        began = time.perf_counter()
        found = mtd.recover(
            made.measurement,
            box_size=28,
            rotations=options.rotations,
            coarse_rotations="auto",
            noise_std=made.noise_std,
            prior=prior,
            iterations=options.iterations,
            backend=mtd.get_backend("cpu", threads=1),
        )
        seconds = time.perf_counter() - began
        ours, best = (
            mtd.relative_error(image, made.target, _DEGREES, _SHIFT)
            for image in (found.target, floor(made, prior))
        )
        errors.setdefault(case.snr, []).append((ours, best))
        print(
            f"SNR {case.snr:g}, digit {case.target}, measurement {case.repeat}: {ours:.3f}, floor {best:.3f}, "
            f"{found.expected_count:.1f} copies, {found.evidence:.0f} nats, {seconds:.0f} s",
            flush=True,
        )
    for snr, pairs in errors.items():
        ours, best = np.mean(pairs, axis=0)
        spread = (
            np.std([pair[0] for pair in pairs], ddof=1) / math.sqrt(len(pairs))
            if len(pairs) > 1
            else math.nan
        )
        print(f"SNR {snr:g}: mean {ours:.3f} +- {spread:.3f} of {len(pairs)}, floor {best:.3f}")


if __name__ == "__main__":
    main()
