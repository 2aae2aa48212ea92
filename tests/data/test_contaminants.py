"""Masks of simulated micrographs against what was put there; clean micrographs stay whole."""

import numpy as np
import pytest
from scipy import ndimage

from mtdcore.data.preparation.background import contrast_skewness
from mtdcore.data.preparation.borders import find_borders
from mtdcore.data.preparation.contaminants import find_contaminants
from mtdcore.data.preparation.prepare import Preparation

SIDE, DIAMETER = 480, 24
WIDTH = DIAMETER / 2
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]


def ice(rng, count, height, blur=0.0, region=None):
    """Noise of standard deviation 1 with this many dark, elongated particles at any angle, in a region of (rows, columns)."""
    image = rng.normal(size=(SIDE, SIDE))
    if blur:
        image = ndimage.gaussian_filter(image, blur)
        image /= image.std()
    down, across = np.mgrid[-DIAMETER : DIAMETER + 1, -DIAMETER : DIAMETER + 1]
    far, placed = np.array(region or (SIDE, SIDE)) - DIAMETER - 1, np.empty((0, 2))
    for place in rng.uniform(DIAMETER, far, size=(40 * count, 2)).astype(int):
        if len(placed) == count:
            break
        if len(placed) and np.hypot(*(placed - place).T).min() < 0.9 * DIAMETER:
            continue
        placed = np.vstack([placed, place])
        sine, cosine = np.sin(angle := rng.uniform(0, np.pi)), np.cos(angle)
        distance = np.hypot(1.25 * (down * cosine + across * sine), 0.8 * (across * cosine - down * sine))
        shape = 1 / (1 + np.exp((distance - DIAMETER / 2.6) / 1.2))
        box = tuple(slice(n - DIAMETER, n + DIAMETER + 1) for n in place)
        image[box] -= height * np.exp(0.15 * rng.normal()) * shape
    return image


def beside_carbon(rng, image, fringe=3.0, grey=0.5, noise=0.6):
    """The picture with carbon behind a round edge that has a bright and a dark fringe; and where the carbon is."""
    distance = np.hypot(ROWS + 200, COLUMNS + 200) - 520
    where = distance < 0
    texture = ndimage.gaussian_filter(rng.normal(size=image.shape), 1.0)
    image = np.where(where, noise * texture / texture.std() - grey, image)
    bright, dark = (np.exp(-0.5 * ((distance - at) / 2.7) ** 2) for at in (4, -4))
    return image + fringe * (bright - dark), where


def with_crystals(image, height, places=((90, 380), (330, 150))):
    """The picture with round, dark crystals of about a particle's size; and where they are."""
    where = np.zeros(image.shape, bool)
    for number, (row, column) in enumerate(places):
        where |= np.hypot(ROWS - row, COLUMNS - column) < (0.7 + 0.4 * number) * DIAMETER
    return image - height * ndimage.gaussian_filter(where.astype(float), 2.0), where


def masked(image):
    return find_contaminants(image.astype(np.float32), WIDTH)


def overlap(one, other):
    """Intersection over union."""
    return (one & other).sum() / (one | other).sum()


