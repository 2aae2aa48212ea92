"""Do the units and the offset of a measurement matter? ``recover(c M + b)`` against ``c recover(M)``.

    python bench/accuracy/equivariance.py --snr 1 --seeds 11 12

Glyphs of 28 x 28 pixels, side 308, 13 copies; without a prior and with the shipped one (`glyphs`), windows and patches.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

import mtdcore as mtd
from mtdbridge import load_prior
from mtdcore.errors import Doubt

#: (c, b in noise levels, dtype); in counts c is in counts per noise level.
CASES = [
    (1e-6, 0.0, "float32"),
    (0.1, 5.0, "float32"),
    (1.0, 1e3, "float32"),
    (1e6, 0.0, "float32"),
    (1e6, 1e3, "float32"),
    (50.0, 1e3, "uint16"),
    (1000.0, 30.0, "uint16"),
]


def main() -> None:
    """Print E_s and nats of every case, and the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snr", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--iterations", type=int, default=60)
    given = parser.parse_args()
    warnings.simplefilter("ignore", Doubt)
    for seed in given.seeds:
        glyph = mtd.datasets.glyphs(3)[2]
        made = mtd.simulate(glyph, side=308, density=0.1, snr=given.snr, rotations=4, seed=seed)
        pixels = np.asarray(made.measurement.array)[0].astype("f8")
        for prior in (None, "glyphs"):
            for likelihood in ("window", "patch"):
                options = {
                    "box_size": 28,
                    "rotations": 4,
                    "iterations": given.iterations,
                    "seed": 0,
                    "likelihood": likelihood,
                    "prior": None if prior is None else load_prior(prior),
                }
                plain = mtd.recover(pixels.astype("f4"), **options)
                error = mtd.relative_error(plain.target, glyph, max_shift=6)
                print(
                    f"seed {seed} {likelihood:<7} prior {prior}: E_s {error:.4f}, {plain.evidence:.1f} nats",
                    flush=True,
                )
                for scale, offset, kind in CASES:
                    unit = scale / made.noise_std if kind == "uint16" else scale
                    moved = unit * (pixels + offset * made.noise_std)
                    moved = np.rint(moved).astype(kind) if kind == "uint16" else moved.astype(kind)
                    found = mtd.recover(moved, **options)
                    off = mtd.relative_error(found.target / unit, glyph, max_shift=6) - error
                    nats = found.evidence / plain.evidence - 1
                    print(
                        f"    c {scale:g}, b {offset:g}, {kind}: E_s {off:+.4f}, nats {nats:+.2%}", flush=True
                    )


if __name__ == "__main__":
    main()
