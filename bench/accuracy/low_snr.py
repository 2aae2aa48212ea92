"""Below the published range: MNIST digits in large, noisy measurements; window method, shipped prior, default settings.

    python bench/accuracy/low_snr.py mnist.npz                                  # SNR 0.05 and 0.03, side 44 L, ten digits
    python bench/accuracy/low_snr.py mnist.npz --boxes 11 --snr 0.1             # detections by the recovered target
    python bench/accuracy/low_snr.py mnist.npz --map docs/images/low_snr.png    # where recovery fails, over SNR and size

A digit counts as recovered at E_s <= 0.25. Detections are compared with the truth in its own frame, within one pixel
along rows and columns.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

import mtdcore as mtd
from mtdbridge import load_prior
from mtdcore.results.detections import detect
from mtdcore.results.matching import match
from mtdcore.results.metrics import align

RECOVERED = 0.25
MAX_SHIFT, ONE_PIXEL = 6, 2**0.5
MAP_SNRS, MAP_BOXES = (0.1, 0.05, 0.03, 0.02, 0.01), (11, 22, 44, 88)


@dataclass(frozen=True)
class Run:
    """One recovery: relative errors E and E_s, detections, expected copies, nats and seconds."""

    error: float
    gauge_free_error: float
    precision: float
    recall: float
    copies: float
    evidence: float
    seconds: float

    @classmethod
    def of(cls, target: np.ndarray, snr: float, boxes: int, prior: mtd.Prior, seed: int) -> Run:
        """Hide a target at density 0.1 in a square measurement of so many boxes a side, and recover it."""
        made = mtd.simulate(target, side=boxes * len(target), density=0.1, snr=snr, rotations=4, seed=seed)
        began = time.perf_counter()
        found = mtd.recover(
            made.measurement, box_size=len(target), rotations=4, noise_std=made.noise_std, prior=prior
        )
        seconds = time.perf_counter() - began
        frame = align(found.target, target, rotations=4, max_shift=MAX_SHIFT)
        copies = detect(made.measurement, found.target, found.likelihood).in_frame_of(frame)
        pairs = match(copies, made.positions, ONE_PIXEL)
        error = mtd.relative_error(found.target, target)
        return cls(
            error, frame.error, pairs.precision, pairs.recall, found.expected_count, found.evidence, seconds
        )


def runs(targets: np.ndarray, snr: float, boxes: int, prior: mtd.Prior) -> list[Run]:
    """One measurement of every target; told one by one, with a summary."""
    done = []
    for digit, target in enumerate(targets):
        run = Run.of(target, snr, boxes, prior, seed=digit)
        print(
            f"SNR {snr:g}, side {boxes} L, digit {digit}: E {run.error:.3f}, E_s {run.gauge_free_error:.3f}, "
            f"precision {run.precision:.3f}, recall {run.recall:.3f}, {run.copies:.0f} copies, {run.evidence:.0f} nats, "
            f"{run.seconds:.0f} s",
            flush=True,
        )
        done.append(run)
    errors = [run.gauge_free_error for run in done]
    print(
        f"SNR {snr:g}, side {boxes} L: E_s mean {np.mean(errors):.3f}, largest {max(errors):.3f}; "
        f"{recovered(done)} of {len(done)} recovered; precision {np.nanmean([r.precision for r in done]):.3f}, "
        f"recall {np.mean([r.recall for r in done]):.3f}",
        flush=True,
    )
    return done


def recovered(done: list[Run]) -> int:
    """Number of runs that came back."""
    return sum(run.gauge_free_error <= RECOVERED for run in done)


def boundary(targets: np.ndarray, prior: mtd.Prior) -> dict[tuple[float, int], list[Run]]:
    """(SNR, boxes) -> runs. Sizes beyond the first from which all targets came back are not tried."""
    cells: dict[tuple[float, int], list[Run]] = {}
    for snr in MAP_SNRS:
        for boxes in MAP_BOXES:
            cells[snr, boxes] = runs(targets, snr, boxes, prior)
            if recovered(cells[snr, boxes]) == len(targets):
                break
    return cells


def draw(cells: dict[tuple[float, int], list[Run]], path: str) -> None:
    """Median E_s over SNR and size, with the number recovered; prints the same as a table."""
    from matplotlib.figure import Figure

    print("| side | " + " | ".join(f"SNR {snr:g}" for snr in MAP_SNRS) + " |")
    print("|---|" + "---|" * len(MAP_SNRS))
    medians = np.full((len(MAP_BOXES), len(MAP_SNRS)), np.nan)
    figure = Figure(figsize=(6.4, 3.6), dpi=110, facecolor="white", layout="constrained")
    axes = figure.subplots()
    for i, boxes in enumerate(MAP_BOXES):
        line = []
        for j, snr in enumerate(MAP_SNRS):
            done = cells.get((snr, boxes))
            if done is None:
                line.append("not run")
                continue
            medians[i, j] = np.median([run.gauge_free_error for run in done])
            text = f"{recovered(done)}/{len(done)}, {medians[i, j]:.2f}"
            line.append(text)
            axes.text(j, i, text, ha="center", va="center", color="white" if medians[i, j] > 0.4 else "black")
        print(f"| {boxes} L, {-(-(boxes**2) // 10)} copies | " + " | ".join(line) + " |")
    picture = axes.imshow(medians, cmap="viridis_r", vmin=0.0, vmax=1.0, origin="lower", aspect="auto")
    figure.colorbar(picture, label="median $E_s$")
    axes.set_xticks(range(len(MAP_SNRS)), [f"{snr:g}" for snr in MAP_SNRS])
    axes.set_yticks(range(len(MAP_BOXES)), [f"{boxes} L" for boxes in MAP_BOXES])
    axes.set(xlabel="signal-to-noise ratio", ylabel="side of the measurement", facecolor="#eeeeee")
    axes.set_title("recovered / tried, median $E_s$ (grey: a smaller one was enough)", fontsize=10)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", help=".npz with test_images and test_labels; the first image of every class"
    )
    parser.add_argument("--snr", type=float, nargs="+", default=[0.05, 0.03])
    parser.add_argument("--boxes", type=int, default=44, help="side of the measurement in boxes")
    parser.add_argument("--digits", type=int, help="number of digits; default: 10, on the map 3")
    parser.add_argument("--map", metavar="PNG", help="draw the failure boundary")
    options = parser.parse_args()
    with np.load(options.images) as data:
        labels, images = data["test_labels"], data["test_images"] / 255.0
    count = options.digits or (3 if options.map else 10)
    targets = np.stack([images[np.flatnonzero(labels == digit)[0]] for digit in range(count)])
    prior = load_prior("mnist")
    if options.map:
        draw(boundary(targets, prior), options.map)
        return
    for snr in options.snr:
        runs(targets, snr, options.boxes, prior)


if __name__ == "__main__":
    main()
