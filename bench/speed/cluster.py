"""What a Dask cluster costs: the same E-step on local workers and without, what travels, and lost workers.

python bench/speed/cluster.py            # two workers against two threads
python bench/speed/cluster.py --killed   # a worker dies in each of ten iterations
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

import mtdcore as mtd
from mtdcore.estep.dask import DaskExecutor, WorkerBackend, local_workers
from mtdcore.estep.expectation import tile_cut
from mtdcore.synthetic.glyphs import glyphs
from mtdcore.testing import assert_same_bits


def overhead(path: Path, target: np.ndarray, model: mtd.WindowLikelihood, workers: int, repeats: int) -> None:
    """Wall and CPU seconds of every turn; CPU time tells the two apart also on a machine that others use."""
    alone = mtd.get_backend("cpu", threads=workers)
    turns = []
    with local_workers(workers) as executor:
        remote = WorkerBackend(executor, "cpu")

        def clock() -> np.ndarray:
            there = sum(executor.client.run(time.process_time).values())
            return np.array([time.perf_counter(), time.process_time() + there])

        for turn in range(repeats + 1):  # the first one loads and compiles
            began = clock()
            here = mtd.e_step(str(path), target, model, alone)
            between = clock()
            there = mtd.e_step(str(path), target, model, remote, executor)
            ended = clock()
            assert_same_bits(there, here)
            if turn:
                turns.append([between - began, ended - between])
                print(*(f"{wall:.2f} s ({cpu:.2f} of CPU)" for wall, cpu in turns[-1]), sep=", ", flush=True)
    (wall, cpu), (wall_there, cpu_there) = np.median(turns, axis=0)
    print(
        f"{workers} workers against {workers} threads: {wall_there / wall - 1:+.1%}, CPU {cpu_there / cpu - 1:+.1%}"
    )
    print(f"same bits in {repeats + 1} E-steps")


def messages(path: Path, target: np.ndarray, model: mtd.WindowLikelihood) -> None:
    measurement = mtd.open_measurement(path)
    one = mtd.get_backend("cpu", threads=1)
    part, geometry = measurement.split(measurement.shape[0])[0], tile_cut(model.bind(measurement.shape), one)
    seconds = []
    for _ in range(4):  # the first one loads and compiles
        began = time.process_time()
        found = mtd.e_step(part, target, model, one)
        seconds.append(time.process_time() - began)
    pixels = measurement.shape[1] * measurement.shape[2] / 1e6
    print(
        f"a part {len(pickle.dumps((part, geometry)))} bytes, target and model {len(pickle.dumps((target, model)))} "
        f"bytes, statistics {len(pickle.dumps(found))} bytes; {part.tile_count(geometry)} tiles, {pixels:.1f} Mpixel, take "
        f"{min(seconds[1:]):.2f} s of CPU time"
    )


def scheduling(tasks: int) -> None:
    """What a task costs this process, which is client and scheduler, when it does next to nothing on its worker."""
    with local_workers(2) as executor:
        for count in (tasks // 10, tasks):  # the first one warms up
            began = time.process_time()
            assert executor.map_sum(float, range(count)) == count * (count - 1) / 2
            seconds = time.process_time() - began
    print(f"{1e3 * seconds / tasks:.2f} ms of CPU time per task in scheduler and client, {tasks} tasks")


def killed(path: Path, target: np.ndarray, options: dict[str, object]) -> None:
    here = mtd.recover(str(path), backend="cpu", **options)
    with local_workers(2) as executor:
        deaths = 0

        class Fatal(DaskExecutor):
            """One worker dies after the parts of an E-step have been handed out."""

            def map_sum(self, function, items):
                nonlocal deaths
                nannies = list(self.client.cluster.workers.values())
                if deaths < 10:
                    os.kill(nannies[deaths % len(nannies)].pid, signal.SIGKILL)
                    deaths += 1
                return super().map_sum(function, items)

        remote = WorkerBackend(executor, "cpu")
        there = mtd.recover(str(path), backend=remote, executor=Fatal(executor.client), **options)
    assert_same_bits(there.statistics, here.statistics)
    np.testing.assert_array_equal(there.target, here.target)
    print(f"{deaths} workers killed in {len(there.history)} iterations: same bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--micrographs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=2000, help="of which the cost of one is measured")
    parser.add_argument("--killed", action="store_true")
    arguments = parser.parse_args()
    target = glyphs(1, 28)[0].astype(float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.zarr"
        made = mtd.simulate(
            target,
            side=arguments.side,
            density=0.1,
            snr=0.5,
            micrographs=arguments.micrographs,
            path=path,
            separation=1,
        )
        if arguments.killed:
            options = {"box_size": 28, "noise_std": made.noise_std, "iterations": 10, "tolerance": 0.0}
            killed(path, target, options)
            return
        model = mtd.WindowLikelihood(mtd.Rotations(4, 28), made.noise_std, float(len(made.positions)))
        messages(path, target, model)
        scheduling(arguments.tasks)
        overhead(path, target, model, arguments.workers, arguments.repeats)


if __name__ == "__main__":
    main()
