import math

import numpy as np
import pytest

from mtdcore.errors import ParameterError
from mtdcore.model.rotations import rotate
from mtdcore.results.metrics import (
    TRUTH_LIMIT,
    RingCorrelation,
    align,
    correlation,
    fourier_ring_correlation,
    free_correlation,
    relative_error,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def shifted(image, row, col):
    """Plain loops: image moved down by ``row`` and right by ``col`` with zeros shifted in."""
    out = np.zeros_like(image)
    for r in range(len(image)):
        for c in range(len(image)):
            if 0 <= r - row < len(image) and 0 <= c - col < len(image):
                out[r, c] = image[r - row, c - col]
    return out


@pytest.mark.parametrize("length", [5, 6])
@pytest.mark.parametrize("max_shift", [0, 2])
@pytest.mark.parametrize("rotations", [1, 2, 4])
def test_equals_the_exhaustive_search(rng, length, max_shift, rotations):
    estimate, truth = rng.normal(size=(2, length, length))
    expected = min(
        np.linalg.norm(shifted(np.rot90(estimate, 4 // rotations * k), r, c) - truth) / np.linalg.norm(truth)
        for k in range(rotations)
        for r in range(-max_shift, max_shift + 1)
        for c in range(-max_shift, max_shift + 1)
    )
    assert relative_error(estimate, truth, rotations, max_shift) == pytest.approx(expected, rel=1e-14)


def test_alignment_undoes_a_known_move(rng):
    truth = np.zeros((12, 12))
    truth[4:8, 4:9] = rng.normal(size=(4, 5))
    found = align(np.rot90(shifted(truth, 2, -1), -1), truth, rotations=4, max_shift=3)
    assert (found.rotation, found.shift, found.error) == (1, (-2, 1), 0)
    assert np.array_equal(found.image, truth)


def test_any_number_of_rotations(rng):
    length = 32
    grid = np.mgrid[:length, :length] - (length - 1) / 2
    truth = np.exp(-((grid[0] - 3) ** 2) / 20 - grid[1] ** 2 / 6)
    turned = rotate(truth, [2 * math.pi * 5 / 12])[0]
    assert relative_error(turned, truth, rotations=4) > 0.3
    found = align(turned, truth, rotations=12)
    assert found.rotation == 7
    assert found.error < 1e-3


def test_zero_estimate_nan_and_bad_arguments(rng):
    truth = rng.normal(size=(6, 6))
    assert relative_error(np.zeros((6, 6)), truth, max_shift=2) == pytest.approx(1)
    assert math.isnan(relative_error(np.full((6, 6), np.nan), truth))
    for bad in (
        lambda: relative_error(truth, np.zeros((6, 6))),
        lambda: relative_error(truth, truth, max_shift=-1),
    ):
        with pytest.raises(ParameterError):
            bad()
    with pytest.raises(ParameterError, match=r"\(5, 6\)"):
        relative_error(truth[1:], truth)


def test_correlation_ignores_scale_offset_and_a_known_shift(rng):
    scene = rng.normal(size=(20, 20))
    a, b = scene[4:16, 4:16], 3 * scene[2:14, 5:17] + 7
    assert correlation(a, b, max_shift=2) == pytest.approx(1)
    assert correlation(a, b, max_shift=1) < 0.7
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(a, np.ones_like(a)) == 0
    assert correlation(a, b[::-1]) == pytest.approx(np.corrcoef(a.ravel(), b[::-1].ravel())[0, 1])
    with pytest.raises(ParameterError):
        correlation(a, b, max_shift=12)


@pytest.mark.parametrize("length", [15, 16])
def test_ring_correlation_of_equal_and_independent_images(rng, length):
    image = rng.normal(size=(length, length))
    same = fourier_ring_correlation(image, 2 * image + 5)
    assert same.frequency == pytest.approx(np.arange(1, length // 2 + 1) / length)
    assert same.correlation == pytest.approx(1)
    assert same.resolution() == pytest.approx(length / (length // 2))
    pairs = [fourier_ring_correlation(*rng.normal(size=(2, length, length))).correlation for _ in range(200)]
    assert np.abs(np.mean(pairs, axis=0)).max() < 0.15
    assert fourier_ring_correlation(image, 0 * image).resolution() == math.inf


def test_resolution_is_where_the_common_frequencies_end(rng):
    length, cutoff = 64, 20
    radius = np.hypot(*(np.mgrid[:length, :length] - length // 2))
    low = np.fft.ifftshift(radius <= cutoff)
    common = np.fft.ifft2(np.fft.fft2(rng.normal(size=(length, length))) * low).real
    a, b = common + 1e-3 * rng.normal(size=(2, length, length))
    assert fourier_ring_correlation(a, b).resolution() == pytest.approx(length / cutoff, rel=0.08)


def test_resolution_is_interpolated_between_rings():
    curve = RingCorrelation(np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.5, -0.3]))
    assert curve.resolution(0.3) == pytest.approx(1 / 0.225)  # a quarter of the way from 0.2 to 0.3


def test_two_halves_and_all_data_beside_the_truth_have_one_resolution():
    """The limit of halves with noise is where their mean has the limit of an estimate beside the truth."""
    frequency = np.linspace(0.01, 0.5, 200)
    signal_to_noise = 10 * np.exp(-20 * frequency)  # powers, in each half
    halves = RingCorrelation(frequency, signal_to_noise / (signal_to_noise + 1))
    whole = RingCorrelation(frequency, np.sqrt(signal_to_noise / (signal_to_noise + 1 / 2)))
    assert halves.resolution() == pytest.approx(whole.resolution(TRUTH_LIMIT), rel=1e-4)


@pytest.mark.parametrize("turns", range(4))
def test_free_correlation_knows_neither_units_nor_frame(rng, turns):
    truth = np.pad(rng.normal(size=(8, 8)), 4)
    seen = np.rot90(shifted(0.02 * truth, 2, -3), turns)
    found, scale = free_correlation(seen, 5.0 * truth - 30.0, max_shift=3)
    assert found == pytest.approx(1)
    assert scale == pytest.approx(0.02 / 5.0)
    assert free_correlation(seen, truth)[0] < 0.6
    assert free_correlation(-seen, truth, max_shift=3)[0] < 0.6


def test_free_correlation_needs_an_image(rng):
    assert free_correlation(np.zeros((6, 6)), rng.normal(size=(6, 6)))[0] == 0.0
    with pytest.raises(ParameterError, match="the same everywhere"):
        free_correlation(np.zeros((6, 6)), np.full((6, 6), 3.0))
