"""The temperature of every iteration."""

import math

import numpy as np
import pytest

from mtdcore import GaussianPrior, PatchLikelihood, WindowLikelihood, open_measurement, recover, simulate
from mtdcore.em.temperature import Temperature
from mtdcore.errors import ParameterError
from mtdcore.model.rotations import Rotations

WINDOW = WindowLikelihood(Rotations(4, 8), 0.5, 25.0)


@pytest.fixture
def made():
    return simulate(np.ones((8, 8)), side=128, count=25, noise_std=0.5, dtype="float64")


def test_falls_geometrically_to_exactly_one(made):
    schedule = Temperature.begin(8.0, 10, WINDOW, made.measurement)
    values = [schedule.at(i) for i in range(10)]
    assert values[0] == pytest.approx(8.0)
    assert np.allclose(np.diff(np.log(values[:7])), -math.log(8.0) / 6)
    assert values[6:] == [1.0] * 4


@pytest.mark.parametrize("temperature", [1, 1.0])
def test_no_temperature_is_one_throughout(made, temperature):
    schedule = Temperature.begin(temperature, 10, WINDOW, made.measurement)
    assert [schedule.at(i) for i in range(10)] == [1.0] * 10


def test_automatic_start_leaves_ten_nats_per_copy(made):
    schedule = Temperature.begin("auto", 10, WINDOW, made.measurement)
    # ||F||^2 / sigma^2 = 256 nats; the excess energy is that of the very copies, up to noise
    assert schedule.at(0) == pytest.approx(25.6, rel=0.05)
    patch = Temperature.begin("auto", 10, PatchLikelihood(Rotations(4, 8), 0.5), made.measurement)
    assert patch.at(0) == pytest.approx(25.6, rel=0.05)


def test_automatic_start_of_a_weak_signal_is_one():
    pure = open_measurement(0.5 * np.random.default_rng(0).normal(size=(128, 128)))
    assert Temperature.begin("auto", 10, WINDOW, pure).at(0) == 1.0
    assert Temperature.begin("auto", 10, WINDOW.with_noise_std(1.0), pure).at(0) == 1.0


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, math.inf, math.nan])
def test_temperatures_outside_their_domain(made, temperature):
    with pytest.raises(ParameterError, match=f'at least 1, or "auto"; got {temperature}'):
        Temperature.begin(temperature, 10, WINDOW, made.measurement)


@pytest.mark.parametrize(("noise", "first"), [(0.5, 25.6 / 5), (2.0, 1.0)])
def test_draws_from_a_prior_are_cooled_where_the_signal_is_strong(made, noise, first):
    """To 50 nats per copy, of the 256 that there are at noise 0.5 and the 16 at 2."""
    strong = simulate(np.ones((8, 8)), side=128, count=25, noise_std=noise, dtype="float64")
    some = {
        "box_size": 8,
        "prior": GaussianPrior(0.5),
        "starts": 2,
        "iterations": 1,
        "expected_count": 25,
        "noise": "white",
    }
    found = recover(strong.measurement, noise_std=noise, backend="cpu", **some)
    assert found.state.schedule.at(0) == pytest.approx(first, rel=0.1)
    given = recover(strong.measurement, noise_std=noise, backend="cpu", temperature=1.0, **some)
    assert given.state.schedule.at(0) == 1.0
