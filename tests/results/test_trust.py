"""Null measurements, the verdict, and the agreement of halves."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from mtdcore import (
    GaussianPrior,
    Micrographs,
    PatchLikelihood,
    WindowLikelihood,
    e_step,
    get_backend,
    open_measurement,
    recover,
    simulate,
)
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import ParameterError
from mtdcore.model.rotations import Rotations
from mtdcore.results.halves import HalfMeasurement, half_recoveries, half_set_correlation
from mtdcore.results.nulls import (
    evidence_threshold,
    noise_levels,
    null_measurement,
    null_runs,
)

EXACT = get_backend("cpu", precision="float64", threads=1)
MEAN = np.random.default_rng(0).integers(0, 5, size=(5, 5)).astype(float)
OPTIONS = {
    "box_size": 5,
    "prior": GaussianPrior(MEAN, 1.0),
    "initial": MEAN,
    "iterations": 15,
    "backend": EXACT,
}


@pytest.fixture(scope="module")
def made():
    target = MEAN + np.random.default_rng(1).normal(size=(5, 5))
    return simulate(target, side=55, density=0.1, snr=1.0, dtype="float64")


@pytest.fixture(scope="module")
def found(made):
    return recover(made.measurement, noise_std=made.noise_std, **OPTIONS)


def assembled(measurement, side, halo=0):
    """(micrographs, H, W) pixels put together from tiles."""
    geometry = TileGeometry(side=side, unit=1, halo=halo, reach=0)
    whole = np.full(measurement.shape, np.nan)
    for tile in measurement.tiles(geometry):
        whole[tile.micrograph][tile.region.read] = tile.values
    return whole


def test_null_pixels_do_not_depend_on_the_tiles():
    null = null_measurement(np.ones((2, 150, 90), dtype=np.float32), 0.5, seed=3)
    whole = assembled(null, 200)
    assert np.array_equal(whole, assembled(null, 7, halo=5))
    assert np.array_equal(whole, assembled(pickle.loads(pickle.dumps(null)), 64))
    assert not np.array_equal(whole, assembled(null_measurement(null.source, 0.5, seed=4), 200))


def test_null_is_white_noise_of_the_level_asked_for():
    whole = assembled(null_measurement(np.zeros((1, 300, 300)), 0.5), 300)[0]
    assert whole.std() == pytest.approx(0.5, rel=0.01)
    assert abs(whole.mean()) < 4 * 0.5 / 300
    spectrum = np.abs(np.fft.fft2(whole)) ** 2
    correlation = np.fft.ifft2(spectrum).real / spectrum.sum() * whole.size
    assert np.abs(correlation.ravel()[1:]).max() < 5.5 / 300
    assert not np.array_equal(whole[:64, :64], whole[64:128, :64])


def test_null_keeps_shape_dtype_mask_and_parts():
    pixels = np.ones((2, 40, 30), dtype=np.float32)
    pixels[1, 3:9, 4] = np.nan
    null = null_measurement(pixels, 1.0)
    assert (null.shape, null.dtype) == ((2, 40, 30), np.float32)
    geometry = TileGeometry(side=16, unit=1, halo=2, reach=0)
    tiles = list(null.tiles(geometry))
    assert len(tiles) == null.tile_count(geometry)
    parts = [tile for part in null.split(3) for tile in part.tiles(geometry)]
    for tile, own, part in zip(tiles, open_measurement(pixels).tiles(geometry), parts, strict=True):
        assert tile.values.dtype == np.float32
        assert np.array_equal(tile.values, part.values)
        assert (tile.valid is None) == (own.valid is None)
        if tile.valid is not None:
            assert np.array_equal(tile.valid, own.valid)
            assert not tile.values[~tile.valid].any()


@pytest.mark.parametrize(("noise_std", "seed"), [(0.0, 0), (math.nan, 0), (1.0, -1)])
def test_null_parameters_outside_their_domain(noise_std, seed):
    with pytest.raises(ParameterError, match="positive noise_std and a seed"):
        null_measurement(np.zeros((8, 8)), noise_std, seed)


def test_each_micrograph_has_its_own_noise_where_it_is_told():
    null = null_measurement(np.zeros((2, 200, 200)), [1.0, 3.0])
    assert assembled(null, 200).std(axis=(1, 2)) == pytest.approx([1.0, 3.0], rel=0.02)
    with pytest.raises(ParameterError, match="each of the 2 micrographs; got 3"):
        null_measurement(np.zeros((2, 8, 8)), [1.0, 2.0, 3.0])


@pytest.mark.parametrize("kind", ["white", "phases"])
def test_signal_lies_beyond_the_threshold_and_noise_does_not(made, found, kind):
    options = OPTIONS | {"noise_std": made.noise_std, "kind": kind}
    nulls = null_runs(made.measurement, found.likelihood, runs=8, seed=10, **options)
    threshold = evidence_threshold([run.evidence for run in nulls])
    assert found.evidence > threshold
    (another,) = null_runs(made.measurement, found.likelihood, runs=1, seed=20, **options)
    assert another.evidence < threshold


def test_null_runs_differ_in_noise_and_repeat_by_seed(made, found):
    options = OPTIONS | {"noise_std": made.noise_std, "iterations": 2}
    first, second = null_runs(made.measurement, found.likelihood, runs=2, seed=5, **options)
    (again,) = null_runs(made.measurement, found.likelihood, runs=1, seed=6, **options)
    assert not np.array_equal(first.target, second.target)
    assert np.array_equal(second.target, again.target)


def test_threshold_is_exceeded_as_often_as_it_says():
    """Five normal values: four give the limit, the fifth exceeds it in 0.2 % of 20,000 trials."""
    draws = np.random.default_rng(0).normal(100.0, 7.0, size=(20_000, 5))
    exceeded = [draw[4] > evidence_threshold(draw[:4]) for draw in draws]
    assert np.mean(exceeded) == pytest.approx(0.002, abs=0.001)


def test_threshold_never_falls_below_fifteen_nats():
    assert evidence_threshold([-1.0, 0.0, 0.5]) == 15.0


def test_runs_that_share_a_spectrum_differ_too_little():
    alike = [200.0, 202.0, 198.0, 201.0, 199.0]
    assert evidence_threshold(alike) < 215.0
    assert evidence_threshold(alike, 0.1) > 300.0
    assert evidence_threshold([0.0, 0.1, -0.1], 0.1) == 15.0


def test_threshold_is_no_less_than_any_run():
    values = np.append(np.random.default_rng(0).normal(size=200), 90.0)
    assert evidence_threshold(values) == 90.0


def test_runs_that_end_blank_do_not_raise_the_threshold():
    fitted = [120.0, 128.0, 131.0, 125.0]
    assert evidence_threshold([0.7, 2.7, *fitted]) == evidence_threshold(fitted)
    # With fewer than four others nobody can say how those spread.
    assert evidence_threshold([0.7, 2.7, *fitted[:3]]) > 1.5 * evidence_threshold(fitted)
    # Where nearly all end blank, the few that do not are outliers of one sample.
    assert evidence_threshold([0.0, 0.0, 0.1, 0.0, 12.0, 0.0, 0.0, 0.0]) < 25.0


def test_noise_levels_of_micrographs_that_were_taken_to_be_alike():
    quiet = np.random.default_rng(0).normal(size=(2, 200, 200)) * np.array([1.0, 3.0])[:, None, None]
    source, model = open_measurement(quiet), WindowLikelihood(Rotations(4, 5), 5.0**0.5, 13.0)
    assert noise_levels(source, model) == pytest.approx([1.0, 3.0], rel=0.03)
    told = replace(model, micrographs=Micrographs(np.array([2.0, 2.0])))
    assert noise_levels(source, told)[0] == noise_levels(source, told)[1]
    assert noise_levels(open_measurement(quiet[0]), model) == [5.0**0.5]


@pytest.mark.parametrize("values", [[], [3.0], [1.0, math.nan]])
def test_threshold_needs_two_null_runs(values):
    with pytest.raises(ParameterError, match="two null runs"):
        evidence_threshold(values)


def test_patch_evidence_is_measured_from_the_blank_model(made, found):
    """At a blank target every pose says the same, so the evidence against no copies is 0."""
    for model in (
        PatchLikelihood(Rotations(4, 5), made.noise_std),
        WindowLikelihood(Rotations(4, 5), made.noise_std, 13.0),
    ):
        blank = e_step(made.measurement, np.zeros((5, 5)), model, EXACT)
        state = replace(found.state, candidates=(replace(found.state.leader, likelihood=model),))
        assert replace(found, state=state, statistics=blank).evidence == pytest.approx(0.0, abs=1e-6)
    patch = recover(made.measurement, noise_std=made.noise_std, likelihood="patch", **OPTIONS)
    assert patch.evidence > 10


def test_patch_evidence_of_micrographs_with_their_own_noise(made, found):
    facts = Micrographs(np.array([1.0, 2.0]))
    model = PatchLikelihood(Rotations(4, 5), made.noise_std, micrographs=facts)
    pixels = np.concatenate([made.measurement.array, 2 * made.measurement.array])
    blank = e_step(pixels, np.zeros((5, 5)), model, EXACT)
    state = replace(found.state, candidates=(replace(found.state.leader, likelihood=model),))
    assert replace(found, state=state, statistics=blank).evidence == pytest.approx(0.0, abs=1e-6)


def test_halves_share_no_pixel_and_leave_none_out():
    pixels = np.ones((2, 41, 30))
    pixels[1, 3:9, 4] = np.nan
    source = open_measurement(pixels)
    geometry = TileGeometry(side=16, unit=1, halo=2, reach=0)
    upper, lower = (HalfMeasurement(source, half).tiles(geometry) for half in (False, True))
    for whole, a, b in zip(source.tiles(geometry), upper, lower, strict=True):
        every, of_a, of_b = (
            np.ones(t.values.shape, bool) if t.valid is None else t.valid for t in (whole, a, b)
        )
        assert np.array_equal(of_a ^ of_b, every)
        assert np.array_equal(a.values + b.values, whole.values)
        rows, _ = np.nonzero(of_a)
        assert (rows + whole.region.read[0].start < 20).all()
    parts = pickle.loads(pickle.dumps(HalfMeasurement(source, True))).split(2)
    assert sum(part.tile_count(geometry) for part in parts) == source.tile_count(geometry)


def test_halves_agree_on_a_signal_and_not_on_noise():
    """Whether the halves agree is decided by the data: both times they start from one image."""
    target = np.random.default_rng(5).normal(size=(9, 9)) + np.add.outer(np.hanning(9), np.hanning(9))
    signal = simulate(target, side=120, count=20, snr=2.0, dtype="float64")
    options = {"box_size": 9, "noise_std": signal.noise_std, "iterations": 20, "backend": EXACT}
    curves, counts = [], []
    for pixels in (signal.measurement, null_measurement(signal.measurement, signal.noise_std)):
        whole = recover(pixels, initial=target, **options)
        halves = half_recoveries(pixels, whole.target, **options)
        assert not np.allclose(halves[0].target, halves[1].target)
        curves.append(half_set_correlation(*halves))
        counts.extend(half.expected_count for half in halves)
    agreement, chance = curves
    assert agreement.correlation.min() > 0.6
    assert agreement.resolution() == pytest.approx(9 / 4)
    assert chance.correlation[2:].mean() < 0.4
    assert counts[:2] == pytest.approx([20, 20], rel=0.4)  # each extrapolates to the whole


def test_agreement_does_not_depend_on_the_frame(found):
    same = half_set_correlation(found, found)
    turned = half_set_correlation(found, replace(found, aligned_average=np.rot90(found.aligned_average, 3)))
    assert same.correlation == pytest.approx(np.ones(2))
    assert turned.correlation == pytest.approx(np.ones(2))
