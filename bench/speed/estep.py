"""E-step on the CPU: time and memory beside the transforms alone and beside simpler ways to write it.

    python bench/speed/estep.py                                          # every case
    python bench/speed/estep.py --case window-28 --rivals --memory --json results.json
    python bench/speed/estep.py --scaling                                # with threads, rotations and size
    python bench/speed/estep.py --compare bench/results/estep.json       # against a stored run

Every row is measured interleaved with its rivals in one process. Ratios are of processor seconds, the least of a few
runs, so that they hold on machines that others use too. See bench/README.md for how to read it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from rivals import FFTS, transform_pairs, vectorised_patch, vectorised_window

import mtdcore as mtd
from mtdcore._base.cores import usable_cores
from mtdcore.data import open_measurement
from mtdcore.estep.backends.cpu.backend import CpuBackend
from mtdcore.model.rotations import Rotations

#: Slower than the stored run by more than this fails a comparison.
TOLERANCE = 1.25


@dataclass(frozen=True)
class Case:
    """One E-step: model, box, rotations, side of the square measurement."""

    model: str
    box_size: int
    rotations: int
    side: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.box_size}-k{self.rotations}-n{self.side}"

    def likelihood(self) -> mtd.PatchLikelihood | mtd.WindowLikelihood:
        if self.model == "patch":
            return mtd.PatchLikelihood(mtd.Rotations(self.rotations, self.box_size), 1.0)
        count = 0.1 * self.side**2 / self.box_size**2
        return mtd.WindowLikelihood(mtd.Rotations(self.rotations, self.box_size), 1.0, count)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """(measurement, target): noise and noise; what is in them does not change the time."""
        rng = np.random.default_rng(1)
        image = rng.standard_normal(size=(self.side, self.side), dtype=np.float32)
        return image, rng.uniform(size=(self.box_size, self.box_size))


#: (rotations, side of the measurement): about the same number of pixel-poses each.
SIZES = ((4, 2240), (36, 750), (72, 532))

CASES = [
    Case("patch", 28, 4, 308),
    Case("patch", 28, 4, 8860),
    Case("patch", 5, 4, 5000),
    Case("patch", 5, 4, 110),
    Case("window", 28, 4, 308),
    Case("window", 64, 36, 4096),
    *(
        Case(model, box, k, n)
        for model in ("patch", "window")
        for box in (5, 16, 28, 64, 128)
        for k, n in SIZES
    ),
]

#: Cases that plain loops can do, and those that whole arrays can: others would take hours, or more memory than there is.
REFERENCE, LARGEST_RIVAL = "patch-5-k4-n110", 2**30


def own(case: Case, threads: int) -> Callable[[], Any]:
    image, target = case.data()
    source, backend = open_measurement(image), CpuBackend(threads=threads)
    return lambda: mtd.e_step(source, target, case.likelihood(), backend)


def rival(name: str, case: Case, threads: int) -> Callable[[], Any]:
    image, target = case.data()
    likelihood = case.likelihood().bind((1, *image.shape))
    if name == "reference":
        return lambda: mtd.e_step(image, target, likelihood, "reference")
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
        return lambda: mtd.e_step(image, target, likelihood, "torch")
    turned = Rotations(case.rotations, case.box_size).apply(target)
    function = {"patch": vectorised_patch, "window": vectorised_window}[case.model]
    return partial(function, image, turned, likelihood, threads)


def contestants(case: Case, threads: int, rivals: bool) -> dict[str, Callable[[], Any]]:
    runs = {"mtdcore": own(case, threads)}
    runs |= {f"{fft} pairs": transform_pairs(case.likelihood(), case.side, threads, fft) for fft in FFTS}
    if case.name == REFERENCE:
        runs["reference"] = rival("reference", case, threads)
    if rivals and case.rotations * case.side**2 < LARGEST_RIVAL:
        runs |= {name: rival(name, case, threads) for name in ("scipy", "torch")}
    return runs


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each, and its least processor seconds, run in turn after one warm-up."""
    for run in runs.values():
        run()
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began, used = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    return {n: {"seconds": statistics.median(wall[n]), "cpu_seconds": min(cpu[n])} for n in runs}


def peak_memory(case: Case, name: str, threads: int) -> float:
    """MiB that one E-step adds to a process of its own that has the measurement already (Linux)."""
    status, run = Path("/proc/self/status"), own(case, threads)
    own(replace(case, side=4 * case.box_size), threads)()  # compiled and imported
    if name != "mtdcore":
        rival(name, replace(case, side=4 * case.box_size), threads)()
        run = rival(name, case, threads)
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes(status, "VmRSS")
    run()
    return (_kilobytes(status, "VmHWM") - before) / 1024


def _kilobytes(status: Path, field: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))


