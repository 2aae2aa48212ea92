import numpy as np
import pytest

from mtdcore.errors import ParameterError
from mtdcore.synthetic.glyphs import GLYPH_NAMES, glyphs, labelled_glyphs


def test_shape_range_and_blank_background():
    images = glyphs(50)
    assert images.shape == (50, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() <= 1
    assert (images == 0).mean() > 0.5
    assert images.max(axis=(1, 2)).min() > 0.9


def test_a_glyph_depends_on_seed_and_index_only():
    many = glyphs(300, seed=3)
    assert np.array_equal(glyphs(7, seed=3), many[:7])
    assert not np.array_equal(glyphs(7, seed=4), many[:7])
    assert len(np.unique(many.reshape(300, -1), axis=0)) == 300


@pytest.mark.parametrize("box_size", [8, 17, 40])
def test_other_boxes_show_the_same_glyphs_centred(box_size):
    images, labels = labelled_glyphs(200, box_size)
    assert np.array_equal(labels, labelled_glyphs(200)[1])
    grid = np.mgrid[:box_size, :box_size]
    mass = images.sum(axis=(1, 2), dtype=np.float64)
    centre = (images[:, None] * grid).sum(axis=(2, 3), dtype=np.float64) / mass[:, None]
    assert np.abs(centre - (box_size - 1) / 2).max() < 0.06 * box_size


def test_strokes_stay_inside_the_box():
    images = glyphs(2000)
    assert images[:, [0, -1]].max() == 0
    assert images[:, :, [0, -1]].max() == 0


def test_every_class_appears_about_equally():
    counts = np.bincount(labelled_glyphs(1400)[1], minlength=len(GLYPH_NAMES))
    assert counts.shape == (len(GLYPH_NAMES),)
    assert counts.min() > 60


def test_upright_is_recognisable():
    """A turned glyph is farther from every upright glyph than the same glyph upright."""
    images = glyphs(1500).astype(np.float64)
    known, fresh = images[:1200].reshape(1200, -1), images[1200:]
    distance = []
    for turns in range(4):
        turned = np.rot90(fresh, turns, axes=(1, 2)).reshape(len(fresh), -1)
        products = (known**2).sum(axis=1) - 2 * turned @ known.T
        distance.append(products.min(axis=1))
    assert (np.argmin(distance, axis=0) == 0).mean() > 0.99


def test_no_glyphs_and_bad_arguments():
    assert glyphs(0).shape == (0, 28, 28)
    with pytest.raises(ParameterError, match="box of at least 8"):
        glyphs(1, box_size=4)


def test_glyphs_with_their_classes_are_the_same_glyphs():
    images, _ = labelled_glyphs(5)
    assert np.array_equal(images, glyphs(5))
