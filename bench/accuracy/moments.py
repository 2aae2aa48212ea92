"""Moments beside EM: errors and seconds against size, moments against their closed forms, one pass over a large measurement.

    python bench/accuracy/moments.py digits mnist.npz --boxes 44 176      # moments, moments + prior, EM, EM + prior on the same data
    python bench/accuracy/moments.py starts mnist.npz --snr 0.05          # EM from moments beside sixteen samples of the prior
    python bench/accuracy/moments.py area                                 # errors of moments over three decades of area
    python bench/accuracy/moments.py large --side 16384 --reach 2 -o DIR  # one pass from Zarr: seconds and memory

Digits are test digits, which the prior has not seen: nothing was chosen by them. Seconds are those of processors.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mtdcore as mtd
from mtdcore.moments.objective import Misfit
from mtdcore.results.metrics import align

MAX_SHIFT, RECOVERED = 6, 0.25


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the processor seconds that it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def told(name: str, found: mtd.Recovery, seconds: float, target: np.ndarray) -> None:
    """One line of results."""
    errors = [align(found.target, target, rotations=4, max_shift=most).error for most in (0, MAX_SHIFT)]
    print(
        f"  {name:18s} E {errors[0]:.3f}, E_s {errors[1]:.3f}, {found.expected_count:.1f} copies, {found.evidence:.0f} nats, "
        f"{found.passes:.0f} passes, {seconds:.1f} s",
        flush=True,
    )


def test_digits(path: str, digits: list[int]) -> list[np.ndarray]:
    """The first test image of each class."""
    with np.load(path) as data:
        labels, images = data["test_labels"], data["test_images"] / 255.0
    return [images[np.flatnonzero(labels == digit)[0]] for digit in digits]


def compare(options: argparse.Namespace, ways: dict[str, dict[str, Any]]) -> None:
    """The same measurements, recovered in several ways."""
    for boxes in options.boxes:
        for digit, target in zip(options.digits, test_digits(options.images, options.digits), strict=True):
            made = mtd.simulate(
                target, side=boxes * len(target), density=0.1, snr=options.snr, rotations=4, seed=digit
            )
            print(
                f"SNR {options.snr:g}, side {boxes} L, digit {digit}, {len(made.positions)} copies",
                flush=True,
            )
            for name, way in ways.items():
                if options.only is None or name in options.only:
                    work = partial(mtd.recover, made.measurement, box_size=len(target), rotations=4, **way)
                    found, seconds = timed(work)
                    told(name, found, seconds, target)


def area(options: argparse.Namespace) -> None:
    """Root mean square difference of measured and expected third moments, in units of their variance and of sigma^3."""
    target = np.random.default_rng(0).uniform(size=(12, 12))
    for side in options.sides:
        off, theirs = [], []
        for seed in range(options.seeds):
            made = mtd.simulate(target, side=side, density=0.1, snr=0.5, rotations=4, seed=seed)
            misfit = Misfit(mtd.measure_moments(made.measurement, 12), mtd.Rotations(4, 12))
            second, third = misfit.expected(made.target, len(made.positions))
            pairs = np.isfinite(misfit.second.variance)
            off.append(np.mean(np.square(misfit.third.values - third)) / made.noise_std**6)
            theirs.append(np.mean(np.square(misfit.second.values - second)[pairs]) / made.noise_std**4)
        print(
            f"side {side}: second {np.sqrt(np.mean(theirs)):.3e}, third {np.sqrt(np.mean(off)):.3e}; times side: "
            f"{side * np.sqrt(np.mean(theirs)):.3f}, {side * np.sqrt(np.mean(off)):.3f}",
            flush=True,
        )


def large(options: argparse.Namespace) -> None:
    """One pass over measurements on disk, each four times as large as the last one."""
    target = mtd.datasets.glyphs(1, box_size=28, seed=0)[0]
    for side in options.sides or [options.side // 4, options.side]:
        path = Path(options.output) / f"{side}.zarr"
        made = mtd.simulate(target, side=side, density=0.1, snr=0.5, rotations=4, path=path, overwrite=True)
        del made
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found, seconds = timed(partial(mtd.measure_moments, path, 28, reach=options.reach))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"side {side}, {len(found.edges)} edges: {seconds:.0f} s, {side**2 / seconds / 1e6:.2f} Mpixel/s, peak "
            f"{after / 1024:.0f} MiB ({before / 1024:.0f} before)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["digits", "starts", "area", "large"])
    parser.add_argument("images", nargs="?", help=".npz with test_images and test_labels")
    parser.add_argument("--snr", type=float, default=0.5)
    parser.add_argument("--boxes", type=int, nargs="+", default=[44])
    parser.add_argument("--digits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--only", nargs="+", help="some of the ways")
    parser.add_argument("--sides", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--reach", type=int)
    parser.add_argument("-o", "--output", default=".")
    options = parser.parse_args()
    if options.what == "area":
        options.sides = options.sides or [100, 316, 1000, 3162]
        area(options)
    elif options.what == "large":
        large(options)
    else:
        from mtdbridge import load_prior

        prior = load_prior("mnist")
        moments, starts = {"method": "moments"}, {"initial": "moments", "prior": prior}
        ways = {
            "digits": {
                "moments": moments,
                "moments, prior": {**moments, "prior": prior},
                "EM": {},
                "EM, prior": {"prior": prior},
            },
            "starts": {"samples": {"prior": prior}, "moments": starts},
        }
        compare(options, ways[options.what])


if __name__ == "__main__":
    main()
