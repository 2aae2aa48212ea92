"""Copies as they are: between pixels, and of different strength. Each model beside the plain one, on copies of both kinds.

    python bench/accuracy/subpixel.py [--runs 20] [--first 0] [--snr 0.5 1] [--spread 0 0.6] [--models whole sub-pixel amplitudes both]

Glyphs of 28 x 28 pixels, side 308, 13 copies at four rotations; the prior is Gaussian with the mean and covariance of glyphs that
are no targets. Amplitudes are log-normal of mean 1 with a standard deviation of --spread; models: whole pixels, sub-pixel places, whole pixels
with amplitudes whose spread is learned, both. Means over the runs (each another glyph, other places, other noise) of E_s, also over
shifts by fractions of a pixel (E_f: what the sub-pixel model leaves to choose), the same two against the mean copy (of 13 amplitudes the mean is
off by a sixth, which the data cannot tell from a stronger target), copies found, evidence in nats, seconds of CPU, and of the detected copies
the root mean square distance from their true places, in pixels, in the frame of E_f: with the recovered target, and with the true one. Of amplitudes the spread that was learned, that of those drawn
about their mean, and the correlation of those detected with the true ones.
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

MODELS = {
    "whole": {},
    "sub-pixel": {"subpixel": True},
    "amplitudes": {"amplitude_std": "auto"},
    "both": {"subpixel": True, "amplitude_std": "auto"},
}


def detected(found: mtd.Recovery, made: Simulation, target: np.ndarray) -> tuple[float, float]:
    """By a target, root mean square distance of the detected copies from the truth, pixels, in its frame, and correlation of amplitudes; NaN without."""
    copies = detect(made.measurement, target, found.likelihood)
    posed = copies.in_frame_of(align(target, made.target, 4, SHIFT, fractions=True))
    mine, true = match(posed, made.positions, 2.0).pairs.T
    apart = posed.positions[mine] - made.positions[true]
    distance = float(np.sqrt(np.mean(np.square(apart).sum(axis=1)))) if len(mine) else np.nan
    if copies.amplitude is None or made.amplitudes is None or len(mine) < 3:
        return distance, np.nan
    return distance, float(np.corrcoef(copies.amplitude[mine], made.amplitudes[true])[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first glyph and seed")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--copies", nargs="+", choices=["whole", "anywhere"], default=["whole", "anywhere"])
    parser.add_argument("--spread", type=float, nargs="+", default=[0.0, 0.6])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    images = mtd.datasets.glyphs(OTHERS, BOX)
    targets = images[: options.first + options.runs].astype(np.float64)
    prior = PCAPrior.fit(images[max(100, options.first + options.runs) :])
    backend = mtd.get_backend("cpu", threads=1)
    print(
        "SNR  copies  spread  model | E_s  E_f | of the mean copy | copies  nats  CPU s  off  known, px | spread  drawn  correlation",
        flush=True,
    )
    for snr, place, spread in (
        (s, p, a) for s in options.snr for p in options.copies for a in options.spread
    ):
        rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in options.models}
        for seed in range(options.first, options.first + options.runs):
            target = targets[seed]
            made = mtd.simulate(
                target,
                side=SIDE,
                count=COPIES,
                snr=snr,
                subpixel=place == "anywhere",
                amplitude_std=spread,
                seed=seed,
            )
            amplitudes = np.ones(COPIES) if made.amplitudes is None else made.amplitudes
            drawn, mean = float(amplitudes.std() / amplitudes.mean()), float(amplitudes.mean())
            for name, row in rows.items():
                began = time.process_time()
                found = mtd.recover(
                    made.measurement,
                    box_size=BOX,
                    prior=prior,
                    seed=seed,
                    iterations=40,
                    backend=backend,
                    **MODELS[name],
                )
                spent = time.process_time() - began
                errors = [
                    mtd.relative_error(found.target, image, 4, SHIFT, fractions=f)
                    for image in (target, mean * target)
                    for f in (False, True)
                ]
                off, correlation = detected(found, made, found.target)
                known, _ = detected(found, made, target)
                learned = found.likelihood.amplitude_std
                row.append(
                    (
                        *errors,
                        found.expected_count,
                        found.evidence,
                        spent,
                        off,
                        known,
                        learned,
                        drawn,
                        correlation,
                    )
                )
        for name, row in rows.items():
            e, f, s, g, copies, nats, spent, off, known, learned, drawn, correlation = np.nanmean(row, axis=0)
            print(
                f"{snr:g}  {place}  {spread:g}  {name} | {e:.3f}  {f:.3f} | {s:.3f}  {g:.3f} | {copies:.1f}  {nats:.0f}  {spent:.2f}  {off:.3f}  {known:.3f} | "
                f"{learned:.2f}  {drawn:.2f}  {correlation:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
