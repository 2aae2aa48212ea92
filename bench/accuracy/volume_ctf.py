"""Volumes behind CTFs: the transfer of each micrograph in the model, beside a model that knows of none.

    python bench/accuracy/volume_ctf.py [--seeds 0 1 2 3] [--snr 1]

A chain in a box of 16 pixels of 4 angstrom, forty copies on each of eight micrographs with defocus from 0.8 to 2.0 micrometre, phases flipped,
white noise; SNR is that before the CTF. Cold start. After alignment over rotation, shift and hand: *shape* (the correlation of what is
not spherically symmetric), the plain correlation, and the scale against the truth.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import mtdcore as mtd
from mtdcore.data.preparation.ctf import Ctf
from mtdcore.results.volumes import align_volumes, shape_correlation
from mtdcore.synthetic.volumes import chain

BOX, PIXEL, COPIES, DEFOCI = 16, 4.0, 40, np.linspace(8000.0, 20000.0, 8)


def transfers() -> np.ndarray:
    """(8, 257) magnitudes of the CTFs from frequency 0 to 1/2 cycles per pixel."""
    rows = []
    for defocus in DEFOCI:
        grid = Ctf(defocus, defocus, 0.0).grid((512, 512), PIXEL)
        rows.append(np.abs(grid[0, :257]))
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--snr", type=float, default=1.0)
    options = parser.parse_args()
    transfer = transfers()
    print("seed  CTF    shape  correlation  scale   nats  copies (320)  CPU s")
    for seed in options.seeds:
        made = mtd.simulate_volume(
            chain(BOX),
            box_size=BOX,
            count=COPIES,
            micrographs=len(DEFOCI),
            density=0.2,
            snr=options.snr,
            transfer=transfer,
            seed=seed,
        )
        truth = made.volume
        for name, known in (
            ("known", mtd.Micrographs(np.ones(len(DEFOCI)), transfer=transfer)),
            ("none", None),
        ):
            began = time.process_time()
            run = mtd.recover_volume(
                made.measurement, box_size=BOX, noise="white", micrographs=known, seed=seed
            )
            found = align_volumes(run.volume, truth).volume
            plain = np.corrcoef(found.ravel(), truth.ravel())[0, 1]
            scale = np.vdot(found, truth) / np.vdot(truth, truth)
            print(
                f"{seed:4}  {name:5} {shape_correlation(found, truth):6.3f}  {plain:11.3f}  {scale:5.2f}  {run.evidence:5.0f}  "
                f"{run.expected_count:12.0f}  {time.process_time() - began:5.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
