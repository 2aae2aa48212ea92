"""Seconds per E-step by number of angles: all of them everywhere, against local search.

python bench/speed/angles.py --side 616

The E-step is taken at the true target, where the posterior is sharp, on one core; median of so many repetitions,
the two taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import mtdcore as mtd
from mtdcore.em.plan.defaults import coarse_views
from mtdcore.synthetic.glyphs import glyphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=616, help="side of the measurement, pixels")
    parser.add_argument("--box-size", type=int, default=28)
    parser.add_argument("--snr", type=float, default=0.3)
    parser.add_argument("--angles", type=int, nargs="+", default=[24, 48, 72, 120, 180, 360])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    target = np.asarray(glyphs(1, options.box_size, seed=5)[0], dtype=np.float64)
    made = mtd.simulate(
        target, side=options.side, density=0.1, snr=options.snr, rotations="continuous", seed=1
    )
    everywhere = mtd.get_backend("cpu", threads=1)
    print("angles | everywhere, s | local search, s | largest difference of the back-projection")
    for angles in options.angles:
        model = mtd.WindowLikelihood(
            mtd.Rotations(angles, options.box_size), made.noise_std, float(len(made.positions))
        )
        searches = [None, coarse_views("auto", model.views)]
        seconds: list[list[float]] = [[], []]
        for repeat in range(options.repeat + 1):  # the first warms up
            found = []
            for coarse, times in zip(searches, seconds, strict=True):
                began = time.perf_counter()
                found.append(
                    mtd.e_step(made.measurement, made.target, model, everywhere, coarse=coarse).right
                )
                if repeat:
                    times.append(time.perf_counter() - began)
        difference = float(np.abs(found[0] - found[1]).max() / np.abs(found[0]).max())
        first, second = map(statistics.median, seconds)
        print(f"{angles} | {first:.2f} | {second:.2f} | {difference:.0e}", flush=True)


if __name__ == "__main__":
    main()
