"""E-steps streamed from Zarr: throughput and resident memory against the size of the measurement, and against memory.

    python bench/speed/streaming.py                                  # box 5, 10^4 to 10^7 patches (1 GB of pixels)
    python bench/speed/streaming.py --box 28 --dtype int8            # the same at box 28, 8 GB of pixels

One process runs all sizes one after another, after a warm-up that compiles every kernel and fills the pools of the
allocator. Peaks are those of the kernel (VmHWM, reset before each size; Linux). Another process then compares the
E-step from Zarr with the one from memory at ``--compare`` patches, interleaved, medians.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mtdcore as mtd
from mtdcore.data.zarr.store import creating


def write_noise(path: Path, box: int, patches: int, dtype: np.dtype) -> None:
    """A square measurement of white noise with this many patches (rounded up), in a Zarr array."""
    side, rng = box * math.ceil(math.sqrt(patches)), np.random.default_rng(0)
    with creating(path, (1, side, side), dtype, {}) as (array, _):
        for row in range(0, side, 256):
            noise = rng.standard_normal((min(256, side - row), side), dtype=np.float32)
            array[0, row : row + len(noise)] = noise if dtype.kind == "f" else np.rint(noise)


def e_step_of(model: str, box: int, threads: int) -> Callable[[object], mtd.Statistics]:
    """An E-step at a fixed target, as a function of the measurement."""
    target = np.random.default_rng(1).normal(size=(box, box))
    likelihood = (
        mtd.PatchLikelihood(mtd.Rotations(4, box), 1.0, 0.5)
        if model == "patch"
        else mtd.WindowLikelihood(mtd.Rotations(4, box), 1.0, expected_count=100.0)
    )
    backend = mtd.get_backend("cpu", threads=threads)
    return lambda measurement: mtd.e_step(measurement, target, likelihood, backend)


def streamed(paths: list[Path], *options: str | int) -> list[tuple[float, float, float]]:
    """(seconds, peak, afterwards) of an E-step over each measurement; resident MB."""
    e_step, found = e_step_of(*options), []
    for path in [paths[len(paths) // 2]] * 2 + paths:
        Path("/proc/self/clear_refs").write_text("5")
        began = time.perf_counter()
        e_step(str(path))
        found.append((time.perf_counter() - began, resident("VmHWM"), resident("VmRSS")))
    return found[2:]


def resident(field: str) -> float:
    """Resident MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def compared(path: Path, repeats: int, *options: str | int) -> tuple[float, float]:
    """Median seconds of an E-step from Zarr and from memory."""
    e_step, stored = e_step_of(*options), mtd.open_measurement(path)
    everything = next(iter(stored.tiles(mtd.data.tiles.TileGeometry(max(stored.shape), 1, 0, 0)))).values
    seconds: dict[object, list[float]] = {"zarr": [], "memory": []}
    for _ in range(repeats + 1):
        for name, source in (("zarr", stored), ("memory", everything)):
            began = time.perf_counter()
            e_step(source)
            seconds[name].append(time.perf_counter() - began)
    return statistics.median(seconds["zarr"][1:]), statistics.median(seconds["memory"][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["patch", "window"], default="patch")
    parser.add_argument("--box", type=int, default=5)
    parser.add_argument("--patches", type=float, nargs="+", default=[1e4, 1e5, 1e6, 1e7])
    parser.add_argument(
        "--dtype", choices=["float32", "int8"], default="float32", help="as pixels are stored"
    )
    parser.add_argument("--compare", type=float, default=1e6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keeps the measurements for the next run")
    given = parser.parse_args()
    options = (given.model, given.box, given.threads)
    with tempfile.TemporaryDirectory() as temporary, multiprocessing.get_context("spawn").Pool(1) as pool:
        folder = given.folder or Path(temporary)
        sizes = sorted({*map(int, given.patches), int(given.compare)})
        paths = {n: folder / f"{given.box}-{n}-{given.dtype}.zarr" for n in sizes}
        for n, path in paths.items():
            if not path.exists():
                write_noise(path, given.box, n, np.dtype(given.dtype))
        chosen = [int(n) for n in given.patches]
        for n, (seconds, peak, after) in zip(
            chosen, pool.apply(streamed, ([paths[n] for n in chosen], *options)), strict=True
        ):
            print(
                f"{n:>9} patches: {seconds:8.3f} s, {n / seconds:12,.0f} patches/s, peak {peak:.1f} MB, then {after:.1f} MB"
            )
        zarr, memory = pool.apply(compared, (paths[int(given.compare)], given.repeats, *options))
        print(
            f"{int(given.compare)} patches: {zarr:.3f} s from Zarr, {memory:.3f} s from memory, ratio {zarr / memory:.3f}"
        )


if __name__ == "__main__":
    main()
