"""Recoveries show themselves: a figure, and a picture in a notebook."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import mtdcore as mtd
from mtdcore.drawing.overview import target_overview


@pytest.fixture(scope="module")
def image():
    """A short recovery of a glyph."""
    made = mtd.simulate(mtd.datasets.glyphs(1, 10)[0], side=60, density=0.1, snr=4.0, seed=1)
    return mtd.recover(made.measurement, box_size=10, rotations=4, iterations=4, backend="array")


@pytest.fixture(scope="module")
def volume():
    """A short recovery of a cube in a corner of its box."""
    cube = np.zeros((8, 8, 8))
    cube[3:6, 2:5, 3:7] = 1.0
    made = mtd.simulate_volume(cube, count=6, micrographs=1, snr=4.0)
    return mtd.recover_volume(made.measurement, box_size=8, iterations=3, views=200)


def drawn(figure):
    """Pictures and curves by their titles."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.has_data()}


def test_an_image_is_drawn_beside_its_history(image):
    parts = drawn(image.plot())
    assert set(parts) == {"estimate", "evidence, nats", "expected copies"}
    np.testing.assert_array_equal(parts["estimate"].images[0].get_array(), image.target)
    for title, name in (("evidence, nats", "objective"), ("expected copies", "expected_count")):
        across, up = parts[title].lines[0].get_data()
        assert list(across) == [1, 2, 3, 4]
        assert list(up) == [getattr(one, name) for one in image.history]


def test_a_volume_is_drawn_as_sections_and_projections(volume):
    parts = drawn(volume.plot())
    assert len(parts) == 8
    for axis, name in enumerate("zyx"):
        section = parts[f"section across {name}"].images[0].get_array()
        np.testing.assert_array_equal(section, volume.volume.take(4, axis))
        projection = parts[f"projection along {name}"].images[0].get_array()
        np.testing.assert_array_equal(projection, volume.volume.sum(axis))
    assert list(parts["evidence, nats"].lines[0].get_ydata()) == [one.evidence for one in volume.history]


def test_classes_and_channels_have_their_own_axes():
    assert set(drawn(target_overview(np.ones((4, 6, 6)), {}))) == {f"class {i}" for i in (1, 2, 3, 4)}
    motifs = np.arange(2 * 3 * 40.0).reshape(2, 3, 40)
    figure = target_overview(motifs, {})
    lines = [axes.lines[0].get_ydata() for axes in figure.axes]
    np.testing.assert_array_equal(lines, motifs.reshape(6, 40))


def test_a_figure_of_the_callers_is_drawn_into(image):
    mine = Figure()
    assert image.plot(mine) is mine
    assert set(drawn(mine)) == set(drawn(image.plot()))


@pytest.mark.parametrize("kind", ["image", "volume"])
def test_a_notebook_gets_a_picture_with_its_words(kind, request):
    found = request.getfixturevalue(kind)
    for shown in (found, found.state):
        page = shown._repr_html_()
        alt, source = re.search(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)"', page).groups()
        assert "evidence" in alt
        assert ("section across z" if kind == "volume" else "estimate") in alt
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("L"))
        assert pixels.shape[1] > 500
        assert pixels.std() > 20
        assert repr(shown) in page
        assert len(repr(shown)) < 160
        assert "\n" not in repr(shown)
