"""Measurements with their phases randomised keep what noise may have, and nothing of the copies."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from mtdcore import datasets, simulate
from mtdcore.data.preparation.background import gaussian_background
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import ParameterError
from mtdcore.results.surrogates import surrogate, surrogate_measurement


def white(seed=0, shape=(200, 210)):
    return np.random.default_rng(seed).normal(size=shape)


def bands(image, edges=(0.01, 0.03, 0.06, 0.12, 0.25, 0.5)):
    """Power between these frequencies, cycles per pixel."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij"))
    return np.array([power[(frequency > a) & (frequency <= b)].sum() for a, b in pairwise(edges)])


def pink(seed=0):
    smooth = gaussian_background(white(seed), 3.0)
    return white(seed + 1) + 2.0 * smooth / smooth.std()


def test_power_is_kept_at_every_frequency():
    """Also where a frequency is partly slow, and where micrographs are not periodic."""
    image = pink()
    found = [bands(surrogate(image, 12, seed)) / bands(image) for seed in range(8)]
    assert np.mean(found, axis=0) == pytest.approx(np.ones(5), rel=0.06)


def test_phases_are_another_ones():
    image = white()
    assert abs(np.corrcoef(image.ravel(), surrogate(image, 12, 1).ravel())[0, 1]) < 0.03
    first, second = surrogate(image, 12, 1), surrogate(image, 12, 2)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    assert np.array_equal(first, surrogate(image, 12, 1))


def test_copies_are_torn_apart():
    made = simulate(datasets.glyphs(1, 12)[0], side=200, density=0.1, snr=4.0, seed=0)
    image = made.measurement.array[0]
    around = [image[r : r + 12, c : c + 12].std() for _, r, c in made.positions]
    random = surrogate(image, 12, 0)
    torn = [random[r : r + 12, c : c + 12].std() for _, r, c in made.positions]
    assert np.mean(around) > 1.5 * np.std(image)
    assert np.mean(torn) < 1.1 * np.std(image)


def test_trends_rows_and_columns_stay_where_they_are():
    ramp = np.add.outer(np.arange(200.0), np.arange(210.0)) / 50.0
    rows = np.zeros((200, 1))
    rows[[30, 77, 140]] = 5.0
    stripes = 0.5 * white(3, (1, 210))
    found = surrogate(white() + ramp + rows + stripes, 12, 0) - ramp
    across, down = found.mean(axis=1), found.mean(axis=0)
    assert np.all(across[[30, 77, 140]] > 4.0)
    assert np.abs(np.delete(across, [30, 77, 140])).max() < 1.0
    assert np.corrcoef(down, stripes[0])[0, 1] > 0.95
    assert np.abs(gaussian_background(found - rows, 40)).max() < 0.3


def test_what_is_slow_in_noise_is_random_too():
    """A null that shares it with the data would differ too little from run to run."""
    slow = gaussian_background(white(), 14)
    image = white(1) + 5.0 * slow / slow.std()
    smooth = [gaussian_background(surrogate(image, 12, seed), 14) for seed in range(2)]
    assert abs(np.corrcoef(gaussian_background(image, 14).ravel(), smooth[0].ravel())[0, 1]) < 0.5
    assert abs(np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1]) < 0.5


def test_the_noise_level_of_a_place_and_the_tails_are_kept():
    rng = np.random.default_rng(0)
    level = np.linspace(0.5, 2.0, 210)
    found = surrogate(level * white(), 6, 0)
    assert found[:, :60].std() == pytest.approx((level * white())[:, :60].std(), rel=0.1)
    assert found[:, -60:].std() == pytest.approx((level * white())[:, -60:].std(), rel=0.1)
    tails = rng.standard_t(3, size=(200, 210))
    kurtosis = [np.mean(x**4) / np.mean(x**2) ** 2 for x in (tails, surrogate(tails, 12, 0))]
    assert kurtosis[1] == pytest.approx(kurtosis[0], rel=0.15)
    assert kurtosis[0] > 8


def test_masks_stay_and_do_not_dilute_the_noise():
    image = white()
    image[20:90, 40:120] = np.nan
    found = surrogate(image, 12, 0)
    assert np.array_equal(np.isnan(found), np.isnan(image))
    assert np.nanstd(found) == pytest.approx(np.nanstd(image), rel=0.03)


@pytest.mark.parametrize("image", [np.zeros(5), np.full((4, 4), np.nan)])
def test_what_holds_no_micrograph_is_refused(image):
    with pytest.raises(ParameterError, match="phases are randomised for"):
        surrogate(image, 4)


def test_a_surrogate_measurement_does_not_depend_on_the_cut():
    images = np.stack([white(1), 3.0 * white(2)]).astype(np.float32)
    images[1, 3:9, 4] = np.nan
    found = surrogate_measurement(images, 12, seed=5)
    assert (found.shape, found.dtype) == (images.shape, np.float32)
    whole = np.asarray(found)
    assert np.array_equal(
        whole[0], surrogate(images[0], 12, np.random.SeedSequence(5, spawn_key=(0,))).astype(np.float32)
    )
    assert np.array_equal(np.isnan(whole), np.isnan(images))
    assert whole[1][np.isfinite(whole[1])].std() == pytest.approx(3.0, rel=0.05)
    assert not np.array_equal(whole, np.asarray(surrogate_measurement(images, 12, seed=6)))
    geometry = TileGeometry(side=64, unit=1, halo=3, reach=0)
    for part in pickle.loads(pickle.dumps(found)).split(5):
        for tile in part.tiles(geometry):
            seen = whole[tile.micrograph][tile.region.read]
            assert np.array_equal(tile.values, np.nan_to_num(seen))


def test_a_constant_measurement_has_a_constant_surrogate():
    assert surrogate(np.full((30, 30), 7.0), 5) == pytest.approx(np.full((30, 30), 7.0))
