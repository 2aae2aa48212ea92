"""Does a run without a prior find its target: one start or four, the offset known, at its median, or learned?

    python bench/accuracy/starts.py --seeds 5 6 --targets 12 --snr 5

Gaussian 5 x 5 targets of mean 2, as in the paper's first experiment, but other draws of targets than `mtd reproduce` takes.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

import mtdcore as mtd
from mtdcli.reproduce.cases import gaussian_experiment
from mtdcli.reproduce.methods import ROTATIONS
from mtdcore.errors import Doubt

WAYS = {"offset known": 0.0, "at the median": "median", "learned": "auto"}


def main() -> None:
    """Print one row per way and number of starts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6])
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--snr", type=float, default=5.0)
    parser.add_argument("--starts", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    warnings.simplefilter("ignore", Doubt)
    print(f"{'offset':<16}starts  nats (mean)  E: mean  median  above .3")
    for name, offset in WAYS.items():
        for starts in given.starts:
            rows = [
                _one(case, offset, starts, seed)
                for seed in given.seeds
                for case in gaussian_experiment(given.targets, seed).cases([given.snr], 1, seed)
            ]
            nats, errors = np.array(rows).T
            lost = np.count_nonzero(errors > 0.3)
            print(
                f"{name:<16}{starts:>6}{nats.mean():>13.1f}{errors.mean():>9.3f}{np.median(errors):>8.3f}"
                f"{lost:>5} of {len(errors)}",
                flush=True,
            )


def _one(case: object, offset: float | str, starts: int, seed: int) -> tuple[float, float]:
    made = case.simulate()
    pixels = np.asarray(made.measurement)
    found = mtd.recover(
        pixels,
        box_size=len(case.image),
        rotations=ROTATIONS,
        noise_std=made.noise_std,
        offset=float(np.median(pixels)) if offset == "median" else offset,
        starts=starts,
        seed=seed,
        iterations=100,
    )
    return found.evidence, float(mtd.relative_error(found.target, case.image, ROTATIONS, case.max_shift))


if __name__ == "__main__":
    main()
