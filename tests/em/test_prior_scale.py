"""Priors with units of their own: nothing depends on the units of the measurement."""

import numpy as np
import pytest

from mtdcore import (
    GaussianPrior,
    GradientAscent,
    Rotations,
    WindowLikelihood,
    e_step,
    open_measurement,
    recover,
    relative_error,
    simulate,
)
from mtdcore.em.coarse import BinnedPrior
from mtdcore.em.gauge.frames import centre_of_mass
from mtdcore.em.gauge.scale import OwnUnits, in_units
from mtdcore.errors import ParameterError
from mtdcore.model.priors import ScaledPrior, has_own_units
from mtdcore.model.sampling import sample_prior

SIDE = 12


def bars():
    image = np.zeros((SIDE, SIDE))
    image[2:10, 3:5], image[7:9, 4:10] = 1.0, 0.7
    return image


class Own(GaussianPrior):
    """Images about two bars, in units of their own."""

    own_units = True
    centre = centre_of_mass(bars())


PRIOR = Own(bars(), 0.2)
TARGET = bars() + 0.2 * np.random.default_rng(3).standard_normal((SIDE, SIDE))


@pytest.fixture(scope="module")
def made():
    return simulate(TARGET, side=120, count=25, separation=1, snr=0.5, seed=2)


def run(made, unit, prior=PRIOR, **options):
    pixels = (unit * np.asarray(made.measurement.array)).astype(np.float32)
    options = {"box_size": SIDE, "noise_std": unit * made.noise_std, "iterations": 20, "starts": 4, **options}
    return recover(pixels, prior=prior, **options)


@pytest.fixture(scope="module")
def found(made):
    return run(made, 1.0)


def test_the_scale_is_found(found):
    assert found.prior_scales[0] == pytest.approx(1.0, abs=0.1)
    assert relative_error(found.target, TARGET) < 0.3
    assert found.summary()["prior_scales"] == list(found.prior_scales)


@pytest.fixture(scope="module")
def of_unknown_noise(made):
    return run(made, 1.0, noise_std="auto")


@pytest.mark.parametrize("unit", [1e-6, 0.1, 7.0, 1e6])
@pytest.mark.parametrize("noise", ["known", "auto"])
def test_the_units_of_the_measurement_do_not_matter(made, found, of_unknown_noise, unit, noise):
    options = {} if noise == "known" else {"noise_std": "auto"}
    expected = found if noise == "known" else of_unknown_noise
    scaled = run(made, unit, **options)
    largest = np.abs(expected.target).max()
    np.testing.assert_allclose(scaled.target / unit, expected.target, rtol=0, atol=1e-4 * largest)
    assert scaled.prior_scales[0] / unit == pytest.approx(expected.prior_scales[0], rel=1e-4)
    assert scaled.evidence == pytest.approx(expected.evidence, rel=1e-4)
    assert scaled.state.iteration == expected.state.iteration


def test_a_given_scale_is_kept_and_a_wrong_one_is_worse(made, found):
    right, wrong = (run(made, 7.0, prior_scale=scale) for scale in (7.0, 2.0))
    assert right.prior_scales is None
    error = [relative_error(r.target / 7.0, TARGET) for r in (right, wrong)]
    assert error[0] < 0.3
    assert error[1] > 1.5 * error[0]


def test_the_gauge_is_asked_in_the_units_of_the_prior(made):
    asked = []

    class Asked:
        def choose(self, target, seen):
            asked.append((target, seen))
            return target

    given = {"iterations": 1, "starts": 1, "tolerance": 1e9, "gauge": Asked()}
    for unit in (1.0, 7.0):
        run(made, unit, initial=unit * TARGET, **given)
    (target, seen), (scaled, seen_scaled) = asked
    largest = np.abs(target).max()
    np.testing.assert_allclose(scaled, target, rtol=0, atol=1e-4 * largest)
    np.testing.assert_allclose(seen_scaled.average, seen.average, rtol=0, atol=1e-4 * largest)
    assert seen_scaled.level == pytest.approx(seen.level, rel=1e-4)


def test_a_prior_in_the_units_of_the_measurement_keeps_them(made):
    assert run(made, 1.0, GaussianPrior(bars(), 0.2), iterations=2).prior_scales is None
    assert (
        run(made, 1.0, GaussianPrior(bars(), 0.2), iterations=2, prior_scale="auto").prior_scales is not None
    )
    assert run(made, 1.0, update=GradientAscent(1e-3), iterations=2).prior_scales is None


@pytest.mark.parametrize("scale", [0.0, -1.0, "much", float("nan")])
def test_wrong_scales_are_refused(made, scale):
    with pytest.raises(ParameterError, match="scale"):
        run(made, 1.0, prior_scale=scale)


