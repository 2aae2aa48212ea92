"""Local search over angles: the E-step at all angles, where the posterior is sharp; itself elsewhere."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data import ArrayMeasurement
from mtdcore.errors import ParameterError
from mtdcore.estep.backends.local import LocalSearch, search_with

BOX, ANGLES, COARSE = 16, 48, 16


def shape(side=BOX):
    """Bars that look different at every angle."""
    image = np.zeros((side, side))
    image[3:13, 5:8] = 1.0
    image[3:6, 5:12] = 1.0
    image[9:11, 5:10] = 0.6
    return image


def simulated(snr, **options):
    size = {"shape": (150, 131), "count": 9, "separation": 1.2, "seed": 3} | options
    return mtd.simulate(shape(), snr=snr, rotations="continuous", **size)


def model(made, **options):
    return mtd.WindowLikelihood(BOX, ANGLES, made.noise_std, 9.0, **options)


def both(measurement, target, likelihood):
    """The E-step at all angles everywhere, and with local search."""
    inner = mtd.get_backend("cpu", "float64", threads=1)
    return (mtd.e_step(measurement, target, likelihood, b) for b in (inner, LocalSearch(inner, COARSE)))


def assert_same(found, expected, share=2e-3):
    for name in ("backprojection", "coverage"):
        ours, theirs = (getattr(s, name).sum(axis=0) for s in (found, expected))
        assert np.abs(ours - theirs).max() < share * np.abs(theirs).max(), name
        ours, theirs = (getattr(s, name) for s in (found, expected))
        assert np.abs(ours - theirs).max() < 5 * share * np.abs(theirs).max(), name
    assert found.expected_count == pytest.approx(expected.expected_count, rel=share)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=0.02)
    assert (found.energy, found.sites, found.pixels) == (expected.energy, expected.sites, expected.pixels)


class Counting:
    """A backend that counts the tiles it gets to do at all angles."""

    def __init__(self, inner):
        self.inner, self.tiles = inner, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def accumulate(self, tiles, turned, likelihood):
        tiles = list(tiles)
        self.tiles += len(tiles)
        return self.inner.accumulate(tiles, turned, likelihood)


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("snr", [1.0, 0.3])
def test_equals_the_e_step_at_all_angles(snr, margin):
    made = simulated(snr)
    expected, found = both(made.measurement, made.target, model(made, margin=margin))
    assert_same(found, expected)


def test_missing_pixels_and_several_micrographs():
    made = simulated(1.0, micrographs=2)
    pixels = made.measurement.array.copy()
    pixels[0, 40:70, 20:45] = np.nan
    pixels[1, :, 100] = np.nan
    expected, found = both(pixels, made.target, model(made, min_separation=10, margin=2))
    assert_same(found, expected)


def test_classes():
    made = simulated(1.0)
    targets = np.stack([made.target, made.target[::-1]])
    likelihood = model(made, class_weights=(0.7, 0.3))
    expected, found = both(made.measurement, targets, likelihood)
    assert_same(found, expected)
    assert found.coverage[:ANGLES].sum() > 100 * found.coverage[ANGLES:].sum()


def test_cut_into_tiles():
    """Copies on the border of two tiles are competed for and counted once."""
    made = simulated(1.0, shape=(1000, 80), count=30)
    inner = LocalSearch(mtd.get_backend("cpu", "float64", threads=1), COARSE)
    likelihood = replace(model(made), expected_count=30.0)
    assert made.measurement.tile_count(likelihood.geometry) > 1
    expected, found = both(made.measurement, made.target, likelihood)
    assert_same(found, expected)
    assert inner.name == "cpu"


def test_sharp_tiles_are_searched_and_others_are_not():
    """A blank target is a copy nowhere and everywhere: such tiles get all angles, bit for bit."""
    made = simulated(1.0)
    counting = Counting(mtd.get_backend("cpu", threads=1))
    search = LocalSearch(counting, COARSE)
    mtd.e_step(made.measurement, made.target, model(made), search)
    assert counting.tiles == 0
    blank = 1e-3 * made.target
    found = mtd.e_step(made.measurement, blank, model(made), search)
    assert counting.tiles == made.measurement.tile_count(model(made).geometry)
    expected = mtd.e_step(made.measurement, blank, model(made), counting.inner)
    assert np.array_equal(found.backprojection, expected.backprojection)
    assert found.log_likelihood == expected.log_likelihood


def test_same_bits_for_threads_and_executors():
    made = simulated(1.0, shape=(1000, 80), count=30)
    one, two = (LocalSearch(mtd.get_backend("cpu", threads=n), COARSE) for n in (1, 2))
    first = mtd.e_step(made.measurement, made.target, model(made), one)
    with ThreadPoolExecutor(2) as pool:
        others = [
            mtd.e_step(made.measurement, made.target, model(made), two),
            mtd.e_step(made.measurement, made.target, model(made), one, executor=pool),
        ]
    for other in others:
        assert np.array_equal(first.backprojection, other.backprojection)
        assert np.array_equal(first.coverage, other.coverage)
        assert first.log_likelihood == other.log_likelihood


def test_reference_backend_defines_it():
    made = simulated(2.0, shape=(44, 40), count=2, separation=1)
    likelihood = mtd.WindowLikelihood(BOX, 12, made.noise_std, 2.0)
    stats = [
        mtd.e_step(
            made.measurement, made.target, likelihood, LocalSearch(mtd.get_backend(name, "float64"), 6)
        )
        for name in ("reference", "cpu")
    ]
    assert np.allclose(stats[0].backprojection, stats[1].backprojection, rtol=1e-9, atol=1e-9)
    assert stats[0].log_likelihood == pytest.approx(stats[1].log_likelihood, rel=1e-9)


def test_patches_and_few_angles_are_left_alone():
    made = simulated(1.0)
    counting = Counting(mtd.get_backend("cpu", threads=1))
    mtd.e_step(
        made.measurement, made.target, mtd.PatchLikelihood(BOX, 24, made.noise_std), LocalSearch(counting, 12)
    )
    assert counting.tiles
    counting.tiles = 0
    mtd.e_step(made.measurement, made.target, model(made), LocalSearch(counting, ANGLES))
    assert counting.tiles


def test_when_it_is_used():
    inner = mtd.get_backend("cpu", threads=1)
    assert search_with(inner, None, 360, 28) is inner
    assert search_with(inner, "auto", 24, 28) is inner
    assert search_with(inner, "auto", 90, 28) == LocalSearch(inner, 24)
    assert search_with(inner, 8, 90, 28) == LocalSearch(inner, 8)
    with pytest.raises(ParameterError, match="coarse_rotations must be a positive number"):
        search_with(inner, 0, 90, 28)


def test_recover_with_local_search():
    """The same image as with all angles everywhere, from a start that is a turned and blurred copy."""
    made = simulated(2.0)
    start = 0.5 * (made.target + np.roll(made.target, 1, axis=1))
    options = {
        "box_size": BOX,
        "rotations": 48,
        "noise_std": made.noise_std,
        "initial": start,
        "iterations": 8,
    }
    images = [
        mtd.recover(ArrayMeasurement(made.measurement.array), coarse_rotations=coarse, **options).target
        for coarse in (None, 16)
    ]
    assert np.linalg.norm(images[0] - images[1]) < 0.02 * np.linalg.norm(images[0])
    assert mtd.relative_error(images[1], made.target, rotations=360, max_shift=2) < 0.3
