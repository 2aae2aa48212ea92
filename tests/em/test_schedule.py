"""The temperature of every iteration."""

import math

import numpy as np
import pytest

from mtdcore import PatchLikelihood, WindowLikelihood, open_measurement, simulate
from mtdcore.em.temperature import Temperature
from mtdcore.errors import ParameterError

WINDOW = WindowLikelihood(8, 4, 0.5, 25.0)


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
    patch = Temperature.begin("auto", 10, PatchLikelihood(8, 4, 0.5), made.measurement)
    assert patch.at(0) == pytest.approx(25.6, rel=0.05)


def test_automatic_start_of_a_weak_signal_is_one():
    pure = open_measurement(0.5 * np.random.default_rng(0).normal(size=(128, 128)))
    assert Temperature.begin("auto", 10, WINDOW, pure).at(0) == 1.0
    assert Temperature.begin("auto", 10, WINDOW.with_noise_std(1.0), pure).at(0) == 1.0


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, math.inf, math.nan])
def test_temperatures_outside_their_domain(made, temperature):
    with pytest.raises(ParameterError, match=f'at least 1, or "auto"; got {temperature}'):
        Temperature.begin(temperature, 10, WINDOW, made.measurement)
