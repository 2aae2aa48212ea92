"""Draws from the posterior against the Gaussian posterior, and intervals against the truth."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore import FlatPrior, GaussianPrior, Micrographs, get_backend, recover, simulate
from mtdcore.errors import InputError, ParameterError
from mtdcore.results.metrics import align
from mtdcore.results.uncertainty import (
    PosteriorSamples,
    average_level,
    data_share,
    posterior_samples,
    unbiased_average,
)

EXACT = get_backend("cpu", precision="float64", threads=1)
MEAN = np.random.default_rng(0).integers(0, 5, size=(5, 5)).astype(float)
PRIOR = GaussianPrior(MEAN, 1.0)


def simulated(seed, snr=5.0):
    target = MEAN + np.random.default_rng(seed).normal(size=(5, 5))
    return simulate(target, side=55, density=0.1, snr=snr, seed=seed, dtype="float64")


def recovered(seed, snr=5.0, **options):
    made = simulated(seed, snr)
    found = recover(
        made.measurement,
        box_size=5,
        noise_std=made.noise_std,
        prior=PRIOR,
        initial=MEAN,
        iterations=25,
        backend=EXACT,
        **options,
    )
    return made.target, found


@pytest.fixture(scope="module")
def found():
    return recovered(1)[1]


def average(found):
    """The average, and its noise level."""
    return found.aligned_average, average_level(found)


class BlurPrior:
    """A Gaussian prior whose pixels are correlated, so that the Jacobian is no multiple of the identity."""

    def __init__(self):
        offset = np.arange(25)
        gap = np.hypot(np.subtract.outer(offset // 5, offset // 5), np.subtract.outer(offset % 5, offset % 5))
        self.covariance = np.exp(-gap / 2)

    def score(self, images, noise_std):
        precision = np.linalg.inv(self.covariance + noise_std**2 * np.eye(25))
        return -(images.reshape(-1, 25) @ precision).reshape(images.shape)

    def posterior(self, average, level):
        gain = self.covariance @ np.linalg.inv(self.covariance + level**2 * np.eye(25))
        return (gain @ average.ravel()).reshape(5, 5), level**2 * gain


@pytest.mark.parametrize("prior", [BlurPrior(), PRIOR], ids=["correlated", "white"])
def test_draws_have_the_mean_and_the_covariance_of_the_posterior(found, prior):
    level = average_level(found)
    if isinstance(prior, BlurPrior):
        mean, covariance = prior.posterior(found.aligned_average, level)
    else:
        gain = 1 / (1 + level**2)
        mean, covariance = MEAN + gain * (found.aligned_average - MEAN), level**2 * gain * np.eye(25)
    draws = posterior_samples(*average(found), prior, count=4000)
    assert np.abs(draws.mean - mean).max() < 4 * level / np.sqrt(4000)
    assert draws.std == pytest.approx(np.sqrt(np.diag(covariance)).reshape(5, 5), rel=0.06)
    sampled = np.cov(draws.images.reshape(-1, 25).T)
    assert np.linalg.norm(sampled - covariance) < 0.12 * np.linalg.norm(covariance)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """90 % intervals cover 85-95 % of true pixels. Ten targets at two noise levels, 500 pixels."""
    shares = []
    for snr in (1.0, 5.0):
        for seed in range(10):
            target, found = recovered(seed, snr)
            samples = posterior_samples(*average(found), PRIOR, count=400, seed=seed)
            gauge = align(samples.mean, target, rotations=4, max_shift=1)
            assert (gauge.rotation, gauge.shift) == (0, (0, 0))  # the prior fixes the gauge
            shares.append(samples.coverage(target, 0.9))
    assert 0.85 <= np.mean(shares) <= 0.95


def test_intervals_stay_honest_where_poses_are_in_doubt():
    """SNR 0.5: part of the mass lies on noise, so that draws from the plain average are too narrow."""
    shares = []
    for seed in range(16):
        target, found = recovered(seed, 0.5)
        unbiased = unbiased_average(simulated(seed, 0.5).measurement, found, EXACT)
        assert unbiased[1] > average_level(found)
        draws = [posterior_samples(*y, PRIOR, count=400, seed=seed) for y in (average(found), unbiased)]
        shares.append([samples.coverage(target, 0.9) for samples in draws])
    plain, honest = np.mean(shares, axis=0)
    assert plain + 0.04 < honest
    assert 0.85 <= honest <= 0.95


def test_where_poses_are_certain_the_average_is_unbiased(found):
    image, level = unbiased_average(simulated(1).measurement, found, EXACT)
    assert level == pytest.approx(average_level(found), rel=0.01)
    assert image == pytest.approx(found.aligned_average, abs=0.02)


def test_an_unbiased_average_needs_whole_windows(found):
    _, patches = recovered(1, likelihood="patch")
    with pytest.raises(ParameterError, match="by the window model; got PatchLikelihood"):
        unbiased_average(simulated(1).measurement, patches)


def test_an_unbiased_average_needs_micrographs_that_are_alike(found):
    facts = Micrographs(np.ones(1))
    likelihood = replace(found.likelihood, micrographs=facts)
    leader = replace(found.state.leader, likelihood=likelihood)
    unlike = replace(found, state=replace(found.state, candidates=(leader,)))
    with pytest.raises(ParameterError, match="alike"):
        unbiased_average(simulated(1).measurement, unlike)


def test_the_same_seed_draws_the_same_whatever_the_batch_of_the_prior(found):
    a, b = (posterior_samples(*average(found), PRIOR, count=4, seed=3).images for _ in range(2))
    assert np.array_equal(a, b)
    assert posterior_samples(*average(found), PRIOR, count=5, batch=2).images.shape == (5, 5, 5)
    assert not np.array_equal(a, posterior_samples(*average(found), PRIOR, count=4, seed=4).images)


def test_interval_and_coverage_of_known_draws():
    images = np.linspace(0.1, 99.9, 999)[:, None, None] * np.ones((1, 2, 2))
    low, high = PosteriorSamples(images).interval(0.9)
    assert low == pytest.approx(np.full((2, 2), 5.0))
    assert high == pytest.approx(np.full((2, 2), 95.0))
    assert PosteriorSamples(images).coverage(np.array([[4.0, 6.0], [50.0, 96.0]])) == 0.5


@pytest.mark.parametrize("count", [19, 100])
def test_a_further_draw_lies_in_the_interval_as_often_as_it_says_however_few_there_are(count):
    draws = np.random.default_rng(0).normal(size=(count + 1, 200, 200))
    assert PosteriorSamples(draws[1:]).coverage(draws[0], 0.9) == pytest.approx(0.9, abs=0.006)


@pytest.mark.parametrize("std", [0.1, 1.0, 5.0])
def test_data_share_of_a_gaussian_prior(found, std):
    level = average_level(found)
    assert data_share(*average(found), GaussianPrior(MEAN, std)) == pytest.approx(
        std**2 / (std**2 + level**2)
    )


def test_data_share_is_the_mean_diagonal_of_the_jacobian(found):
    prior = BlurPrior()
    _, covariance = prior.posterior(found.aligned_average, average_level(found))
    expected = np.trace(covariance) / average_level(found) ** 2 / 25
    assert data_share(*average(found), prior, probes=400) == pytest.approx(expected, rel=0.01)


def test_without_a_prior_the_data_decide_all(found):
    assert data_share(*average(found), FlatPrior()) == pytest.approx(1.0)


def test_no_copies_no_uncertainty(found):
    empty = replace(found, statistics=replace(found.statistics, expected_count=0.0))
    with pytest.raises(InputError, match="expects 0"):
        average_level(empty)


def test_parameters_outside_their_domain(found):
    with pytest.raises(ParameterError, match="at least 2 draws"):
        posterior_samples(*average(found), PRIOR, count=1)
    with pytest.raises(ParameterError, match="at least 1 probe"):
        data_share(*average(found), PRIOR, probes=0)
    with pytest.raises(ParameterError, match="strictly between 0 and 1"):
        posterior_samples(*average(found), PRIOR, count=2).interval(1.0)
