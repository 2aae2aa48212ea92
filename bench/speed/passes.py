"""Passes over the data and core seconds until a recovery reaches a given error: plain EM, mini-batches, coarse grid first.

    python bench/speed/passes.py mnist.npz --method plain --method online
    python bench/speed/passes.py mnist.npz --digit 3 --side 2048 --method plain --method coarse

A digit of the training set that the shipped prior was not trained on (it saw the first 55,000), side 4096, SNR 0.1. Passes
count every E-step over every candidate by the share of the pixels it read; those on blocks read all pixels, too. The
E-step at the final target, which every recovery makes to score it, is not counted. Printed: when E_s came within
``--within`` of the final error of the first method (or below ``--bound``), and the final error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge import load_prior
from mtdcore.em.coarse import fine_start, recover_coarse


def methods(parts: int, batched: int) -> dict[str, dict[str, Any]]:
    """Arguments of :func:`mtdcore.recover` that make each method."""
    return {
        "plain": {},
        "coarse": {"iterations": 15},
        "online": {"online": mtd.OnlineEM(parts), "iterations": batched},
    }


def watch(truth: np.ndarray, curve: list[tuple[float, float, float]]) -> Callable[[mtd.EMState], None]:
    """A callback that notes (passes, core seconds, E_s) after every iteration; ``curve`` holds where it starts."""
    passes, offset = curve[0][0], curve[0][1] - time.process_time()

    def note(state: mtd.EMState) -> None:
        read = passes + sum(record.passes for record in state.history)
        error = mtd.relative_error(state.target, truth, max_shift=6)
        curve.append((read, offset + time.process_time(), error))

    return note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help=".npz with train_images and train_labels")
    parser.add_argument("--method", action="append", choices=list(methods(1, 1)))
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--digit", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--batched", type=int, default=44, help="iterations of the online method")
    parser.add_argument("--factor", type=int, default=2, help="side of a block of the coarse method")
    parser.add_argument("--bound", type=float, help="E_s to reach; None: from the first method")
    parser.add_argument("--within", type=float, default=0.02)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(given.images) as data:
        labels, images = data["train_labels"][55000:], data["train_images"][55000:] / 255.0
    truth = images[np.flatnonzero(labels == given.digit)[0]]
    made = mtd.simulate(truth, side=given.side, density=0.1, snr=given.snr, seed=100 + given.seed)
    prior, bound = load_prior("mnist"), given.bound
    for name in given.method or list(methods(1, 1)):
        curve = [(0.0, 0.0, np.inf)]
        options = {
            "noise_std": made.noise_std,
            "prior": prior,
            "seed": given.seed,
            "iterations": given.iterations,
            **methods(given.parts, given.batched)[name],
        }
        if name == "coarse":
            began, source = time.process_time(), mtd.open_measurement(made.measurement)
            first = recover_coarse(source, given.factor, 15, 28, options)
            curve = [(first.passes, time.process_time() - began, np.inf)]
            options |= fine_start(first, given.factor, 28)
        found = mtd.recover(made.measurement, box_size=28, callback=watch(truth, curve), **options)
        final = curve[-1][2]
        bound = bound or (1.0 + given.within) * final
        reached = next((point for point in curve if point[2] <= bound), None)
        when = f"after {reached[0]:.2f} passes, {reached[1]:.1f} core s" if reached else "never"
        print(
            f"{name:8} E_s <= {bound:.4f} {when}; at the end {final:.4f} after {curve[-1][0]:.2f} passes, {curve[-1][1]:.1f} core s "
            f"({found.state.iteration} iterations), {found.expected_count:.1f} copies",
            flush=True,
        )


if __name__ == "__main__":
    main()
