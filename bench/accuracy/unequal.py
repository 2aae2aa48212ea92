"""Micrographs of different noise and with different numbers of copies: one model for each, beside one for all.

    python bench/accuracy/unequal.py [--seeds N]

A target of 6 x 6 uniform pixels times 3; three micrographs of 100 x 100 pixels with twenty copies each (four rotations) and
noise of 0.5, 1 and 1.5, a fourth with noise of 1 and none. Noise and counts are estimated, no prior; from the true image, so that the
weights alone are compared, and with a model of each also cold, from the default start. Relative errors; oracles: the average of the
copies at their true poses, weighed by the inverse variance of their micrographs, and plain.
"""

from __future__ import annotations

import argparse

import numpy as np

import mtdcore as mtd

BOX, NOISE = 6, np.array([0.5, 1.0, 1.5, 1.0])


def project(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Target, (4, 100, 100) pixels, copies turned back, and the noise of their micrographs."""
    rng = np.random.default_rng(seed)
    target = 3.0 * rng.uniform(size=(BOX, BOX))
    made = mtd.simulate(
        target, side=100, count=20, noise_std=0.0, micrographs=4, separation=1, seed=seed, dtype="float64"
    )
    pixels = made.measurement.array.copy()
    pixels[3] = 0.0
    pixels += NOISE[:, None, None] * rng.normal(size=pixels.shape)
    poses = [
        (place, k)
        for place, k in zip(made.positions, made.rotation_indices, strict=True)
        if place[0] < 3  # the fourth has lost its copies
    ]
    copies = [np.rot90(pixels[m, r : r + BOX, c : c + BOX], -k) for (m, r, c), k in poses]
    return target, pixels, np.stack(copies), np.array([NOISE[m] for (m, _, _), _ in poses])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    print(
        "seed   of each   for all   of each, cold   oracle, weighed   oracle, plain   noise and copies of each"
    )
    rows = []
    for seed in range(options.seeds):
        target, pixels, copies, noise = project(seed)
        each, alike, cold = (
            mtd.recover(pixels, box_size=BOX, micrographs=kind, initial=start, iterations=60, backend="cpu")
            for kind, start in (("each", target), (None, target), ("each", None))
        )
        averages = np.average(copies, axis=0, weights=noise**-2.0), copies.mean(axis=0)
        rows.append(
            [mtd.relative_error(one, target) for one in (each.target, alike.target, cold.target, *averages)]
        )
        facts = each.likelihood.micrographs
        levels = each.noise_std * facts.noise_ratio
        counts = each.likelihood.expected_count * facts.count_share
        print(
            f"{seed:4}   " + "     ".join(f"{e:.3f}" for e in rows[-1]),
            levels.round(2),
            counts.round(1),
            flush=True,
        )
    print("mean   " + "     ".join(f"{e:.3f}" for e in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
