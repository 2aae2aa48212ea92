"""Chains have the spread of the exact posterior, and their intervals hold the truth where poses are in doubt."""

from dataclasses import replace

import numpy as np
import pytest

import mtdcore.results.chains as chains_module
from mtdcore import GaussianPrior, e_step, get_backend, recover, simulate
from mtdcore.errors import InputError, ParameterError
from mtdcore.mstep.langevin import LangevinUpdate
from mtdcore.results import posterior_chains

EXACT = get_backend("cpu", precision="float64", threads=1)


class Once(LangevinUpdate):
    """Each deviation in one step instead of two: SEM, which leaves out what the poses withhold."""

    def __call__(self, *told):
        before = self._before
        moved = super().__call__(*told)
        last = self._before
        return moved if before is None else moved + last - (last + before) / np.sqrt(2)


def problem(side, seed, snr, **options):
    """Mean, truth, measurement, options of the run, and its result."""
    mean = np.random.default_rng(0).integers(0, 5, size=(side, side)).astype(float)
    truth = mean + np.random.default_rng(seed).normal(size=(side, side))
    made = simulate(truth, side=11 * side, density=0.1, snr=snr, seed=seed, dtype="float64")
    prior = GaussianPrior(mean, 1.0)
    told = dict(box_size=side, noise_std=made.noise_std, prior=prior, backend=EXACT, **options)
    return mean, truth, made.measurement, told, recover(made.measurement, initial=mean, **told)


@pytest.fixture(scope="module")
def run():
    return problem(5, 1, 0.5, iterations=25)


def test_the_spread_is_that_of_the_exact_posterior(monkeypatch):
    """The patch model of a 3 x 3 target, whose likelihood is exact: draws of the chain against importance weights."""
    mean, _, measurement, told, found = problem(3, 1, 1.0, likelihood="patch", offset=0.0, iterations=200)
    walk = posterior_chains(measurement, found, 4, 100, 2, **told)
    draws = walk.images.reshape(-1, 9)
    rng, root = np.random.default_rng(5), np.linalg.cholesky(1.3 * np.cov(draws.T))
    numbers = rng.normal(size=(600, 9))
    points = draws.mean(axis=0) + numbers @ root.T
    log_weights = [
        e_step(measurement, point.reshape(3, 3), found.likelihood, EXACT).log_likelihood
        - ((point - mean.ravel()) ** 2).sum() / 2
        + (number**2).sum() / 2
        for point, number in zip(points, numbers, strict=True)
    ]
    weights = np.exp(np.array(log_weights) - max(log_weights))
    weights /= weights.sum()
    assert 1 / (weights**2).sum() > 200
    centre = weights @ points
    exact = np.sqrt(weights @ (points - centre) ** 2)
    assert np.abs(walk.mean.ravel() - centre).max() < 0.5 * exact.min()
    assert (walk.std.ravel() / exact).mean() == pytest.approx(1.0, abs=0.08)
    monkeypatch.setattr(chains_module, "LangevinUpdate", Once)
    once = posterior_chains(measurement, found, 4, 100, 2, **told)
    assert (once.std.ravel() / exact).mean() < 0.85


@pytest.mark.slow
def test_intervals_hold_the_truth_more_often_with_every_deviation_twice(monkeypatch):
    """SNR 0.5, 8 targets of 25 pixels."""
    shares = []
    for seed in range(8):
        _, truth, measurement, told, found = problem(5, seed, 0.5, iterations=25)
        pair = []
        for update in (LangevinUpdate, Once):
            monkeypatch.setattr(chains_module, "LangevinUpdate", update)
            walk = posterior_chains(measurement, found, 1, 60, 2, seed, 16, **told)
            pair.append([walk.coverage(truth), walk.std.mean()])
        shares.append(pair)
    (twice, wide), (once, narrow) = np.mean(shares, axis=0)
    assert narrow < 0.93 * wide
    assert once + 0.02 < twice
    assert 0.86 <= twice <= 0.96


def test_chains_go_on_from_the_result_in_its_frame_and_say_whether_they_met(run):
    _, _, measurement, told, found = run
    walk = posterior_chains(measurement, found, 3, 30, 3, levels=16, **told)
    assert walk.images.shape == (90, 5, 5)
    assert walk.chains == 3
    assert walk.r_hat.shape == walk.effective_size.shape == (5, 5)
    assert walk.r_hat.mean() < 1.1
    assert 30 < walk.effective_size.mean() < 150
    assert np.abs(walk.mean - found.target).mean() < walk.std.mean()


def test_a_seed_draws_the_same_and_the_numbers_follow(run):
    _, _, measurement, told, found = run
    seen = []
    first, again, other = (
        posterior_chains(
            measurement,
            found,
            1,
            4,
            1,
            seed,
            4,
            **told,
            callback=lambda state: seen.append(state.likelihood.offset),
        )
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.images, again.images)
    assert not np.allclose(first.images, other.images)
    assert len(seen) == 3 * 6  # a third more iterations than draws
    assert seen[5] != found.offset


def test_what_chains_are_not_for(run):
    _, _, measurement, told, found = run
    leader = replace(found.state.leader, target=np.zeros((2, 5, 5)))
    several = replace(found, state=replace(found.state, candidates=(leader,)))
    with pytest.raises(ParameterError, match="one target; got targets of shape \\(2, 5, 5\\)"):
        posterior_chains(measurement, several, **told)
    with pytest.raises(ParameterError, match="got 0, 25 and 4"):
        posterior_chains(measurement, found, 0, **told)
    empty = replace(found, statistics=replace(found.statistics, expected_count=0.0))
    with pytest.raises(InputError, match="expects 0"):
        posterior_chains(measurement, empty, **told)