def test_a_resumed_run_goes_on_with_the_same_bits(made, found):
    states = []
    run(made, 1.0, callback=lambda state: bool(states.append(state)) or len(states) == 7)
    assert len(states) == 7
    again = run(made, 1.0, state=states[-1])
    np.testing.assert_array_equal(again.target, found.target)
    assert again.prior_scales == found.prior_scales


def test_each_class_has_a_scale_of_its_own():
    other = 3.0 * np.rot90(bars()).T + 0.0
    strong, weak = (
        simulate(image, side=120, count=25, separation=1, noise_std=0.6, seed=seed)
        for seed, image in enumerate((other, TARGET))
    )
    pixels = np.concatenate([np.asarray(m.measurement.array) for m in (strong, weak)]).astype(np.float32)
    found = recover(
        pixels,
        box_size=SIDE,
        noise_std=0.6,
        prior=PRIOR,
        classes=2,
        initial=[[other, TARGET]],
        iterations=8,
        gauge=None,
    )
    assert len(found.prior_scales) == 2
    assert found.prior_scales[0] > 1.5 * found.prior_scales[1]


def test_samples_of_a_scaled_prior_are_scaled_samples():
    plain = sample_prior(PRIOR, 3, SIDE, seed=5)
    np.testing.assert_allclose(sample_prior(ScaledPrior(PRIOR, 1e5), 3, SIDE, seed=5), 1e5 * plain, rtol=1e-6)


def test_units():
    norm = float(np.sqrt(np.square(bars()).sum() + 0.2**2 * SIDE**2))
    units = OwnUnits.of(PRIOR, SIDE)
    assert units.norm == pytest.approx(norm, rel=0.1)
    assert units.first(3.0) * units.norm == pytest.approx(5 * 3.0)
    two = units.shown(np.stack([2 * bars(), 0 * bars()]), 0.1)
    assert two[0] == pytest.approx(2 * np.linalg.norm(bars()) / units.norm)
    assert two[1] == pytest.approx(units.first(0.1) / 3)
    assert in_units(PRIOR, None) is PRIOR
    assert in_units(PRIOR, (1.0, 4.0), 1) == ScaledPrior(PRIOR, 4.0)
    assert has_own_units(BinnedPrior(PRIOR, 2, SIDE))
    assert not has_own_units(GaussianPrior(0.0))


@pytest.mark.parametrize("strength", [0.02, 50.0])
def test_a_prior_that_knows_nothing_of_the_target_cannot_lead_the_scale_away(made, exact, strength):
    """Its norm in units of the prior stays within a factor of 1.5 of a typical image's."""

    class Astray(Own):
        def score(self, images, noise_std):
            clean = strength * images  # pulls the scale to 0 or to infinity, whatever the images are
            return (clean - images) / noise_std**2

    prior, units = Astray(bars(), 0.2), OwnUnits(4.0, 4.0, 4.0)
    likelihood = WindowLikelihood(Rotations(4, SIDE), made.noise_std, 25.0)
    statistics = e_step(open_measurement(made.measurement), TARGET, likelihood, exact)
    own, scales = np.linalg.norm(TARGET) / 4.0, (1.0,)
    for _ in range(12):
        scales = units.fitted(TARGET, statistics, prior, scales, early=False)
    assert scales[0] == pytest.approx(own / 1.5 if strength > 1 else own * 1.5)


def test_a_hot_start_does_not_fade(made):
    """A denoiser may take a faint image for noise: of nothing comes nothing, at any temperature that follows."""

    class Blind(Own):
        def score(self, images, noise_std):
            norms = np.linalg.norm(images, axis=(1, 2), keepdims=True)
            seen = norms > 0.3 * noise_std * SIDE
            return np.where(seen, super().score(images, noise_std), -images / noise_std**2)

    found = run(made, 1.0, Blind(bars(), 0.2), temperature=40.0, iterations=30)
    assert found.evidence > 100.0
    assert relative_error(found.target, TARGET) < 0.3


def test_what_is_too_faint_is_made_visible():
    units = OwnUnits(4.0, 4.0, 4.0)
    least = 5.0 / 3.0 * 0.3
    faint, strong = 1e-3 * bars(), 2.0 * bars()
    assert np.linalg.norm(units.visible(faint, 0.3)) == pytest.approx(least)
    assert np.array_equal(units.visible(strong, 0.3), strong)
    both = units.visible(np.stack([faint, strong]), 0.3)
    assert np.linalg.norm(both[0]) == pytest.approx(least)
    assert np.array_equal(both[1], strong)
    assert not units.visible(0.0 * faint, 0.3).any()
