"""Langevin steps on a linear-Gaussian problem whose poses are in doubt: their spread is that of the exact posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtdcore.errors import ParameterError
from mtdcore.estep.statistics import Statistics
from mtdcore.model.normal import Diagonal
from mtdcore.model.priors import FlatPrior, GaussianPrior
from mtdcore.mstep.langevin import LangevinUpdate
from mtdcore.mstep.updates import DenoisingUpdate

#: Share of the information that "poses" withhold, one for each row; every row has many pixels alike.
WITHHELD = np.array([0.0, 0.4, 0.8])[:, None]
COPIES, NOISE_STD = 9.0, 1.5
SEEN = np.random.default_rng(0).normal(size=(3, 600))


def e_step(target: np.ndarray) -> Statistics:
    """Each copy shows the target plus a Gaussian number that nobody knows, whose posterior mean takes the share withheld of what the copy shows beyond the target."""
    numbers = dict.fromkeys(("log_likelihood", "energy", "empty_mass", "sites", "pixels"), 0.0)
    return Statistics(
        COPIES * (SEEN - WITHHELD * (SEEN - target)),
        Diagonal(np.full(SEEN.shape, COPIES)),
        expected_count=COPIES,
        class_mass=np.array([COPIES]),
        noise_std=NOISE_STD,
        **numbers,
    )


def walked(update, prior, iterations: int) -> np.ndarray:
    target, states = np.zeros_like(SEEN), []
    for iteration in range(iterations):
        target = update(target, e_step(target), prior, iteration, iterations)
        states.append(target)
    return np.array(states)


def of_rows(values: np.ndarray) -> np.ndarray:
    """Means over iterations and pixels that are alike."""
    return values.mean(axis=(0, 2))


@pytest.mark.parametrize("spread", [0.5, math.inf])
def test_the_walk_has_the_mean_and_the_variance_of_the_posterior(spread: float) -> None:
    prior = FlatPrior() if math.isinf(spread) else GaussianPrior(0.0, spread)
    complete, own = COPIES / NOISE_STD**2, 1 / spread**2
    observed = (1 - WITHHELD) * complete
    exact = 1 / (observed + own)
    states = walked(LangevinUpdate(seed=1, levels=64), prior, 140)[40:]
    deviations = states - exact * observed * SEEN
    assert of_rows(deviations) == pytest.approx(np.zeros(3), abs=0.03)
    assert of_rows(deviations**2) == pytest.approx(exact.ravel(), rel=0.05)
    # each deviation in one step instead of two: too narrow by far in the last row
    rate = 1 - (observed + own) / (complete + own)
    once = 1 / (complete + own) / (1 - rate**2)
    assert of_rows(deviations**2)[2] > 1.3 * once[2, 0]


def test_without_copies_the_target_stays() -> None:
    target = np.ones_like(SEEN)
    empty = e_step(target).scaled(0.0)
    assert LangevinUpdate()(target, empty, GaussianPrior(0.0), 0, 1) is target


def test_a_seed_is_a_walk_about_the_steps_of_em() -> None:
    prior = GaussianPrior(0.0, 0.5)
    first, again, other = (walked(LangevinUpdate(seed=seed), prior, 3) for seed in ((4, 0), (4, 0), (4, 1)))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    steps = np.mean([walked(LangevinUpdate(seed=s, levels=8), prior, 1)[0] for s in range(40)], axis=0)
    level = NOISE_STD / math.sqrt(COPIES)
    expected = walked(DenoisingUpdate(relaxation=1.0), prior, 1)[0]
    assert np.abs(steps - expected).max() < 5 * level / math.sqrt(40)


def test_levels_are_enough_for_a_step() -> None:
    with pytest.raises(ParameterError, match="at least 2 levels; got 1"):
        LangevinUpdate(levels=1)
