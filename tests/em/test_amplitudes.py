"""Copies that differ in strength: the closed form against quadrature, learning their spread, and who refuses."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.errors import ParameterError
from mtdcore.estep.local import local_sums
from mtdcore.estep.residual import residual_spectrum
from mtdcore.estep.statistics import Statistics
from mtdcore.model.likelihood.amplitudes import FIRST, MOST, Amplitudes, learned_std
from mtdcore.model.likelihood.records import likelihood_from_record, likelihood_record
from mtdcore.results.detections import detect
from mtdcore.results.matching import match
from mtdcore.results.uncertainty import average_level, unbiased_average
from mtdcore.synthetic.glyphs import glyphs
from mtdcore.testing import assert_same_bits, assert_same_statistics

BOX, COPIES, SPREAD = 20, 12, 0.6


@pytest.fixture(scope="module")
def target():
    return glyphs(4, BOX, seed=1)[3].astype(float)


@pytest.fixture(scope="module")
def uneven(target):
    """Twelve copies of log-normal amplitude."""
    return mtd.simulate(target, side=240, count=COPIES, snr=1.0, amplitude_std=SPREAD, seed=2)


@pytest.fixture(scope="module")
def found(uneven, target):
    return recovered(uneven, target, amplitude_std="auto")


def recovered(made, target, **options):
    more = {"box_size": BOX, "initial": target, "iterations": 24, "backend": "cpu", **options}
    return mtd.recover(made.measurement, **more)


def spread(made):
    """Of the amplitudes that were drawn, about their mean."""
    return np.std(made.amplitudes) / np.mean(made.amplitudes)


def test_closed_forms_are_integrals():
    """Ratio and moments of one window, amplitudes summed over a fine grid."""
    rng = np.random.default_rng(3)
    template, noise, std = rng.normal(size=30), 0.8, 0.45
    window = 1.4 * template + noise * rng.normal(size=30)
    grid = np.linspace(-5.0, 7.0, 20001)
    prior = np.exp(-((grid - 1.0) ** 2) / (2.0 * std**2)) / (std * np.sqrt(2.0 * np.pi))
    left = window[:, None] - grid * template[:, None]
    ratio = np.exp(-((left**2).sum(axis=0) - (window**2).sum()) / (2.0 * noise**2)) * prior
    gain, energy = template @ window / noise**2, template @ template / noise**2
    amplitudes = Amplitudes(std**2)
    total = np.trapezoid(ratio, grid)
    assert amplitudes.log_ratio(np.float64(gain), np.float64(energy)) == pytest.approx(np.log(total))
    for order in (1, 2):
        mean = np.trapezoid(ratio * grid**order, grid) / total
        assert amplitudes.moment(order, np.float64(gain), np.float64(energy)) == pytest.approx(mean)


def test_no_spread_is_the_limit(target, uneven):
    """The sums of a spread of almost nothing are those of none."""
    model = mtd.WindowLikelihood(mtd.Rotations(4, BOX), uneven.noise_std, float(COPIES))
    backend = mtd.get_backend("cpu", "float64", threads=1)
    alike, hardly = (
        mtd.e_step(uneven.measurement, target, model.with_amplitude_std(std), backend) for std in (0.0, 1e-6)
    )
    assert_same_statistics(hardly, alike, 1e-6)
    assert alike.amplitude_sum == alike.amplitude_squares == alike.expected_count


@pytest.mark.parametrize("masked", [False, True])
def test_statistics_are_the_gradient_of_the_evidence(masked):
    """Against finite differences, where no corners compete and the evidence is that of each corner."""
    rng = np.random.default_rng(5)
    target, pixels = rng.normal(size=(5, 5)), rng.normal(size=(14, 14))
    pixels[4:9, 3:8] += 1.7 * target
    if masked:
        pixels[rng.uniform(size=pixels.shape) < 0.1] = np.nan
    views = mtd.Rotations(4, 5)
    model = mtd.WindowLikelihood(views, 0.9, 3.0, min_separation=1, amplitude_std=0.5)

    def evidence(image):
        return mtd.e_step(pixels, image, model, "reference").log_likelihood

    slope = mtd.e_step(pixels, target, model, "reference").gradient(target)
    for _ in range(4):
        way = rng.normal(size=target.shape)
        change = (evidence(target + 1e-5 * way) - evidence(target - 1e-5 * way)) / 2e-5
        assert np.vdot(slope, way) == pytest.approx(change, rel=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_local_sums_are_those_of_their_places(target, uneven, masked):
    """With every corner a place, they are all."""
    pixels = np.array(uneven.measurement.array[:, :60, :70], np.float64)
    pixels[:, 20:23, 30:40] = np.nan if masked else 0.0
    model = mtd.WindowLikelihood(
        mtd.Rotations(4, BOX), uneven.noise_std, 2.0, margin=2, amplitude_std=SPREAD
    ).bind(pixels.shape)
    backend = mtd.get_backend("cpu", "float64", threads=1)
    templates = model.views.apply(target)
    (tile,) = mtd.open_measurement(pixels).tiles(model.geometry)
    odds = backend.log_odds(tile, templates, model)
    local = local_sums(tile, odds, np.ones(odds.shape, bool), templates, model, backend)
    assert_same_statistics(local, backend.accumulate([tile], templates, model), 1e-9)


def test_local_search_gives_the_sums_of_the_full_one(target, uneven):
    """Also between pixels, except for the faintest of what may be copies."""
    for views, coarse in ((mtd.Rotations(16, BOX), 8), (mtd.Shifted(mtd.Rotations(4, BOX)), 4)):
        model = mtd.WindowLikelihood(views, uneven.noise_std, float(COPIES), amplitude_std=SPREAD)
        backend = mtd.get_backend("cpu", "float64", threads=1)
        every, local = (
            mtd.e_step(uneven.measurement, target, model, backend, coarse=c) for c in (None, coarse)
        )
        assert local.expected_count == pytest.approx(every.expected_count, rel=0.02)
        assert local.amplitude_squares == pytest.approx(every.amplitude_squares, rel=1e-3)
        np.testing.assert_allclose(local.right, every.right, atol=0.03 * np.abs(every.right).max())


def test_faint_copies_in_noise_do_not_keep_tiles_from_local_search():
    """Noise looks like copies of small amplitude: places between pixels are scored all the same."""
    target = mtd.datasets.glyphs(104, 28)[103].astype(float)
    made = mtd.simulate(target, side=308, count=13, snr=1.0, subpixel=True, amplitude_std=0.6, seed=103)
    views = mtd.Shifted(mtd.Rotations(4, 28))
    model = mtd.WindowLikelihood(views, made.noise_std, 13.0, amplitude_std=0.6)
    found = mtd.e_step(made.measurement, target, model, "cpu", coarse=4)
    between = np.asarray(found.normal.coverage).reshape(4, 4, -1)[:, 1:]  # rotation, offset, pixel
    assert between.sum() > 0.0


def test_a_spread_is_learned_and_helps(target, uneven, found):
    """Weak copies are counted, strong ones do not pull the target up, and its scale is that of the mean copy."""
    alike = recovered(uneven, target)
    assert alike.likelihood.amplitude_std == 0.0
    assert found.likelihood.amplitude_std == pytest.approx(spread(uneven), abs=0.12)
    assert abs(found.expected_count - COPIES) < 0.7 < COPIES - alike.expected_count
    assert found.evidence > alike.evidence + 100
    scale = np.linalg.norm(found.target) / np.linalg.norm(target) / np.mean(uneven.amplitudes)
    assert scale == pytest.approx(1.0, abs=0.1)
    assert found.noise_std == pytest.approx(uneven.noise_std, rel=0.02)


def test_a_bright_copy_does_not_win_the_race(target):
    """Among copies taken to be alike one of six times the strength is the only one, and leaves none to learn a spread from."""
    made = mtd.simulate(target, side=240, count=COPIES, snr=0.5, seed=2)
    pixels = np.array(made.measurement.array[0], np.float64)
    turn, (row, column) = made.rotation_indices[0], made.positions[0, 1:]
    pixels[row : row + BOX, column : column + BOX] += 5.0 * np.rot90(target, turn)
    seen = []
    some = {"box_size": BOX, "initial": 5.0 * target, "temperature": 1.0, "iterations": 24, "backend": "cpu"}
    found = mtd.recover(pixels, amplitude_std="auto", callback=seen.append, **some)
    assert seen[0].likelihood.amplitude_std == FIRST
    assert found.expected_count == pytest.approx(COPIES, abs=1.0)


def test_copies_that_are_alike_stay_so(target):
    """The spread goes to nothing, and target, count and noise are those of the model without."""
    made = mtd.simulate(target, side=240, count=COPIES, snr=1.0, seed=2)
    one, other = (recovered(made, target, amplitude_std=a) for a in (0.0, "auto"))
    assert other.likelihood.amplitude_std < 0.06
    assert other.expected_count == pytest.approx(one.expected_count, abs=0.05)
    np.testing.assert_allclose(other.target, one.target, atol=0.03 * np.abs(one.target).max())


def test_a_given_spread_stays(target, uneven):
    fixed = recovered(uneven, target, amplitude_std=0.4, iterations=4)
    assert fixed.likelihood.amplitude_std == 0.4
    own = replace(fixed.likelihood, amplitude_std=0.3)
    kept = recovered(uneven, target, likelihood=own, iterations=4)
    assert kept.likelihood.amplitude_std == 0.3


def test_noise_has_no_amplitudes(target):
    """What fits noise gains little by them, and their spread stays inside its bound; without copies it is none."""
    noise = np.random.default_rng(4).normal(size=(240, 240))
    some = {"box_size": BOX, "iterations": 20, "seed": 1, "backend": "cpu"}
    alike, apart = (mtd.recover(noise, amplitude_std=a, **some) for a in (0.0, "auto"))
    assert apart.likelihood.amplitude_std < 0.5
    assert apart.evidence < 1.25 * alike.evidence

    class Sums:
        expected_count, amplitude_sum, amplitude_squares = 100.0, 100.0, 1000.0

    assert learned_std(0.5, Sums, 400.0) == MOST
    Sums.amplitude_squares = 125.0
    assert learned_std(0.5, Sums, 400.0) == pytest.approx(0.5)
    assert learned_std(0.0, Sums, 400.0) == FIRST
    assert learned_std(0.5, Sums, 0.0) == 0.0
    Sums.expected_count = 1.0
    assert learned_std(0.5, Sums, 400.0) == 0.0


def test_a_long_step_is_there_at_once():
    """Copies of one energy whose poses are known: a single step is the maximiser, and stays there."""
    rng = np.random.default_rng(8)
    energy, true = 60.0, 0.25
    gain = energy * rng.normal(1.0, true, 5000) + np.sqrt(energy) * rng.normal(size=5000)
    best = np.sqrt(np.mean((gain / energy - 1.0) ** 2) - 1.0 / energy)

    def step(std):
        first, squares = (Amplitudes(std**2).moment(n, gain, np.full(5000, energy)).sum() for n in (1, 2))
        sums = SimpleNamespace(expected_count=5000.0, amplitude_sum=first, amplitude_squares=squares)
        return learned_std(std, sums, energy)

    for std in (0.15, 0.3, 0.8, best):
        assert step(std) == pytest.approx(best, rel=1e-6)


def test_amplitudes_of_detections(target, uneven, found, tmp_path):
    copies = detect(uneven.measurement, found.target, found.likelihood)
    pairs = match(copies, uneven.positions, 2.0).pairs
    assert len(pairs) == COPIES
    mine, true = copies.amplitude[pairs[:, 0]], uneven.amplitudes[pairs[:, 1]]
    assert np.corrcoef(mine, true)[0, 1] > 0.95
    copies.to_csv(tmp_path / "copies.csv")
    assert (tmp_path / "copies.csv").read_text().splitlines()[0].endswith(",class,amplitude")
    copies.to_star(tmp_path / "copies.star")
    assert "_mtdAmplitude" in (tmp_path / "copies.star").read_text()
    assert detect(uneven.measurement, target, found.likelihood.with_amplitude_std(0.0)).amplitude is None


def test_amplitudes_between_pixels(target):
    """At the refined place, where a copy has its full strength."""
    made = mtd.simulate(target, side=240, count=COPIES, snr=4.0, subpixel=True, amplitude_std=SPREAD, seed=2)
    views = mtd.Shifted(mtd.Rotations(4, BOX))
    model = mtd.WindowLikelihood(views, made.noise_std, float(COPIES), amplitude_std=SPREAD)
    copies = detect(made.measurement, target, model)
    pairs = match(copies, made.positions, 2.0).pairs
    assert len(pairs) == COPIES
    off = copies.amplitude[pairs[:, 0]] - made.amplitudes[pairs[:, 1]]
    assert np.abs(off).max() < 0.15


def test_the_noise_left_is_that_of_copies_of_their_own_strength(target, uneven):
    """What copies of the wrong strength leave would pass for noise."""
    model = mtd.WindowLikelihood(
        mtd.Rotations(4, BOX), uneven.noise_std, float(COPIES), amplitude_std=SPREAD
    ).bind(uneven.measurement.shape)
    backend = mtd.get_backend("cpu", threads=1)
    spectra = (
        residual_spectrum(uneven.measurement, target, model.with_amplitude_std(std), backend, 80).power
        for std in (0.0, SPREAD)
    )
    alike, each = (power[1:9, 1:9].mean() / uneven.noise_std**2 for power in spectra)
    assert each == pytest.approx(1.0, abs=0.03)
    assert alike > each + 0.03


def test_levels_count_squared_amplitudes(uneven, found):
    """A copy of twice the strength tells four times as much; poses that are certain leave all of it."""
    expected = found.noise_std / np.sqrt(found.statistics.amplitude_squares)
    assert average_level(found) == expected < found.noise_std / np.sqrt(found.expected_count)
    average, level = unbiased_average(uneven.measurement, found)
    assert expected <= level < 1.1 * expected
    assert np.linalg.norm(average - found.aligned_average) < 0.2 * np.linalg.norm(average)


def test_a_run_goes_on_with_the_same_bits(target, uneven, tmp_path):
    """Also from a file; the spread and the sums that it is learned from are in it."""
    states = []
    whole = recovered(uneven, target, amplitude_std="auto", callback=states.append, iterations=12)
    save_checkpoint(tmp_path / "state", states[7], {})
    state = load_checkpoint(tmp_path / "state", {})
    assert state.likelihood.amplitude_std == states[7].likelihood.amplitude_std > 0.0
    again = recovered(uneven, target, amplitude_std="auto", state=state, iterations=12)
    assert again.likelihood == whole.likelihood
    assert_same_bits(again.statistics, whole.statistics)
    np.testing.assert_array_equal(again.target, whole.target)
    record = likelihood_record(whole.likelihood)
    assert likelihood_from_record(record).amplitude_std == whole.likelihood.amplitude_std
    whole.statistics.save(tmp_path / "sums")
    assert Statistics.load(tmp_path / "sums").amplitude_squares == whole.statistics.amplitude_squares


def test_statistics_of_mean_amplitude_one():
    """``a F`` keeps its sums: the target takes over the mean of a."""
    rng = np.random.default_rng(6)
    target, pixels = rng.normal(size=(5, 5)), rng.normal(size=(20, 20))
    pixels[4:9, 3:8] += 2.0 * target
    pixels[12:17, 12:17] += 2.5 * target
    model = mtd.WindowLikelihood(mtd.Rotations(1, 5), 0.5, 2.0, amplitude_std=0.8)
    sums = mtd.e_step(pixels, target, model, "cpu")
    even, mean = sums.normalised(), sums.amplitude_sum / sums.expected_count
    assert mean > 1.2
    assert even.amplitude_sum == even.expected_count == sums.expected_count
    assert even.residual_energy(mean * target) == pytest.approx(sums.residual_energy(target))
    np.testing.assert_allclose(even.gradient(mean * target) * mean, sums.gradient(target), atol=1e-9)
    assert even.offset(mean * target) == pytest.approx(sums.offset(target))
    assert even.normalised() is even


def test_amplitudes_are_of_whole_copies(target, uneven):
    """The patch model cuts copies in pieces."""
    views = mtd.Rotations(4, BOX)
    with pytest.raises(ParameterError, match="amplitudes of copies need the window likelihood"):
        mtd.PatchLikelihood(views, 1.0, amplitude_std=0.5)
    for std in ("auto", 0.5):
        with pytest.raises(ParameterError, match="need the window likelihood"):
            recovered(uneven, target, likelihood="patch", amplitude_std=std)
    for wrong in (-0.1, "much", np.nan):
        with pytest.raises(ParameterError, match="amplitude_std must be"):
            recovered(uneven, target, amplitude_std=wrong)


def test_simulated_amplitudes_have_mean_one(target):
    """Log-normal, the same places and noise as without, and the same bits on disk."""
    made = mtd.simulate(target, side=1600, count=400, noise_std=0.0, separation=1, amplitude_std=0.5, seed=3)
    assert made.amplitudes.mean() == pytest.approx(1.0, abs=0.08)
    assert made.amplitudes.std() == pytest.approx(0.5, abs=0.08)
    assert (made.amplitudes > 0).all()
    plain = mtd.simulate(target, side=1600, count=400, noise_std=0.0, separation=1, seed=3)
    np.testing.assert_array_equal(plain.positions, made.positions)
    _, row, column = made.positions[0]
    cut = np.s_[0, row : row + BOX, column : column + BOX]
    expected = made.amplitudes[0] * plain.measurement.array[cut]
    np.testing.assert_allclose(made.measurement.array[cut], expected, rtol=1e-6)
    with pytest.raises(ParameterError, match="amplitude_std must be"):
        mtd.simulate(target, side=100, count=1, snr=1.0, amplitude_std=-1.0)
