"""What a result says against itself, and arguments that are refused."""

import warnings

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    ExactUpdate,
    GaussianPrior,
    WindowLikelihood,
    datasets,
    get_backend,
    open_measurement,
    recover,
    simulate,
)
from mtdcore.em.checks.doubts import undoubted
from mtdcore.errors import Doubt, InputError, ParameterError
from mtdcore.model.rotations import Rotations
from mtdcore.mstep.wiener import WienerUpdate
from mtdcore.results.nulls import null_runs

CPU = get_backend("cpu", threads=1)
GLYPH = datasets.glyphs(1, 12)[0]


@pytest.fixture(scope="module")
def made():
    return simulate(GLYPH, side=132, density=0.1, snr=1.0, rotations=4, seed=5)


def said(pixels, **options):
    """Doubts of a recovery, as one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = recover(pixels, **({"box_size": 12, "iterations": 20, "backend": CPU} | options))
    return found, " / ".join(str(w.message) for w in caught if issubclass(w.category, Doubt))


@pytest.mark.parametrize(("factor", "doubted"), [(0.9, True), (1.0, False), (1.06, True), (1.2, True)])
def test_a_noise_level_that_does_not_fit_is_said_with_what_fits(made, factor, doubted):
    _, text = said(made.measurement, noise_std=factor * made.noise_std)
    assert ("does not fit" in text) == doubted
    if doubted:
        fits = float(text.split("give noise_std=")[1].split()[0])
        assert fits == pytest.approx(made.noise_std, rel=0.04)


def test_noise_that_is_not_white_is_said(made):
    pixels = made.measurement.array[0]
    smooth = pixels + np.roll(pixels, 1, axis=1)
    assert "does not look white" in said(smooth, noise="white")[1]
    assert said(made.measurement)[1] == ""


def test_a_signal_is_not_advised_to_learn_a_spectrum_that_it_has_not():
    noise = np.random.default_rng(0).normal(size=(1, 4000))
    with pytest.warns(Doubt) as doubts:
        recover(noise + np.roll(noise, 1), box_size=(1, 40), iterations=2, backend="cpu")
    (text,) = [str(one.message) for one in doubts if "does not look white" in str(one.message)]
    assert "noise=" not in text
    assert "flattens its spectrum" in text
    assert "--background-width" in text


@pytest.mark.parametrize(
    ("angles", "asked", "doubted"), [(4, 4, False), (4, 1, True), ("continuous", 4, True), (8, 8, False)]
)
def test_more_angles_than_were_looked_for_are_said(angles, asked, doubted):
    """And never where the angles are right."""
    made = simulate(GLYPH, side=132, density=0.1, snr=1.0, rotations=angles, seed=5)
    _, text = said(made.measurement, rotations=asked)
    assert ("copies lie at more than" in text) == doubted
    assert not doubted or "give rotations=20" in text


def test_no_copies_are_said(made):
    found, text = said(made.measurement, noise_std=5 * made.noise_std)
    assert not found.found_copies
    assert "no copies were found" in text
    assert "give the diameter" in text


def test_where_a_diameter_may_hide_the_copies_that_is_said(made):
    """In pink noise faint starts of the spectrum of compact bodies fade, behind the filter of the slow noise."""
    rng = np.random.default_rng(0)
    slow = np.cumsum(np.cumsum(rng.normal(size=(132, 132)), axis=0), axis=1)
    pixels = rng.normal(size=(132, 132)) + 2.0 * (slow - slow.mean()) / slow.std()
    found, text = said(pixels, diameter=9.0, starts=2)
    assert found.likelihood.whitening is not None
    assert not found.found_copies
    assert "without the diameter" in text
    assert "diameter" not in said(made.measurement, noise_std=5 * made.noise_std, diameter=10)[1]


def test_a_box_that_is_nearly_all_is_said():
    pixels = np.random.default_rng(0).normal(size=(14, 14))
    assert "nearly the whole" in said(pixels, iterations=2)[1]


def test_a_separation_that_excludes_copies_is_said():
    small = np.pad(np.ones((6, 6)), 5)
    crowd = simulate(small, side=160, count=150, min_separation=8, noise_std=0.4, rotations=1, seed=0)
    options = {"box_size": 16, "rotations": 1, "initial": small}
    assert "give min_separation=" in said(crowd.measurement, **options)[1]
    assert "min_separation" not in said(crowd.measurement, **options, min_separation=6)[1]


def test_null_runs_are_not_doubted(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        model = WindowLikelihood(Rotations(4, 12), 1.0, 13.0)
        next(null_runs(made.measurement, model, runs=1, box_size=12, iterations=3, backend=CPU))
        with undoubted():
            recover(made.measurement, box_size=12, noise_std=9.0, iterations=2, backend=CPU)


@pytest.mark.parametrize("update", [ExactUpdate(), WienerUpdate()])
def test_a_prior_beside_an_update_that_ignores_it_is_refused(made, update):
    with pytest.raises(ParameterError, match=r"the prior would be ignored.*leave out the prior"):
        said(made.measurement, prior=GaussianPrior(0.0), update=update)
    said(made.measurement, prior=GaussianPrior(0.0), update=DenoisingUpdate(), iterations=1)


def test_masks_are_honoured(made):
    pixels = made.measurement.array[0].copy()
    seen = np.ones(pixels.shape, bool)
    seen[20:60, 30:70] = False
    garbage = np.where(seen, pixels, 1e4)
    nan, _ = said(np.where(seen, pixels, np.nan))
    for masked, more in ((np.ma.array(garbage, mask=~seen), {}), (garbage, {"mask": seen})):
        found, _ = said(masked, **more)
        assert found.evidence == nan.evidence
        assert np.array_equal(found.target, nan.target)
    both = open_measurement(np.ma.array(garbage, mask=~seen), np.roll(seen, 60, axis=0))
    found, _ = said(both, iterations=1)
    assert found.statistics.pixels < nan.statistics.pixels
    with pytest.raises(InputError, match="boolean"):
        said(garbage, mask=seen.astype(int))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_size": "12"}, "box_size must be a positive number of pixels; got '12'"),
        ({"prior": "mnist"}, "prior must be an object .* got 'mnist'.*load it first"),
        ({"update": "exact"}, r"update must be an M-step such as ExactUpdate\(\).*got 'exact'"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"iterations": -1}, "iterations must be a whole number of at least 0; got -1"),
        ({"iterations": 2.5}, "iterations must be a whole number"),
        ({"micrographs": "foo"}, "micrographs must be a Micrographs object.*got 'foo'"),
        ({"rotations": "4"}, "rotations must be a number of angles or views.*got '4'"),
        ({"min_separation": "far"}, "min_separation must be a number.*got 'far'"),
        ({"temperature": "hot"}, "temperature must be a number.*got 'hot'"),
        ({"tolerance": -1.0}, "tolerance must be a number of at least 0"),
        ({"starts": 1.5}, "starts must be a positive number; got 1.5"),
        ({"callback": 3}, "callback must be a function"),
    ],
)
def test_misuse_is_refused_in_a_sentence(made, options, message):
    with pytest.raises(ParameterError, match=message):
        said(made.measurement, **options)


def test_a_recovery_prints_on_one_line(made):
    found, _ = said(made.measurement)
    text = repr(found)
    assert text.startswith("Recovery(12 x 12: ")
    assert "copies, " in text
    assert len(text) < 160
    nothing, _ = said(made.measurement, noise_std=5 * made.noise_std)
    assert "no copies" in repr(nothing)