CLEAN = {
    "noise": lambda rng: ice(rng, 0, 0),
    "coloured noise": lambda rng: ice(rng, 0, 0, 2.0),
    "crowded, faint": lambda rng: ice(rng, 170, 0.5),
    "crowded, strong": lambda rng: ice(rng, 170, 5.0),
    "crowded, coloured": lambda rng: ice(rng, 170, 2.0, 2.0),
    "sparse, faint": lambda rng: ice(rng, 25, 0.5),
    "sparse, strong": lambda rng: ice(rng, 25, 4.0),
    "half empty": lambda rng: ice(rng, 85, 3.0, region=(SIDE, SIDE // 2)),
    "ice gradient": lambda rng: ice(rng, 120, 1.0) + 4 * (ROWS / SIDE) ** 2 + 3 * COLUMNS / SIDE,
    "vignette": lambda rng: (
        ice(rng, 120, 1.0) - 8 * (np.hypot(ROWS - SIDE / 2, COLUMNS - SIDE / 2) / SIDE) ** 2
    ),
    "stripes": lambda rng: ice(rng, 60, 1.0) + 0.5 * rng.normal(size=(SIDE, 1)),
    "hot pixels": lambda rng: ice(rng, 60, 1.0) + 30 * (rng.random((SIDE, SIDE)) < 1e-4),
}


@pytest.mark.parametrize("kind", CLEAN)
def test_hardly_anything_of_a_clean_micrograph_is_masked(kind):
    shares = [masked(CLEAN[kind](np.random.default_rng(seed))).mean() for seed in range(4)]
    assert np.median(shares) == 0
    assert max(shares) < 0.02


@pytest.mark.parametrize(
    ("count", "height", "blur", "fringe"),
    [(170, 0.5, 0.0, 3.0), (25, 0.5, 0.0, 3.0), (120, 1.0, 1.0, 3.0), (170, 2.0, 2.0, 5.0)],
)
@pytest.mark.parametrize("seed", range(3))
def test_carbon_is_masked_whichever_sign_it_has(count, height, blur, fringe, seed):
    rng = np.random.default_rng(seed)
    image, carbon = beside_carbon(rng, ice(rng, count, height, blur), fringe)
    for sign in (1, -1):
        found = masked(sign * image)
        assert overlap(found, carbon) > 0.7
        assert found[carbon].mean() > 0.95
        assert not found[ndimage.distance_transform_edt(~carbon) > 5 * WIDTH].any()


def test_carbon_that_is_only_smoother_than_ice_is_masked():
    rng = np.random.default_rng(1)
    image, carbon = beside_carbon(rng, ice(rng, 170, 0.5), grey=0.0)
    assert overlap(masked(image), carbon) > 0.8


def test_a_scratch_masks_itself_and_neither_side():
    rng = np.random.default_rng(1)
    scratch = np.abs(ROWS - 0.6 * COLUMNS - 60) < 3
    found = masked(ice(rng, 170, 0.5) - 5 * scratch)
    assert found[scratch].mean() > 0.9
    assert found.mean() < 0.2


@pytest.mark.parametrize(("count", "height"), [(170, 0.5), (25, 0.5), (0, 0.0)])
@pytest.mark.parametrize("strength", [5.0, 20.0])
def test_crystals_are_masked_with_a_margin_of_half_a_particle(count, height, strength):
    rng = np.random.default_rng(3)
    image, crystals = with_crystals(ice(rng, count, height), strength)
    found = masked(image)
    assert found[crystals].all()
    assert overlap(found, ndimage.distance_transform_edt(~crystals) <= WIDTH) > 0.75


def test_a_crystal_among_strong_particles_is_told_from_them():
    rng = np.random.default_rng(4)
    image, crystals = with_crystals(ice(rng, 170, 2.0, 1.0), 20.0)
    found = masked(image)
    assert found[crystals].all()
    assert overlap(found, ndimage.distance_transform_edt(~crystals) <= WIDTH) > 0.75


def test_what_is_masked_already_is_no_object():
    image = ice(np.random.default_rng(5), 170, 0.5)
    image[200:260, 100:300] = np.nan
    assert not masked(image).any()
    assert not masked(np.full((SIDE, SIDE), np.nan)).any()
    assert not masked(np.ones((SIDE, SIDE))).any()
    assert not find_contaminants(image[:100, :100].astype(np.float32), WIDTH).any()


def test_the_sign_of_the_contrast_is_told_on_what_is_not_masked():
    """Dark particles, inverted as they should be, beside carbon and a hole in it that say the opposite."""
    rng = np.random.default_rng(6)
    image, _ = with_crystals(ice(rng, 120, 1.5), -20.0, ((200, 250), (300, 300)))
    assert contrast_skewness(Preparation("keep", "keep", "keep")(image).pixels)[0] < 0
    assert contrast_skewness(Preparation()(image).pixels)[0] > 0.1


def test_a_masked_array_is_prepared_without_what_it_masks():
    image = ice(np.random.default_rng(9), 60, 1.0)
    hidden = np.zeros(image.shape, bool)
    hidden[100:160, 50:300] = True
    known = Preparation()(np.where(hidden, np.nan, image)).pixels
    found = Preparation()(np.ma.array(np.where(hidden, 1e4, image), mask=hidden)).pixels
    assert np.array_equal(np.isnan(found), hidden)
    assert np.array_equal(found, known, equal_nan=True)


@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_smeared_and_constant_borders_are_found_to_the_line(blur):
    image = ice(np.random.default_rng(7), 60, 1.0, blur).astype(np.float32)
    assert not find_borders(image).any()
    expected = np.zeros(image.shape, bool)
    expected[:5] = expected[:, -8:] = expected[-3:] = True
    image[:, -8:] = image[:, -9:-8]
    image[:5] = image[5]
    image[-3:] = 4.0
    assert np.array_equal(find_borders(image), expected)


def test_a_picture_that_varies_along_one_axis_only_has_no_border():
    stripes = np.repeat(np.random.default_rng(8).normal(size=(SIDE, 1)), SIDE, axis=1)
    assert not find_borders(stripes).any()
    assert not find_borders(np.zeros((SIDE, SIDE))).any()
    assert not find_borders(np.zeros((8, 8))).any()
