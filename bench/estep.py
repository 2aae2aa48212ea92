"""E-step on the CPU: time and memory beside the transforms alone and beside simpler ways to write it.

    python bench/estep.py                      # the default cases
    python bench/estep.py --case window-28 --rivals --json results.json

Every row is measured interleaved with its rivals in one process, so ratios hold when the machine's speed
drifts; medians are quoted. See bench/README.md for how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rivals import torch_window, vectorised_patch, vectorised_window
from scipy import fft

import mtdcore as mtd
from mtdcore.backends._cpu_patch import PatchPlan
from scipy.fft import next_fast_len
from mtdcore.backends.cpu import CpuBackend
from mtdcore.measurement import open_measurement
from mtdcore.rotation import RotationSet


@dataclass(frozen=True)
class Case:
    """One E-step: model, box, rotations, side of the square measurement."""

    model: str
    box_size: int
    rotations: int
    side: int
    reference: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}-{self.box_size}-k{self.rotations}-n{self.side}"

    def likelihood(self) -> mtd.PatchLikelihood | mtd.WindowLikelihood:
        if self.model == "patch":
            return mtd.PatchLikelihood(self.box_size, self.rotations, 1.0)
        count = 0.1 * self.side**2 / self.box_size**2
        return mtd.WindowLikelihood(self.box_size, self.rotations, 1.0, count)


CASES = [
    Case("patch", 28, 4, 308),
    Case("patch", 28, 4, 2800),
    Case("window", 28, 4, 2800),
    Case("patch", 5, 4, 500),
    Case("window", 5, 4, 500),
    Case("patch", 5, 4, 110, reference=True),
    Case("patch", 16, 36, 512),
    Case("window", 16, 36, 1024),
    Case("window", 64, 36, 2048),
    Case("window", 128, 4, 2048),
]


def transforms_alone(case: Case, threads: int) -> Callable[[], None]:
    """A forward and an inverse real transform per patch or tile and rotation, of the sizes the E-step uses."""
    likelihood = case.likelihood().bind((1, case.side, case.side))
    turned = np.zeros((case.rotations, case.box_size, case.box_size))
    rng = np.random.default_rng(0)
    if isinstance(likelihood, mtd.PatchLikelihood):
        side = PatchPlan(turned, likelihood, np.dtype(np.float32)).side
        shape, batch = (side, side), max(1, 2**18 // (case.rotations * side**2))
        count = (case.side // case.box_size) ** 2
        sizes = [min(batch, count - first) * case.rotations for first in range(0, count, batch)]
    else:
        cut = likelihood.geometry.enlarged(CpuBackend().tile_pixels(likelihood))
        largest = cut.largest_read((case.side, case.side))
        shape = tuple(next_fast_len(n, real=True) for n in largest)
        sizes = [1] * (cut.count((case.side, case.side)) * case.rotations)
    data = rng.normal(size=(max(sizes), *shape)).astype(np.float32)

    def pair(count: int) -> None:
        fft.irfft2(fft.rfft2(data[:count]), s=shape, overwrite_x=True)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(pair, sizes))

    return run


def contestants(case: Case, threads: int, rivals: bool) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(case.side, case.side)).astype(np.float32)
    target = rng.uniform(size=(case.box_size, case.box_size))
    likelihood, source = case.likelihood(), open_measurement(image)
    backend = CpuBackend(threads=threads)
    runs: dict[str, Callable[[], Any]] = {
        "mtdcore": lambda: mtd.e_step(source, target, likelihood, backend),
        "transforms alone": transforms_alone(case, threads),
    }
    if case.reference:
        runs["reference"] = lambda: mtd.e_step(source, target, likelihood, "reference")
    if rivals:
        turned = RotationSet(case.rotations, case.box_size).apply(target)
        if case.model == "patch":
            runs["vectorised scipy"] = lambda: vectorised_patch(image, turned, likelihood, threads)
        else:
            bound = likelihood.bind(source.shape)
            runs["vectorised scipy"] = lambda: vectorised_window(image, turned, bound, threads)
            runs["torch.fft"] = lambda: torch_window(image, turned, bound, threads)
    return runs


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn after one warm-up."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", action="append", help="substring of a case name; may be repeated")
    parser.add_argument("--rivals", action="store_true", help="also whole-array scipy and torch versions")
    parser.add_argument("--json", help="write the results here")
    options = parser.parse_args()
    rows = []
    print(f"{'case':24}{'ms':>10}{'x transforms':>14}  Mpixel-poses/s  other ratios")
    for case in CASES:
        if options.case and not any(part in case.name for part in options.case):
            continue
        seconds = measure(contestants(case, options.threads, options.rivals), options.repeats)
        own = seconds["mtdcore"]
        ratios = {name: value / own for name, value in seconds.items() if name != "mtdcore"}
        rate = case.side**2 * case.rotations / own
        others = ", ".join(f"{n} {r:.3g}x" for n, r in ratios.items() if n != "transforms alone")
        print(
            f"{case.name:24}{own * 1e3:10.2f}{1 / ratios['transforms alone']:14.2f}{rate / 1e6:14.1f}    {others}"
        )
        rows.append({**asdict(case), "seconds": seconds, "pixel_poses_per_second": rate})
    if options.json:
        record = {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "numpy": np.__version__,
            "mtdcore": mtd.__version__,
            "rows": rows,
        }
        with open(options.json, "w") as file:
            json.dump(record, file, indent=2)


if __name__ == "__main__":
    main()
