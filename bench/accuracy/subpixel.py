"""Copies between pixels: the whole-pixel model beside the sub-pixel one, on copies at whole pixels and anywhere.

    python bench/accuracy/subpixel.py [--runs 20] [--first 0] [--snr 0.5 1]

Glyphs of 28 x 28 pixels, side 308, 13 copies at four rotations; the prior is Gaussian with the mean and covariance of glyphs that
are no targets. Means over the runs (each another glyph, other places, other noise) of E_s, also over shifts by fractions of a
pixel (E_f: what the sub-pixel model leaves to choose), copies found, evidence in nats, seconds of CPU, and the root mean square distance of the
detected copies from their true places, in pixels, in the frame of E_f.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from denoiser_quality import PCAPrior

import mtdcore as mtd
from mtdcore.results.detections import detect
from mtdcore.results.matching import match
from mtdcore.results.metrics import align
from mtdcore.synthetic.simulate import Simulation

BOX, SIDE, COPIES, SHIFT, OTHERS = 28, 308, 13, 6, 2000


def distance(found: mtd.Recovery, made: Simulation) -> float:
    """Root mean square distance of the detected copies from the truth, pixels, in its frame; NaN without copies."""
    copies = detect(made.measurement, found.target, found.likelihood)
    posed = copies.in_frame_of(align(found.target, made.target, 4, SHIFT, fractions=True))
    pairs = match(posed, made.positions, 2.0).pairs
    apart = posed.positions[pairs[:, 0]] - made.positions[pairs[:, 1]]
    return float(np.sqrt(np.mean(np.square(apart).sum(axis=1)))) if len(pairs) else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first glyph and seed")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.5, 1.0])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    images = mtd.datasets.glyphs(OTHERS, BOX)
    targets = images[: options.first + options.runs].astype(np.float64)
    prior = PCAPrior.fit(images[max(100, options.first + options.runs) :])
    backend = mtd.get_backend("cpu", threads=1)
    print("SNR  copies  model | E_s  E_f  copies  nats  CPU s  off, px", flush=True)
    for snr in options.snr:
        for between in (False, True):
            rows: dict[str, list[tuple[float, ...]]] = {"whole": [], "sub-pixel": []}
            for seed in range(options.first, options.first + options.runs):
                target = targets[seed]
                made = mtd.simulate(target, side=SIDE, count=COPIES, snr=snr, subpixel=between, seed=seed)
                for name, row in rows.items():
                    began = time.process_time()
                    found = mtd.recover(
                        made.measurement,
                        box_size=BOX,
                        subpixel=name == "sub-pixel",
                        prior=prior,
                        seed=seed,
                        iterations=40,
                        backend=backend,
                    )
                    spent = time.process_time() - began
                    error = mtd.relative_error(found.target, target, 4, SHIFT)
                    beyond = mtd.relative_error(found.target, target, 4, SHIFT, fractions=True)
                    row.append(
                        (error, beyond, found.expected_count, found.evidence, spent, distance(found, made))
                    )
            for name, row in rows.items():
                e, f, copies, nats, spent, off = np.nanmean(row, axis=0)
                print(
                    f"{snr:g}  {'anywhere' if between else 'whole'}  {name} | {e:.3f}  {f:.3f}  {copies:.1f}  {nats:.0f}  {spent:.2f}  {off:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
