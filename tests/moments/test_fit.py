"""From moments to a target: the closed forms, their gradient, and the fit."""

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.errors import ParameterError
from mtdcore.moments.measure import measure_moments
from mtdcore.moments.objective import Misfit

BOX = 7


@pytest.fixture(scope="module")
def target():
    return np.random.default_rng(0).uniform(size=(BOX, BOX))


def simulated(target, snr, rotations=4, shape=(150, 171), seed=1):
    return mtd.simulate(target, shape=shape, density=0.1, snr=snr, rotations=rotations, seed=seed)


@pytest.mark.parametrize("rotations", [1, 2, 4, 8])
def test_the_gradient_is_that_of_the_misfit(target, rotations):
    made = simulated(target, 1.0, rotations)
    misfit = Misfit(measure_moments(made.measurement, BOX, reach=2), mtd.Rotations(rotations, BOX))
    image, direction = np.random.default_rng(2).standard_normal((2, BOX, BOX))
    nats, slope, of_copies = misfit(image, 5.0)
    step = 1e-5
    change = (misfit(image + step * direction, 5.0)[0] - misfit(image - step * direction, 5.0)[0]) / (
        2 * step
    )
    assert np.sum(slope * direction) == pytest.approx(change, rel=1e-6)
    change = (misfit(image, 5.0 + step)[0] - misfit(image, 5.0 - step)[0]) / (2 * step)
    assert of_copies == pytest.approx(change, rel=1e-6)
    assert nats > 0


@pytest.mark.parametrize("rotations", [1, 2, 4])
def test_closed_forms_hold_exactly_without_noise(target, rotations):
    """All copies inside the field, well separated, as often at each angle."""
    field, turned = np.zeros((96, 96)), mtd.Rotations(rotations, BOX).apply(target)
    for i, (row, column) in enumerate([(r, c) for r in (3, 40) for c in (0, 30, 55, 89)]):
        field[row : row + BOX, column : column + BOX] += turned[i % rotations]
    misfit = Misfit(measure_moments(field + 12.0, BOX, reach=3), mtd.Rotations(rotations, BOX))
    assert misfit(target, 8.0)[0] < 1e-12 * misfit(0 * target, 8.0)[0]
    assert misfit(1.01 * target, 8.0)[0] > 1e-6 * misfit(0 * target, 8.0)[0]


def test_errors_fall_with_the_root_of_the_area(target):
    """Sixteen times the area, a quarter of the error, within a factor of two."""

    def error(side):
        made = [simulated(target, 1.0, shape=(side, side), seed=seed) for seed in range(4)]
        misfits = [Misfit(measure_moments(m.measurement, BOX, reach=2), mtd.Rotations(4, BOX)) for m in made]
        off = [
            one.third.values - one.expected(target, len(m.positions))[1]
            for one, m in zip(misfits, made, strict=True)
        ]
        return np.sqrt(np.mean(np.square(off)))

    assert 2.0 < error(100) / error(400) < 8.0


def test_the_variance_is_that_of_white_noise():
    """Of noise alone the misfit of nothing is half the number of moments."""
    noise = np.random.default_rng(3).standard_normal((400, 400))
    misfit = Misfit(measure_moments(noise, BOX, reach=2), mtd.Rotations(4, BOX))
    assert misfit(np.zeros((BOX, BOX)), 1.0)[0] == pytest.approx(misfit.size / 2, rel=0.15)


def test_a_target_comes_back_from_its_moments(target):
    made = simulated(target, 20.0, shape=(400, 400))
    moments = measure_moments(10.0 * np.asarray(made.measurement) + 500.0, BOX, reach=3)
    found = mtd.fit_moments(moments, mtd.Rotations(4, BOX))
    assert mtd.relative_error(found.target / 10.0, target, max_shift=1) < 0.15
    assert found.copies == pytest.approx(len(made.positions), rel=0.05)
    assert found.offset == pytest.approx(500.0, abs=0.5)
    assert found.noise_std == pytest.approx(10.0 * made.noise_std, rel=0.05)


def test_a_prior_helps(target):
    made = simulated(target, 1.0, shape=(300, 300))
    moments = measure_moments(made.measurement, BOX, reach=3)
    views = mtd.Rotations(4, BOX)
    alone = mtd.fit_moments(moments, views)
    helped = mtd.fit_moments(moments, views, mtd.GaussianPrior(target, 0.1))
    errors = [mtd.relative_error(one.target, target, max_shift=1) for one in (alone, helped)]
    assert errors[1] < 0.15 < errors[0]


def test_what_moments_cannot_tell_is_refused(target):
    moments = measure_moments(simulated(target, 1.0).measurement, BOX, reach=1)
    with pytest.raises(ParameterError, match="one target"):
        mtd.fit_moments(moments, mtd.Classes(mtd.Rotations(4, BOX), 2))
    with pytest.raises(ParameterError, match="measure them again"):
        mtd.fit_moments(moments, mtd.Rotations(4, BOX + 1))
    with pytest.raises(ParameterError, match="at least 1"):
        mtd.fit_moments(moments, mtd.Rotations(4, BOX), starts=0)
