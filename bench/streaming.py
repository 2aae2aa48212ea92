"""Peak resident memory of one E-step over Zarr measurements of growing size (window model, L = 28, K = 4).

    python bench/streaming.py --sides 2048 8192

Each size runs in a process of its own, after a warm-up on a small array that compiles every kernel.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import mtdcore as mtd


def e_step_peak(path: str, threads: int) -> tuple[float, float]:
    """(peak resident MB, seconds) of an E-step over this measurement."""
    target = mtd.datasets.glyphs(1)[0].astype(np.float64)
    backend = mtd.get_backend("cpu", threads=threads)
    likelihood = mtd.WindowLikelihood(box_size=28, rotations=4, noise_std=1.0, expected_count=100)
    mtd.e_step(np.zeros((600, 600), np.float32), target, likelihood, backend)
    began = time.perf_counter()
    mtd.e_step(path, target, likelihood, backend)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    target = mtd.datasets.glyphs(1)[0]
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for side in options.sides:
            path = Path(folder, f"{side}.zarr")
            mtd.simulate(target, side=side, density=0.1, snr=0.5, rotations=4, seed=0, path=path)
            with processes.Pool(1) as pool:
                peak, seconds = pool.apply(e_step_peak, (str(path), options.threads))
            print(f"{side} x {side}: peak {peak:.0f} MB, {seconds:.1f} s")


if __name__ == "__main__":
    main()
