"""Draws of the first iterations have the spread of the posterior; the later iterations average."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.errors import ParameterError
from mtdcore.estep.statistics import Statistics
from mtdcore.model.normal import Diagonal
from mtdcore.model.priors import GaussianPrior
from mtdcore.results.metrics import align


def statistics(seen: np.ndarray, copies: float, noise_std: float) -> Statistics:
    """Of an image that was seen in so many copies."""
    numbers = dict.fromkeys(("log_likelihood", "energy", "empty_mass", "sites", "pixels"), 0.0)
    return Statistics(
        copies * seen,
        Diagonal(np.full(seen.shape, copies)),
        expected_count=copies,
        class_mass=np.array([copies]),
        noise_std=noise_std,
        **numbers,
    )


def test_draws_have_the_mean_and_the_spread_of_the_posterior() -> None:
    spread, noise_std, copies = 0.7, 2.0, 16.0
    seen = np.random.default_rng(0).normal(size=(40, 40))
    found = statistics(seen, copies, noise_std)
    level = noise_std / math.sqrt(copies)
    share = spread**2 / (spread**2 + level**2)
    draws = [
        mtd.AnnealedUpdate(seed=seed)(np.zeros_like(seen), found, GaussianPrior(0.0, spread), 0, 10)
        for seed in range(20)
    ]
    assert np.mean(draws, axis=0) == pytest.approx(share * seen, abs=0.7)
    assert np.std(np.array(draws) - share * seen) == pytest.approx(spread * math.sqrt(1 - share), rel=0.2)
    # another iteration draws anew, the same one draws the same
    again, other = (
        mtd.AnnealedUpdate(seed=3)(np.zeros_like(seen), found, GaussianPrior(0.0, spread), i, 10)
        for i in (0, 1)
    )
    np.testing.assert_array_equal(again, draws[3])
    assert not np.allclose(other, again)


def test_later_iterations_average() -> None:
    seen = np.random.default_rng(0).normal(size=(6, 6))
    found, prior = statistics(seen, 4.0, 1.0), GaussianPrior(0.0, 0.5)
    for update, iteration in ((mtd.AnnealedUpdate(), 5), (mtd.AnnealedUpdate(drawn=0.0), 0)):
        moved = update(np.zeros_like(seen), found, prior, iteration, 10)
        np.testing.assert_array_equal(
            moved, mtd.DenoisingUpdate()(np.zeros_like(seen), found, prior, iteration, 10)
        )
    with pytest.raises(ParameterError, match="between 0 and 1"):
        mtd.AnnealedUpdate(drawn=1.5)


def test_a_run_that_draws_ends_where_one_that_averages_does() -> None:
    glyph = mtd.datasets.glyphs(1, 16, seed=3)[0]
    made = mtd.simulate(glyph, side=160, density=0.12, snr=1.0, rotations=4, seed=0)
    prior = GaussianPrior(float(glyph.mean()), float(glyph.std()))
    runs = [
        mtd.recover(
            made.measurement,
            box_size=16,
            rotations=4,
            noise_std=made.noise_std,
            prior=prior,
            update=update,
            iterations=30,
            starts=2,
            seed=0,
            backend="cpu",
        )
        for update in (None, mtd.AnnealedUpdate())
    ]
    errors = [align(run.target, glyph, rotations=4, max_shift=4).error for run in runs]
    assert errors[1] == pytest.approx(errors[0], abs=0.02)
    assert errors[1] < 0.35
