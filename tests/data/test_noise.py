"""Estimates from the measurement alone."""

import numpy as np
import pytest

from mtdcore import open_measurement, simulate
from mtdcore.data.noise import default_expected_count, estimate_noise_std, excess_energy
from mtdcore.errors import InputError


def noise(*shape, std=2.0):
    return std * np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("shape", [(300, 300), (3, 150, 220), (40, 2500)])
def test_level_of_white_noise(shape):
    assert estimate_noise_std(open_measurement(noise(*shape))) == pytest.approx(2.0, rel=0.02)


def test_background_copies_and_holes_do_not_matter():
    made = simulate(np.full((9, 9), 20.0), side=400, density=0.1, noise_std=2.0, dtype="float64")
    pixels = made.measurement.array[0] + np.linspace(0, 50, 400)
    pixels[np.random.default_rng(1).uniform(size=pixels.shape) < 0.2] = np.nan
    assert estimate_noise_std(open_measurement(pixels)) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.ones((30, 30)), "no noise; give noise_std"),
        (np.full((30, 30), np.nan), "no two neighbouring pixels are valid"),
        (np.where(np.arange(30) % 2, np.nan, noise(30, 30)), "no two neighbouring pixels are valid"),
        (noise(30, 1), "no two neighbouring pixels are valid"),
    ],
    ids=["constant", "all invalid", "every other invalid", "one column"],
)
def test_no_level_to_find(pixels, message):
    with pytest.raises(InputError, match=message):
        estimate_noise_std(open_measurement(pixels))


def test_excess_is_the_energy_of_the_copies():
    target = np.full((10, 10), 5.0)
    made = simulate(target, side=500, count=200, noise_std=1.0, separation=1, dtype="float64")
    expected = 200 * np.sum(target**2)
    assert excess_energy(made.measurement, 1.0) == pytest.approx(expected, rel=0.02)
    half = made.measurement.array.copy()
    half[:, ::2] = np.nan  # invalid pixels are taken to be like the valid ones
    assert excess_energy(open_measurement(half), 1.0) == pytest.approx(expected, rel=0.05)


def test_excess_is_never_negative():
    assert excess_energy(open_measurement(noise(100, 100)), 3.0) == 0.0


def test_excess_of_nothing():
    with pytest.raises(InputError, match="no valid pixel"):
        excess_energy(open_measurement(np.full((30, 30), np.nan)), 1.0)


def test_default_count_covers_a_tenth():
    assert default_expected_count((3, 100, 200), 100) == pytest.approx(60)
    assert default_expected_count((1, 10, 10), 100) == 1.0


@pytest.mark.parametrize("unit", [1e-30, 1e20])
def test_units_beyond_float32_are_refused(unit):
    with pytest.raises(InputError, match="give the measurement in other units"):
        estimate_noise_std(open_measurement(unit * noise(50, 50)))


@pytest.mark.parametrize("shape", [(0, 40), (40, 0), (2, 0, 40)])
def test_a_measurement_without_pixels_has_no_noise_level(shape):
    with pytest.raises(InputError, match="no two neighbouring pixels"):
        estimate_noise_std(open_measurement(np.zeros(shape)))
