"""Noise that is not white: its spectrum learned with the image, beside the white model (docs/model.md 13).

    python bench/accuracy/noise.py [--first K] [--seeds N] [--kinds KIND ...] [--iterations N]

Glyphs at SNR .5, 308 x 308 pixels, 13 copies, four rotations, Gaussian prior of 1990 other glyphs (mean and covariance of their pixels).
To white noise of sigma are added: pink noise (power 1 / f^2) of .3 or 1 sigma, a gradient of 1 sigma, stripes along rows of .3 sigma.
E_s with up to six pixels of shift forgiven, of ``recover`` with noise "white" and "auto"; then of both from the truth: what the noise
itself costs, whatever the search finds.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

import mtdcore as mtd
from mtdcore.errors import Doubt

SIDE, BOX, GLYPHS = 308, 28, 2000
KINDS = ("white", "pink .3", "gradient", "stripes", "pink 1")


class GaussianPrior:
    """The Gaussian with the mean and covariance of some images, (N, L, L)."""

    def __init__(self, images: np.ndarray) -> None:
        self.mean = images.mean(axis=0)
        centred = (images - self.mean).reshape(len(images), -1)
        _, values, self.axes = np.linalg.svd(centred, full_matrices=False)
        self.variances = values**2 / len(images)

    def score(self, images: np.ndarray, noise_std: float) -> np.ndarray:
        """Of the density smoothed by noise of this level."""
        rest = (np.asarray(images) - self.mean).reshape(len(images), -1)
        along = rest @ self.axes.T
        slope = along / (self.variances + noise_std**2) @ self.axes
        slope += (rest - along @ self.axes) / (noise_std**2 + 1e-9)
        return -slope.reshape(images.shape)


def added(kind: str, rng: np.random.Generator) -> np.ndarray:
    """What is added to the white noise, in units of its standard deviation."""
    name, _, level = kind.partition(" ")
    if name == "pink":
        frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
        frequency[0, 0] = 1 / SIDE
        noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / frequency).real
        return float(level) * noise / noise.std()
    if name == "gradient":
        return np.sqrt(3.0) * np.linspace(-1.0, 1.0, SIDE)[None] * np.ones((SIDE, 1))
    if name == "stripes":
        return 0.3 * rng.standard_normal((SIDE, 1)) * np.ones((1, SIDE))
    return np.zeros((SIDE, SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first", type=int, default=0, help="seed; 0 to 4 were in sight when the spectrum was designed"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--iterations", type=int, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore", Doubt)
    glyphs = mtd.datasets.glyphs(GLYPHS)
    prior = GaussianPrior(np.delete(glyphs, range(options.first, options.first + 10), axis=0))
    common = {
        "box_size": BOX,
        "rotations": 4,
        "prior": prior,
        "iterations": options.iterations,
        "backend": "cpu",
    }
    print("noise      seed   white   auto   from the truth: white, auto   nats: white, auto   filter")
    for kind in options.kinds:
        rows = []
        for seed in range(options.first, options.first + options.seeds):
            target = glyphs[seed]
            made = mtd.simulate(target, side=SIDE, density=0.1, snr=0.5, rotations=4, seed=seed)
            rng = np.random.default_rng(50 + seed)
            pixels = made.measurement.array[0] + made.noise_std * added(kind, rng)
            found = [
                mtd.recover(pixels.astype(np.float32), noise=noise, initial=start, **common)
                for start in (None, target)
                for noise in ("white", "auto")
            ]
            rows.append([mtd.relative_error(one.target, target, max_shift=6) for one in found])
            whitening = found[1].likelihood.whitening
            told = "none" if whitening is None else "with background" if whitening.background else "spectrum"
            errors = "   ".join(f"{error:.3f}" for error in rows[-1])
            print(
                f"{kind:9}  {seed:4}   {errors}   {found[0].evidence:6.0f} {found[1].evidence:6.0f}   {told}",
                flush=True,
            )
        for name, numbers in (("mean", np.mean(rows, axis=0)), ("spread", np.std(rows, axis=0))):
            print(f"{kind:9}  {name:>6} " + "   ".join(f"{number:.3f}" for number in numbers), flush=True)


if __name__ == "__main__":
    main()
