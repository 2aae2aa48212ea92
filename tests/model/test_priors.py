"""Analytic priors: the contract, and the score as the derivative of the smoothed log-density."""

import numpy as np
import pytest

from mtdcore import FlatPrior, GaussianPrior, Prior
from mtdcore.errors import ParameterError
from mtdcore.model.priors import denoise
from mtdcore.testing import PriorConformance

MEAN = np.random.default_rng(0).normal(size=(8, 8))


class TestFlatPrior(PriorConformance):
    def make_prior(self):
        return FlatPrior()

    def make_images(self, count):
        return np.random.default_rng(0).normal(size=(count, 8, 8))


class TestGaussianPrior(PriorConformance):
    def make_prior(self):
        return GaussianPrior(MEAN, 0.4)

    def make_images(self, count):
        return MEAN + 0.4 * np.random.default_rng(0).normal(size=(count, 8, 8))


@pytest.mark.parametrize("level", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("mean", [0.5, MEAN], ids=["scalar", "image"])
def test_score_is_the_derivative_of_the_log_density(mean, level):
    def log_density(image):
        return -0.5 * np.sum((image - mean) ** 2) / (0.4**2 + level**2)

    image, direction = np.random.default_rng(1).normal(size=(2, 8, 8))
    slope = (log_density(image + 1e-4 * direction) - log_density(image - 1e-4 * direction)) / 2e-4
    score = GaussianPrior(mean, 0.4).score(image[None], level)
    assert slope == pytest.approx(np.vdot(score, direction), rel=1e-8)


def test_denoising_a_gaussian_is_the_posterior_mean():
    noisy = np.random.default_rng(1).normal(size=(2, 8, 8))
    expected = (noisy / 0.3**2 + MEAN / 0.4**2) / (1 / 0.3**2 + 1 / 0.4**2)
    assert np.allclose(denoise(GaussianPrior(MEAN, 0.4), noisy, 0.3), expected, rtol=1e-12)
    assert np.array_equal(denoise(FlatPrior(), noisy, 0.3), noisy)


def test_anything_with_a_score_is_a_prior():
    class Mine:
        def score(self, images, noise_std):
            return -images

    assert isinstance(Mine(), Prior)
    assert not isinstance(object(), Prior)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.0), "std .* must be positive; got 0.0"),
        ((0.0, float("inf")), "std .* must be positive; got inf"),
        ((np.array([[0.0, np.nan]]), 1.0), "mean .* must be finite"),
    ],
)
def test_parameters_outside_their_domain(arguments, message):
    with pytest.raises(ParameterError, match=message):
        GaussianPrior(*arguments)
