"""Split R-hat and effective sizes of chains whose answers are known."""

import numpy as np
import pytest

from mtdcore._base.numerics.convergence import effective_size, split_r_hat
from mtdcore.errors import ParameterError


def autoregressive(correlation, chains=4, length=2000, pixels=30, seed=0):
    noise = np.random.default_rng(seed).normal(size=(chains, length, pixels))
    draws = np.empty_like(noise)
    draws[:, 0] = noise[:, 0]
    for step in range(1, length):
        draws[:, step] = correlation * draws[:, step - 1] + np.sqrt(1 - correlation**2) * noise[:, step]
    return draws


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, -0.4])
def test_the_size_is_that_of_an_autoregressive_process(correlation):
    """(1 - c) / (1 + c) of the draws: fewer where neighbours are alike, more where they are opposite."""
    draws = autoregressive(correlation)
    expected = 8000 * (1 - correlation) / (1 + correlation)
    assert effective_size(draws).mean() == pytest.approx(expected, rel=0.1)
    assert split_r_hat(draws).max() < 1.02


def test_the_error_of_a_mean_is_what_the_size_says():
    means = np.array([autoregressive(0.6, 2, 200, 10, seed).mean(axis=(0, 1)) for seed in range(60)])
    size = effective_size(autoregressive(0.6, 2, 200, 10)).mean()
    assert 1 / means.var() == pytest.approx(size, rel=0.2)


def test_chains_that_have_not_met_are_told_and_one_that_drifts():
    apart = autoregressive(0.3, 4, 200, 1) + np.array([0.0, 0.0, 0.0, 2.0])[:, None, None]
    drifting = autoregressive(0.3, 1, 200, 1) + np.linspace(0.0, 3.0, 200)[None, :, None]
    for draws in (apart, drifting):
        assert split_r_hat(draws) > 1.2
        assert effective_size(draws) < 20


def test_r_hat_by_hand():
    draws = np.array([[0.0, 2.0, 1.0, 3.0, 2.0]])
    # halves (0, 2) and (3, 2): within (2 + 1/2) / 2, between var(1, 5/2) = 9/8
    assert split_r_hat(draws) == pytest.approx(np.sqrt((1.25 / 2 + 9 / 8) / 1.25))


@pytest.mark.parametrize("told", [split_r_hat, effective_size])
def test_too_few_draws(told):
    with pytest.raises(ParameterError, match="at least 4 draws of a chain; got 3"):
        told(np.zeros((2, 3, 5, 5)))
