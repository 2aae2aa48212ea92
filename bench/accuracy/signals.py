"""Heartbeats in noise, at unequal distances: the recovered beat beside that of a matrix profile.

    python bench/accuracy/signals.py [--seeds N] [--beats P]

A beat of 60 samples (three waves and a spike), 40 of them at least 60 samples apart in 6000, white noise. Mean relative errors, what up
to 13 samples of shift change forgiven (E_s): of mtd.recover with no option but the box; of a matrix profile (stumpy, if it is
installed), the best motif averaged over its matches, whose number it is told; and the average over the true positions (oracle). In
brackets the largest error of a run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import mtdcore as mtd
from mtdcore.results.metrics import forgiven_shift

WIDTH, SPACING, LEVELS = 60, 150, (1.0, 0.5, 0.2)


def beat() -> np.ndarray:
    """(60,) one beat: P wave, Q, R and S, T wave as Gaussians (centre, width, height)."""
    time = np.linspace(0.0, 1.0, WIDTH)
    waves = (
        (0.2, 0.04, 0.15),
        (0.42, 0.012, -0.2),
        (0.46, 0.016, 1.0),
        (0.5, 0.014, -0.3),
        (0.75, 0.06, 0.3),
    )
    return sum(height * np.exp(-0.5 * ((time - middle) / width) ** 2) for middle, width, height in waves)


def matrix_profile(signal: np.ndarray, count: int) -> np.ndarray | None:
    """(60,) average of the ``count`` best matches of the best motif; None: stumpy is not installed."""
    try:
        import stumpy
    except ImportError:
        return None
    signal = signal.astype(np.float64)
    first = int(np.argmin(stumpy.stump(signal, WIDTH)[:, 0].astype(np.float64)))
    query = signal[first : first + WIDTH]
    found = stumpy.match(query, signal, max_matches=count, max_distance=lambda distances: np.inf)
    return np.mean([signal[at : at + WIDTH] for at in found[:, 1].astype(int)], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--beats", type=int, default=40)
    options = parser.parse_args()
    target, count = beat(), options.beats
    shift = forgiven_shift((1, WIDTH))
    print("SNR   mtd           oracle        ratio   matrix profile   copies found   seconds", flush=True)
    for snr in LEVELS:
        rows: list[list[float]] = []
        for seed in range(options.seeds):
            made = mtd.simulate(
                target, shape=(1, SPACING * count), count=count, snr=snr, separation=1, seed=seed
            )
            signal = np.asarray(made.measurement)[0]
            began = time.perf_counter()
            found = mtd.recover(signal, box_size=(1, WIDTH), seed=seed, backend="cpu")
            seconds = time.perf_counter() - began
            average = np.mean([signal[at : at + WIDTH] for at in made.positions[:, 2]], axis=0)
            rival = matrix_profile(signal, count)
            errors = (
                np.nan
                if image is None
                else mtd.relative_error(np.atleast_2d(image), target[None], max_shift=shift)
                for image in (found.target, average, rival)
            )
            rows.append([*errors, found.expected_count, seconds])
        table = np.array(rows)
        ours, oracle, rival, copies, seconds = table.mean(axis=0)
        worst = table[:, :3].max(axis=0)
        print(
            f"{snr:3}   {ours:.3f} ({worst[0]:.2f})  {oracle:.3f} ({worst[1]:.2f})  {ours / oracle:.2f}    "
            f"{rival:.3f} ({worst[2]:.2f})     {copies:.1f}           {seconds:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
