"""The engine with a network as its prior."""

import numpy as np
import torch
from torch import nn

import mtdcore as mtd
from mtdbridge import TorchPrior, load_prior

MEAN, STD = 0.3, 0.5


class GaussianDenoiser(nn.Module):
    """Exact denoiser of N(MEAN, STD^2) with a float64 parameter, so that nothing is rounded on the way."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(MEAN, dtype=torch.float64))

    def forward(self, images, level):
        variance = level[:, None, None] ** 2
        return (images * STD**2 + self.mean * variance) / (STD**2 + variance)


def measurement(snr):
    target = mtd.datasets.glyphs(1, 28, seed=77)[0].astype(np.float64)
    return target, mtd.simulate(target, side=168, density=0.1, snr=snr, seed=5)


def test_a_network_and_the_same_analytic_prior_recover_the_same_image():
    _, simulation = measurement(1.0)
    options = {
        "box_size": 28,
        "noise_std": simulation.noise_std,
        "iterations": 6,
        "seed": 1,
        "initial": "blob",
        "prior_scale": 1.0,
    }
    network = TorchPrior(GaussianDenoiser(), "denoiser", 28, levels=(1e-3, 100.0))
    one, two = (
        mtd.recover(simulation.measurement, prior=prior, **options).target
        for prior in (network, mtd.GaussianPrior(MEAN, STD))
    )
    np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-8)


def test_the_glyph_prior_helps():
    target, simulation = measurement(0.5)
    options = {
        "box_size": 28,
        "noise_std": simulation.noise_std,
        "iterations": 15,
        "seed": 0,
        "initial": target,
    }
    error = {
        name: mtd.relative_error(
            mtd.recover(simulation.measurement, prior=prior, **options).target, target, max_shift=6
        )
        for name, prior in (("with", load_prior("glyphs")), ("without", None))
    }
    assert error["with"] < 0.7 * error["without"], error
