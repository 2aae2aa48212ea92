"""Local search over angles: the E-step at all angles, where the posterior is sharp; itself elsewhere."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data import ArrayMeasurement
from mtdcore.em.plan.defaults import coarse_views
from mtdcore.errors import ParameterError
from mtdcore.model.views import extended
from mtdcore.testing import assert_same_bits, assert_same_statistics

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
    return mtd.WindowLikelihood(mtd.Rotations(ANGLES, BOX), made.noise_std, 9.0, **options)


def both(measurement, target, likelihood):
    """The E-step at all angles everywhere, and with local search."""
    inner = mtd.get_backend("cpu", "float64", threads=1)
    return (mtd.e_step(measurement, target, likelihood, inner, coarse=c) for c in (None, COARSE))


def assert_same(found, expected, share=2e-3):
    flat = np.ones(expected.right.shape)
    for ours, theirs in ((found.right, expected.right), (found.normal(flat), expected.normal(flat))):
        assert np.abs(ours - theirs).max() < share * np.abs(theirs).max()
    assert found.expected_count == pytest.approx(expected.expected_count, rel=share)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=0.02)
    assert (found.energy, found.sites, found.pixels) == (expected.energy, expected.sites, expected.pixels)


class Counting:
    """A backend that counts the tiles it gets to do at all angles."""

    def __init__(self, inner):
        self.inner, self.tiles = inner, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def alone(self):
        return self

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
    likelihood = replace(
        model(made), views=mtd.Classes(mtd.Rotations(ANGLES, BOX), 2), class_weights=(0.7, 0.3)
    )
    expected, found = both(made.measurement, targets, likelihood)
    assert_same(found, expected)
    assert found.class_mass[0] > 100 * found.class_mass[1]


def test_cut_into_tiles():
    """Copies on the border of two tiles are competed for and counted once."""
    made = simulated(1.0, shape=(1000, 80), count=30)
    likelihood = replace(model(made), expected_count=30.0)
    assert made.measurement.tile_count(likelihood.geometry) > 1
    expected, found = both(made.measurement, made.target, likelihood)
    assert_same(found, expected)


def test_sharp_tiles_are_searched_and_others_are_not():
    """A blank target is a copy nowhere and everywhere: such tiles get all angles, bit for bit."""
    made = simulated(1.0)
    counting = Counting(mtd.get_backend("cpu", threads=1))
    mtd.e_step(made.measurement, made.target, model(made), counting, coarse=COARSE)
    assert counting.tiles == 0
    blank = 1e-3 * made.target
    found = mtd.e_step(made.measurement, blank, model(made), counting, coarse=COARSE)
    assert counting.tiles == made.measurement.tile_count(model(made).geometry)
    expected = mtd.e_step(made.measurement, blank, model(made), counting.inner)
    assert_same_bits(found, expected)


def test_same_bits_for_threads_and_executors():
    made = simulated(1.0, shape=(1000, 80), count=30)
    one, two = (mtd.get_backend("cpu", threads=n) for n in (1, 2))
    first = mtd.e_step(made.measurement, made.target, model(made), one, coarse=COARSE)
    with ThreadPoolExecutor(2) as pool:
        others = [
            mtd.e_step(made.measurement, made.target, model(made), two, coarse=COARSE),
            mtd.e_step(made.measurement, made.target, model(made), one, pool, coarse=COARSE),
        ]
    for other in others:
        assert_same_bits(first, other)


def test_reference_backend_defines_it():
    made = simulated(2.0, shape=(44, 40), count=2, separation=1)
    likelihood = mtd.WindowLikelihood(mtd.Rotations(12, BOX), made.noise_std, 2.0)
    stats = [
        mtd.e_step(made.measurement, made.target, likelihood, mtd.get_backend(name, "float64"), coarse=6)
        for name in ("reference", "cpu")
    ]
    assert_same_statistics(stats[0], stats[1], 1e-8)


def test_patches_and_few_angles_are_left_alone():
    made = simulated(1.0)
    counting = Counting(mtd.get_backend("cpu", threads=1))
    mtd.e_step(
        made.measurement,
        made.target,
        mtd.PatchLikelihood(mtd.Rotations(24, BOX), made.noise_std),
        counting,
        coarse=12,
    )
    assert counting.tiles
    counting.tiles = 0
    mtd.e_step(made.measurement, made.target, model(made), counting, coarse=ANGLES)
    assert counting.tiles


def test_when_it_is_used():
    few, many = mtd.Rotations(24, 28), mtd.Rotations(90, 28)
    assert coarse_views(None, mtd.Rotations(360, 28)) is None
    assert coarse_views("auto", few) is None
    assert coarse_views("auto", many) == 24
    assert coarse_views("auto", mtd.Classes(many, 2)) == 24
    assert coarse_views(8, many) == 8
    with pytest.raises(ParameterError, match="coarse_rotations must be a positive number"):
        coarse_views(0, many)


class Shuffled(mtd.Rotations):
    """The same rotations in no order: every n-th of them is no coarse set."""

    def apply(self, target, part=slice(None)):
        return super().apply(target)[self.order][part]

    def adjoint(self, stack, part=slice(None)):
        return super().adjoint(extended(stack, part, self.count)[np.argsort(self.order)])

    @property
    def order(self):
        return np.random.default_rng(0).permutation(self.count)

    def coarse(self, count, band=None):
        return mtd.Rotations(count, self.box_size, "disc")


def test_unordered_views_have_a_coarse_set_of_their_own():
    made = simulated(1.0)
    likelihood = replace(model(made), views=Shuffled(ANGLES, BOX))
    expected, _ = both(made.measurement, made.target, model(made))
    plain, found = both(made.measurement, made.target, likelihood)
    assert_same(found, expected)
    np.testing.assert_allclose(plain.right, expected.right, rtol=1e-6, atol=1e-6)


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
