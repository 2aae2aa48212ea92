"""Proteins the prior never saw: one projection each, hidden in a measurement of unknown units, recovered and compared.

    python bench/accuracy/proteins_2d.py proteins.npz                          # SNR .1 at side 11 L and SNR .05 at side 22 L
    python bench/accuracy/proteins_2d.py proteins.npz --snr 0.1 --boxes 11 --count 3

Structures of the part "test". E_s (docs/model.md 1) of the window method with proteins-2d, of the same without a prior, and of
the oracle with the prior: the average of the copies at their true poses, denoised in the true units. The units of the
measurement are drawn for each protein, log-uniform over twelve decades; the prior finds them.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge import load_prior
from mtdbridge.proteins.batches import DrawingOptions, ProteinBatches, validation_drawings
from mtdbridge.proteins.loading import load_structures
from mtdcore.model.priors import denoise
from mtdcore.results.metrics import forgiven_shift, relative_error

SIDE = 28


def projections(path: Path, count: int, part: str) -> np.ndarray:
    """(count, 28, 28) float64, root mean square 1: one random projection of each of so many structures."""
    batches = ProteinBatches(load_structures(path).only(part), DrawingOptions(spread=0.0))
    return validation_drawings(batches, SIDE, count, seed=0).numpy().astype(np.float64)


def oracle(made: mtd.Simulation) -> tuple[np.ndarray, float]:
    """Average of the copies at their true poses, and its noise level."""
    pixels = np.asarray(made.measurement.array)[0]
    places = zip(made.positions[:, 1:], made.rotation_indices, strict=True)
    copies = [np.rot90(pixels[row : row + SIDE, col : col + SIDE], -k) for (row, col), k in places]
    return np.mean(copies, axis=0), made.noise_std / math.sqrt(len(copies))


def errors(target: np.ndarray, snr: float, boxes: int, seed: int, prior: mtd.Prior) -> dict[str, float]:
    """E_s of every method, what the run with the prior found, and how long it took."""
    unit = 10.0 ** np.random.default_rng(seed).uniform(-6, 6)
    made = mtd.simulate(unit * target, side=boxes * SIDE, density=0.1, snr=snr, rotations=4, seed=seed)
    plain = {"box_size": SIDE, "rotations": 4, "noise_std": made.noise_std / unit}
    options = {**plain, "noise_std": made.noise_std}
    began = time.perf_counter()
    found = mtd.recover(made.measurement, prior=prior, **options)
    seconds = time.perf_counter() - began
    # uniform starts are in absolute units: the baseline gets the ones that suit it
    alone = mtd.recover(np.asarray(made.measurement.array) / np.float32(unit), **plain)
    average, level = oracle(made)
    best = denoise(prior, average[None] / unit, level / unit)[0]

    def error(image: np.ndarray) -> float:
        return relative_error(image / unit, target, 4, forgiven_shift(SIDE))

    return {
        "prior": error(found.target),
        "no prior": error(unit * alone.target),
        "oracle": error(average),
        "oracle + prior": error(best * unit),
        "scale": found.prior_scales[0] / unit,
        "copies": found.expected_count / len(made.positions),
        "nats": found.evidence,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("structures", type=Path)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--boxes", type=int, nargs="+", default=[11, 22])
    parser.add_argument("--count", type=int, default=10, help="number of proteins")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--seed", type=int, default=0, help="of the first protein")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("proteins-2d", box_size=SIDE)
    targets = projections(options.structures, options.count, options.part)
    for snr, boxes in zip(options.snr, options.boxes, strict=True):
        rows = []
        for i, target in enumerate(targets):
            row = errors(target, snr, boxes, options.seed + i, prior)
            rows.append(row)
            told = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
            print(f"SNR {snr:g}, side {boxes} L, protein {i}: {told}", flush=True)
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        told = ", ".join(f"{name} {value:.3g}" for name, value in mean.items())
        print(f"SNR {snr:g}, side {boxes} L, mean of {len(rows)}: {told}", flush=True)


if __name__ == "__main__":
    main()
