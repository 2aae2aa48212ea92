"""Every script of docs/gallery runs, draws its picture, and finds what it hid."""

import runpy
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mtdcore.data.micrographs.star import read_star

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
SCRIPTS = sorted(GALLERY.glob("*.py"))


def digits(found):
    assert found["aligned"].error < 0.25
    assert found["average"].error > 0.4  # the prior is what helped


def micrographs(found):
    assert found["aligned"].error < 0.3  # without a spectrum of the noise: .8 and more
    assert found["right"] >= 36
    assert len(found["copies"]) <= 42
    (table,) = read_star("picks.star").values()
    assert len(table["rlnCoordinateX"]) == len(found["copies"])


def volume(found):
    assert found["shape"] > 0.85  # chains that have nothing to do with it, aligned: .69 and .57


def heartbeats(found):
    assert found["error"] < 0.25
    assert abs(len(found["copies"]) - 40) <= 2


def own_prior(found):
    without, with_it = found["errors"]
    assert with_it < 0.35
    assert with_it < 0.7 * without


def own_likelihood(found):
    window, heavy = found["correlations"]
    assert heavy > 0.75
    assert window < 0.5


@pytest.mark.filterwarnings("ignore::mtdcore.errors.Doubt")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_find_what_they_hide(script, tmp_path, monkeypatch):
    if "mtdbridge" in script.read_text():
        pytest.importorskip("torch")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(script))
    globals()[script.stem](found)
    matplotlib.pyplot.close("all")
    shown = [np.asarray(Image.open(f / f"{script.stem}.png")) for f in (tmp_path, GALLERY / "images")]
    assert shown[0].std() > 20
    # the picture on the page is that of this script, up to fonts
    assert np.allclose(shown[0].shape, shown[1].shape, rtol=0.1)


def test_scripts_are_short_and_shown():
    page = (GALLERY / "README.md").read_text()
    assert len(SCRIPTS) == 6
    for script in SCRIPTS:
        assert len(script.read_text().splitlines()) < 40
        assert f"({script.name})" in page
        picture = GALLERY / "images" / f"{script.stem}.png"
        assert f"images/{picture.name}" in page
        assert picture.stat().st_size < 60_000
