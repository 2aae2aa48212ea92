"""How well a prior of proteins denoises: the learned one beside the best linear ones fitted to the same drawings.

    python bench/accuracy/protein_denoiser.py proteins.npz --prior proteins-2d --sides 24,28,48
    python bench/accuracy/protein_denoiser.py proteins.npz --prior proteins-2d --sides 24,28,48 --microscope 1
    python bench/accuracy/protein_denoiser.py proteins.npz --prior proteins-3d --sides 16,24,32 --count 161

The linear ones are fitted to drawings of the structures of "train": *PCA* with the full covariance of all frequencies up
to --full cycles per pixel and the power of each shell beyond, *spectral* with the power of each shell alone, both with
the mean. Measured on drawings of --part: mean of ||D(x + s n; s) - x|| / ||x||, s in root mean squares of a drawing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mtdbridge import load_prior
from mtdbridge.priors.parameterisation import denoise
from mtdbridge.proteins.batches import DrawingOptions, ProteinBatches, validation_drawings
from mtdbridge.proteins.loading import load_structures

LEVELS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0)


def hartley(data: np.ndarray) -> np.ndarray:
    """Orthonormal real transform of all axes but the first, its own inverse; white noise stays white."""
    spectrum = np.fft.fftn(data, axes=tuple(range(1, data.ndim)), norm="ortho")
    return spectrum.real - spectrum.imag


@dataclass(frozen=True)
class Linear:
    """The best linear denoiser of a distribution with this mean and covariance.

    Attributes:
        mean: mean drawing, Hartley-transformed and flat.
        low: indices of the coefficients with a full covariance.
        axes: its eigenvectors.
        variances: its eigenvalues.
        power: variance of every coefficient, used for the others.
    """

    mean: np.ndarray
    low: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    power: np.ndarray

    @classmethod
    def fit(cls, drawings: np.ndarray, full: float) -> Linear:
        side, dimension = drawings.shape[-1], drawings.ndim - 1
        axes = np.meshgrid(*[np.fft.fftfreq(side)] * dimension, indexing="ij")
        frequency = np.sqrt(sum(np.square(axis) for axis in axes)).ravel()
        shell = np.rint(frequency * side).astype(int)
        flat = hartley(drawings).reshape(len(drawings), -1)
        mean = flat.mean(axis=0)
        flat = flat - mean
        counts = np.bincount(shell)
        power = (np.bincount(shell, np.square(flat).mean(axis=0)) / counts)[shell]
        low = np.flatnonzero(frequency <= full)
        variances, vectors = (
            np.linalg.eigh(flat[:, low].T @ flat[:, low] / len(flat)) if len(low) else (low, low)
        )
        return cls(mean, low, vectors, np.maximum(variances, 0), power)

    def __call__(self, noisy: np.ndarray, level: float) -> np.ndarray:
        flat = hartley(noisy).reshape(len(noisy), -1) - self.mean
        clean = flat * (self.power / (self.power + level**2))
        if len(self.low):
            rotated = flat[:, self.low] @ self.axes
            clean[:, self.low] = (rotated * (self.variances / (self.variances + level**2))) @ self.axes.T
        return hartley((clean + self.mean).reshape(noisy.shape))


def errors(denoisers: dict[str, object], clean: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Mean relative error per denoiser and level; all see the same noise."""
    generator = np.random.default_rng(seed)
    pixels = tuple(range(1, clean.ndim))
    norms = np.sqrt(np.square(clean).sum(pixels))
    table: dict[str, dict[str, float]] = {name: {} for name in denoisers}
    for level in LEVELS:
        noisy = clean + level * generator.standard_normal(clean.shape, dtype=np.float32)
        for name, denoiser in denoisers.items():
            found = denoiser(noisy, level)
            error = np.sqrt(np.square(found - clean).sum(pixels)) / norms
            table[name][f"{level:g}"] = round(float(error.mean()), 4)
    return table


def learned(prior):
    """The denoiser of a prior, sixteen drawings at a time."""

    @torch.no_grad()
    def call(noisy, level):
        parts = torch.from_numpy(noisy.astype(np.float32)).split(16)
        net, kind = prior.network, prior.parameterisation
        return torch.cat([denoise(net, kind, part, level, prior.levels) for part in parts]).numpy()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("structures", type=Path)
    parser.add_argument(
        "--prior", default="", help="shipped prior or weights; none: the linear denoisers only"
    )
    parser.add_argument("--dimension", type=int, default=2, help="without a prior")
    parser.add_argument("--sides", default="28")
    parser.add_argument(
        "--fit", type=int, default=20_000, help="drawings that the linear denoisers are fitted to"
    )
    parser.add_argument("--count", type=int, default=161, help="drawings measured per side")
    parser.add_argument("--full", type=float, default=0.3)
    parser.add_argument(
        "--microscope",
        type=float,
        default=0.0,
        help="share of the drawings that are seen through a microscope",
    )
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    prior = load_prior(options.prior) if options.prior else None
    dimension = options.dimension if prior is None else prior.network.dimension
    structures = load_structures(options.structures)
    drawing = DrawingOptions(dimension=dimension, spread=0.0, microscope=options.microscope)
    train = ProteinBatches(structures.only("train"), drawing)
    held_out = ProteinBatches(structures.only(options.part), drawing)
    generator = torch.Generator().manual_seed(options.seed)
    result = {}
    for side in map(int, options.sides.split(",")):
        started = time.perf_counter()
        drawings = torch.cat([train(side, 100, generator) for _ in range(options.fit // 100)]).numpy()
        denoisers = {"PCA": Linear.fit(drawings, options.full), "spectral": Linear.fit(drawings, -1.0)}
        if prior is not None:
            denoisers["learned"] = learned(prior)
        clean = validation_drawings(held_out, side, options.count, options.seed).numpy()
        result[side] = errors(denoisers, clean, options.seed)
        print(f"side {side}, {time.perf_counter() - started:.0f} s", json.dumps(result[side]), flush=True)
    print(json.dumps({"prior": options.prior, "part": options.part, "errors": result}, indent=2))


if __name__ == "__main__":
    main()
