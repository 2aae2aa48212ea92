import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mtdbridge import TorchPrior, load_prior, shipped_priors
from mtdbridge.priors import library as library_module
from mtdcore.model.priors import denoise
from mtdcore.synthetic.glyphs import glyphs
from mtdcore.testing import PriorConformance

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist.npz"
WEIGHTS = Path(library_module.__file__).parents[1] / "weights"


class Shrink(torch.nn.Module):
    """Exact denoiser of N(0, 1)."""

    def forward(self, images, level):
        return images / (1 + level[:, None, None] ** 2)


class TestAnyNetwork(PriorConformance):
    def make_prior(self):
        return TorchPrior(Shrink(), "denoiser", self.box_size, levels=(0.05, 4.0))

    def make_images(self, count):
        return np.random.default_rng(2).standard_normal((count, self.box_size, self.box_size))


class TestGlyphs(PriorConformance):
    box_size = 28
    levels = (0.05, 0.3, 2.0, 6.0)

    def make_prior(self):
        return load_prior("glyphs")

    def make_images(self, count):
        return glyphs(count, 28, seed=12345)


@pytest.mark.skipif(not MNIST.exists(), reason="needs the MNIST images")
class TestMnist(PriorConformance):
    box_size = 28
    levels = (0.05, 0.3, 2.0, 6.0)

    def make_prior(self):
        return load_prior("mnist")

    def make_images(self, count):
        with np.load(MNIST) as archive:
            return archive["test_images"][:count].astype(np.float32) / 255


def test_the_shipped_priors_are_there():
    assert shipped_priors() == ["glyphs", "mnist", "proteins-2d", "proteins-3d"]


@pytest.mark.parametrize("name", ["glyphs", "mnist"])
def test_shipped_priors_are_small_finished_and_documented(name):
    prior = load_prior(name, box_size=28)
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size <= 3_000_000
    assert prior.card.training["complete"]
    assert len(prior.card.data["sha256"]) == 64
    figures = (WEIGHTS / "README.md").read_text()
    assert prior.card.data["sha256"] in figures
    for level, error in prior.card.metrics["validation"].items():
        assert f"{error:.3f}" in figures, f"{name} at {level}"


@pytest.mark.parametrize("name", ["proteins-2d", "proteins-3d"])
def test_the_priors_of_proteins_are_small_finished_and_documented(name):
    prior, path = load_prior(name), WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size <= 4_000_000
    assert prior.card.training["complete"]
    figures = (WEIGHTS / "README.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in figures
    assert prior.card.data["sha256"] in figures
    for side, errors in prior.card.metrics["validation"].items():
        row = f"| {name}, {side} | " + " | ".join(f"{error:.3f}" for error in errors.values()) + " |"
        assert row in figures


def test_the_glyph_prior_denoises_glyphs_it_never_saw():
    """Well below the error of the best linear denoiser (a Gaussian with the covariance of the glyphs)."""
    train, clean = glyphs(3000, 28, seed=1), glyphs(100, 28, seed=99)
    mean, covariance = train.mean(0), np.cov(train.reshape(3000, -1), rowvar=False)
    for level in (0.3, 1.0):
        noisy = clean + level * np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
        wiener = np.linalg.solve(covariance + level**2 * np.eye(784), (noisy - mean).reshape(100, -1).T)
        linear = mean + (covariance @ wiener).T.reshape(clean.shape)
        learned = denoise(load_prior("glyphs"), noisy, level)
        error = [np.linalg.norm(d - clean) / np.linalg.norm(clean) for d in (learned, linear)]
        assert error[0] < 0.75 * error[1], (level, error)
