"""Threads and executors change no bit of a recovery (row 15)."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import mtdcore as mtd


@pytest.mark.parametrize("likelihood", ["window", "patch"])
def test_threads_and_executors_change_no_bit(likelihood, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(8).normal(size=(3, 90, 110)).astype(np.float32))
    options = {"box_size": 8, "rotations": 2, "iterations": 2, "likelihood": likelihood}
    images = set()

    def run(threads, executor):
        backend = mtd.get_backend("cpu", threads=threads)
        found = mtd.recover(str(tmp_path / "m.npy"), **options, backend=backend, executor=executor)
        images.add(found.target.tobytes() + np.float64(found.evidence).tobytes())

    for threads in (1, 2, 4, 8):
        run(threads, None)
        with ThreadPoolExecutor(threads) as pool:
            run(threads, pool)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        run(2, processes)
    assert len(images) == 1
