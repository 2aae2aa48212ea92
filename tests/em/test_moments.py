"""Recoveries by the moments of a measurement, and EM that starts from them."""

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.em.checks.doubts import undoubted
from mtdcore.errors import ParameterError
from mtdcore.results.halves import at_target, half_recoveries

BOX = 7


@pytest.fixture(scope="module")
def made():
    target = np.random.default_rng(0).uniform(size=(BOX, BOX))
    return mtd.simulate(target, shape=(280, 280), density=0.1, snr=10.0, seed=1)


@pytest.fixture(scope="module")
def found(made):
    return mtd.recover(made.measurement, box_size=BOX, method="moments")


def test_the_method_of_moments_is_a_recovery_like_any_other(made, found):
    assert found.state.iteration == 0
    assert mtd.relative_error(found.target, made.target, max_shift=1) < 0.3
    assert found.expected_count == pytest.approx(len(made.positions), rel=0.1)
    assert found.noise_std == pytest.approx(made.noise_std, rel=0.1)
    assert found.evidence > 100.0
    again = at_target(made.measurement, found.target, found.likelihood, box_size=BOX, method="moments")
    assert again.evidence == pytest.approx(found.evidence)


def test_em_goes_on_from_moments(made, found):
    started = mtd.recover(made.measurement, box_size=BOX, initial="moments", iterations=8)
    errors = [mtd.relative_error(one.target, made.target, max_shift=1) for one in (started, found)]
    assert errors[0] < errors[1]
    assert started.state.schedule.start == 1.0


@pytest.mark.parametrize(("units", "offset"), [(1e3, 0.0), (1e-3, 7.0)])
def test_units_and_offset_do_not_matter(made, found, units, offset):
    pixels = units * np.asarray(made.measurement, np.float64) + offset
    other = mtd.recover(pixels, box_size=BOX, method="moments")
    assert mtd.relative_error(other.target / units, found.target, max_shift=1) < 0.05  # rounding may turn it
    assert other.offset == pytest.approx(units * found.offset + offset, abs=0.02 * units)


def test_halves_are_fitted_each_from_its_own_moments(made, found):
    with undoubted():
        upper, lower = half_recoveries(made.measurement, found.target, box_size=BOX, method="moments")
    assert not np.array_equal(upper.target, lower.target)
    for half in (upper, lower):
        assert mtd.relative_error(half.target, made.target, max_shift=1) < 0.6


def test_noise_alone_gives_no_copies(found):
    noise = found.noise_std * np.random.default_rng(5).standard_normal((280, 280))
    with undoubted():
        nothing = mtd.recover(noise, box_size=BOX, method="moments")
    assert nothing.evidence < 0.05 * found.evidence


def test_a_motif_comes_back_from_a_signal():
    motif = np.convolve(np.random.default_rng(2).standard_normal(24), np.hanning(7))[:24]
    made = mtd.simulate(motif, shape=(1, 40_000), density=0.1, snr=3.0, seed=1)
    found = mtd.recover(made.measurement, box_size=(1, 24), method="moments")
    assert mtd.relative_error(found.target, made.target, rotations=1, max_shift=6) < 0.4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "moment"}, "method must be"),
        ({"method": "moments", "initial": "blob"}, "leave it out"),
        ({"method": "moments", "initial": np.zeros((BOX, BOX))}, "not blank"),
        ({"method": "moments", "classes": 2}, "one target"),
        ({"initial": "moments", "micrographs": "each"}, "alike"),
    ],
)
def test_what_excludes_the_other_is_refused(made, options, says):
    with pytest.raises(ParameterError, match=says):
        mtd.recover(made.measurement, box_size=BOX, **options)
