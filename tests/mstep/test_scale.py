"""The scale of a prior: against densities that are known, and in any units."""

import math

import numpy as np
import pytest

from mtdcore.errors import ParameterError
from mtdcore.model.priors import GaussianPrior, ScaledPrior, centre_of, denoise
from mtdcore.mstep.scale import fitted_scale, scale_slope

MEAN = np.random.default_rng(5).uniform(0, 2, (9, 9))


def log_density(image, level, scale, mean=MEAN, std=0.5):
    variance = (scale * std) ** 2 + level**2
    return -0.5 * float(np.sum((image - scale * mean) ** 2 / variance + math.log(variance)))


def seen(scale, level, seed=0, std=0.5):
    random = np.random.default_rng(seed)
    return scale * (MEAN + std * random.standard_normal(MEAN.shape)) + level * random.standard_normal(
        MEAN.shape
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("level", [0.05, 0.5, 3.0])
def test_the_slope_is_that_of_the_density(factor, level):
    """A linear denoiser's divergence is exact with any probe of signs."""
    image, prior, scale = seen(3.0, level), GaussianPrior(MEAN, 0.5), 3.0 * factor
    up, down = (log_density(image, level, scale * math.exp(e)) for e in (1e-5, -1e-5))
    assert scale_slope(prior, image, level, scale) == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("start", [0.6, 1.0, 1.9])
@pytest.mark.parametrize("level", [0.1, 1.0])
def test_the_fitted_scale_is_the_maximum(start, level):
    image, prior = seen(3.0, level, seed=1), GaussianPrior(MEAN, 0.5)
    scales = np.geomspace(1.0, 9.0, 4001)
    best = scales[np.argmax([log_density(image, level, s) for s in scales])]
    assert fitted_scale(prior, image, level, 3.0 * start, reach=4.0) == pytest.approx(best, rel=0.01)


def test_a_prior_without_mean_is_fitted_by_its_spread():
    """N(0, alpha^2) seen through N(0, s^2): alpha^2 = mean square - s^2."""
    image = 5.0 * np.random.default_rng(2).standard_normal((40, 40))
    expected = math.sqrt(np.mean(image**2) - 1.0)
    assert fitted_scale(GaussianPrior(0.0, 1.0), image, 1.0, 3.0, reach=4.0) == pytest.approx(
        expected, rel=0.01
    )


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_do_not_matter(unit):
    image, prior = seen(3.0, 0.4), GaussianPrior(MEAN, 0.5)
    plain = fitted_scale(prior, image, 0.4, 2.0)
    assert fitted_scale(prior, unit * image, unit * 0.4, unit * 2.0) == pytest.approx(unit * plain, rel=1e-9)
    assert scale_slope(prior, unit * image, unit * 0.4, unit * 2.0) == pytest.approx(
        scale_slope(prior, image, 0.4, 2.0), rel=1e-6, abs=1e-6
    )


def test_no_further_than_its_reach():
    prior = GaussianPrior(MEAN, 0.1)
    assert fitted_scale(prior, seen(100.0, 1.0), 1.0, 1.0, reach=1.5) == pytest.approx(1.5)
    assert fitted_scale(prior, seen(1.0, 0.1), 0.1, 100.0, reach=1.5) == pytest.approx(100 / 1.5)


def test_an_answer_that_is_no_number_leaves_the_scale():
    class Broken(GaussianPrior):
        def score(self, images, noise_std):
            return images * np.nan

    assert fitted_scale(Broken(0.0), np.ones((4, 4)), 1.0, 2.5) == 2.5


class TestScaledPrior:
    def test_it_is_the_density_of_scaled_images(self):
        images = np.random.default_rng(0).standard_normal((3, 9, 9))
        for level in (0.0, 0.3, 4.0):
            expected = GaussianPrior(7 * MEAN, 7 * 0.5).score(images, level)
            np.testing.assert_allclose(
                ScaledPrior(GaussianPrior(MEAN, 0.5), 7.0).score(images, level), expected, rtol=1e-12
            )

    def test_its_denoiser_has_the_units_of_the_measurement(self):
        images, prior = np.random.default_rng(1).standard_normal((2, 9, 9)), GaussianPrior(MEAN, 0.5)
        scaled = denoise(ScaledPrior(prior, 1e4), 1e4 * images, 1e4 * 0.3)
        np.testing.assert_allclose(scaled, 1e4 * denoise(prior, images, 0.3), rtol=1e-9)

    def test_it_lies_where_its_prior_lies(self):
        class Centred(GaussianPrior):
            centre = (3.0, 4.0)

        assert centre_of(ScaledPrior(Centred(0.0), 3.0), 9) == (3.0, 4.0)
        assert centre_of(ScaledPrior(GaussianPrior(0.0), 3.0), 9) is None

    @pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
    def test_a_scale_is_positive(self, scale):
        with pytest.raises(ParameterError, match="positive"):
            ScaledPrior(GaussianPrior(0.0), scale)
