"""How well a prior denoises: the learned one beside a plain Gaussian (PCA) one and pixelwise shrinkage.

    python bench/accuracy/denoiser_quality.py IMAGES.npz --prior mnist --count 1000

Trains the Gaussian on "train_images" and measures all of them on "test_images": mean of ||D(x + s n; s) - x|| / ||x||.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdcore.model.priors import GaussianPrior, Prior, denoise

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class PCAPrior:
    """N(mean, C) with the full covariance of the pixels: the best linear denoiser at every level.

    Attributes:
        mean: (L * L,) mean image.
        axes: (L * L, L * L) eigenvectors of the covariance, one per column.
        variances: (L * L,) eigenvalues.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    @classmethod
    def fit(cls, images: np.ndarray) -> PCAPrior:
        flat = images.reshape(len(images), -1).astype(np.float64)
        variances, axes = np.linalg.eigh(np.cov(flat, rowvar=False))
        return cls(flat.mean(axis=0), axes, np.maximum(variances, 0))

    def score(self, images: np.ndarray, noise_std: float) -> np.ndarray:
        rotated = (self.mean - images.reshape(len(images), -1)) @ self.axes
        score = (rotated / (self.variances + noise_std**2)) @ self.axes.T
        return score.reshape(images.shape).astype(images.dtype)


def errors(prior: Prior, images: np.ndarray, seed: int) -> dict[str, float]:
    """Mean relative denoising error per level; every prior sees the same noise."""
    generator = np.random.default_rng(seed)
    norms = np.linalg.norm(images, axis=(1, 2))
    result = {}
    for level in LEVELS:
        noisy = images + level * generator.standard_normal(images.shape, dtype=np.float32)
        clean = np.concatenate([denoise(prior, noisy[i : i + 100], level) for i in range(0, len(noisy), 100)])
        result[f"{level:g}"] = float(np.mean(np.linalg.norm(clean - images, axis=(1, 2)) / norms))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help=".npz with train_images and test_images")
    parser.add_argument("--prior", default="mnist", help="shipped prior or .safetensors file")
    parser.add_argument("--count", type=int, default=1000, help="number of test images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    from mtdbridge import load_prior

    with np.load(options.images) as archive:
        train = archive["train_images"].astype(np.float32) / 255
        test = archive["test_images"][: options.count].astype(np.float32) / 255
    learned = load_prior(options.prior, box_size=test.shape[-1])
    priors = {
        "learned": learned,
        "Gaussian (PCA)": PCAPrior.fit(train),
        "pixelwise shrinkage": GaussianPrior(float(train.mean()), float(train.std())),
    }
    table = {}
    for name, prior in priors.items():
        started = time.perf_counter()
        table[name] = errors(prior, test, options.seed)
        table[name]["milliseconds per image"] = (
            1e3 * (time.perf_counter() - started) / (len(test) * len(LEVELS))
        )
    training = {} if learned.card is None else learned.card.training
    print(json.dumps({"steps_done": training.get("steps_done"), "errors": table}, indent=2))


if __name__ == "__main__":
    main()