def report(case: Case, found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """One row, printed and as a record."""
    seconds = {name: times["seconds"] for name, times in found.items()}
    mine = seconds.pop("mtdcore")
    cpu = {name: times["cpu_seconds"] for name, times in found.items()}
    pairs = min(value for name, value in cpu.items() if name.endswith("pairs"))
    row = {
        **asdict(case),
        "name": case.name,
        "seconds": mine,
        "cpu_seconds": cpu["mtdcore"],
        "x_pairs": cpu["mtdcore"] / pairs,
        "pixel_poses_per_second": case.side**2 * case.rotations / mine,
        "others_seconds": seconds,
        "others_cpu_seconds": {name: value for name, value in cpu.items() if name != "mtdcore"},
    }
    if case.model == "patch":
        row["patches_per_second"] = (case.side // case.box_size) ** 2 / mine
        poses = (2 * case.box_size) ** 2 * (case.side // case.box_size) ** 2
    else:
        poses = (case.side - case.box_size + 1) ** 2
    row["poses_per_second"] = poses * case.rotations / mine
    others = ", ".join(
        f"{name} {value / cpu['mtdcore']:.3g}x" for name, value in cpu.items() if name != "mtdcore"
    )
    print(
        f"{case.name:22}{mine * 1e3:10.2f}{row['cpu_seconds'] * 1e3:10.2f}{row['x_pairs']:9.2f}"
        f"{row['poses_per_second'] / 1e6:10.0f}{row['pixel_poses_per_second'] / 1e6:10.0f}    {others}",
        flush=True,
    )
    return row


def scaling(repeats: int, threads: int) -> list[dict[str, Any]]:
    """E-steps with one more of everything in turn: seconds, and the ratio to the first of each series."""
    base = {"patch": Case("patch", 28, 4, 2800), "window": Case("window", 28, 4, 1400)}
    rows = []
    for model, case in base.items():
        series = {
            "threads": [(n, case, n) for n in sorted({1, 2, threads})],
            "rotations": [(k, replace(case, rotations=k), threads) for k in (4, 8, 16, 32, 64)],
            "side": [(n * case.side, replace(case, side=n * case.side), threads) for n in (1, 2, 3)],
        }
        for name, steps in series.items():
            found = measure({str(value): own(each, n) for value, each, n in steps}, repeats)
            first = found[str(steps[0][0])]["seconds"]
            for value, times in found.items():
                print(
                    f"{model:8}{name:10}{value:>8}{times['seconds'] * 1e3:10.2f} ms{times['seconds'] / first:8.2f}"
                )
                rows.append({"model": model, "of": name, "value": int(value), **times})
    return rows


def compare(rows: list[dict[str, Any]], stored: str) -> bool:
    """Print how each case stands to a stored run in units of the transforms; whether none became slower."""
    before = {row["name"]: row for row in json.loads(Path(stored).read_text())["rows"]}
    fine = True
    for row in rows:
        if row["name"] in before:
            ratio = row["x_pairs"] / before[row["name"]]["x_pairs"]
            fine &= ratio <= TOLERANCE
            print(
                f"{row['name']:22}{ratio:6.2f} of the stored time{'' if ratio <= TOLERANCE else '   SLOWER'}"
            )
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", action="append", help="substring of a case name; may be repeated")
    parser.add_argument(
        "--rivals", action="store_true", help="also whole arrays by scipy, and the array backend on torch"
    )
    parser.add_argument(
        "--memory", action="store_true", help="also peak memory, each in a process of its own"
    )
    parser.add_argument("--scaling", action="store_true", help="also with threads, rotations and size")
    parser.add_argument("--json", help="write the results here")
    parser.add_argument("--compare", metavar="JSON", help="exit with 1 if slower than these results")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = [c for c in CASES if not options.case or any(part in c.name for part in options.case)]
    if options.peak:
        print(peak_memory(cases[0], options.peak, options.threads))
        return 0
    head = f"{'case':22}{'ms':>10}{'cpu ms':>10}{'x pairs':>9}{'Mposes/s':>10}{'Mpx-po/s':>10}    others take"
    print(head)
    rows = []
    for case in cases:
        row = report(case, measure(contestants(case, options.threads, options.rivals), options.repeats))
        if options.memory:
            names = ["mtdcore", *(n for n in row["others_seconds"] if n in ("scipy", "torch"))]
            row["peak_mib"] = {name: _peak_elsewhere(case, name, options.threads) for name in names}
            print(" " * 22 + "peak MiB: " + ", ".join(f"{n} {v:.0f}" for n, v in row["peak_mib"].items()))
        rows.append(row)
    record = {
        "machine": platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "threads": options.threads,
        "repeats": options.repeats,
        "versions": {"mtdcore": mtd.__version__, "numpy": np.__version__, "scipy": scipy.__version__},
        "rows": rows,
        "scaling": scaling(options.repeats, options.threads) if options.scaling else [],
    }
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")
    return 0 if options.compare is None or compare(rows, options.compare) else 1


def _peak_elsewhere(case: Case, name: str, threads: int) -> float:
    import subprocess

    command = [sys.executable, __file__, "--peak", name, "--case", case.name, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
