"""Entry points of other packages: a prior and a backend found by name."""

import sys

import numpy as np
import pytest

import mtdcore
from mtdcore._base.plugins import plugin, plugin_names
from mtdcore.errors import DependencyError, ParameterError

POINTS = """
[mtdcore.priors]
flat = plugged:flat
broken = plugged:nothing

[mtdcore.backends]
slow = plugged:slow
"""

MODULE = """
import mtdcore

class Flat:
    calls = 0

    def score(self, images, noise_std):
        Flat.calls += 1
        return 0.0 * images

def flat(name):
    assert name == "flat"
    return Flat()

def slow(name, precision, threads):
    backend = mtdcore.get_backend("reference")
    backend.given = (name, precision, threads)
    return backend
"""


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """A package with plug-ins, as pip would install it."""
    folder = tmp_path / "site"
    (folder / "plugged-1.0.dist-info").mkdir(parents=True)
    (folder / "plugged-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n"
    )
    (folder / "plugged-1.0.dist-info/entry_points.txt").write_text(POINTS)
    (folder / "plugged.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop("plugged", None)


def test_a_backend_is_found_by_its_name(plugged):
    backend = mtdcore.get_backend("slow:2", "float64", 3)
    assert backend.given == ("slow:2", "float64", 3)


def test_an_unknown_backend_names_those_there_are(plugged):
    with pytest.raises(ParameterError, match=r'"cpu".*"reference", "slow"'):
        mtdcore.get_backend("fast")


def test_a_prior_is_found_by_its_name(plugged, mtd, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32))
    options = ("--box-size", 8, "--iterations", 1, "--initial", "uniform", "--device", "cpu")
    mtd("recover", tmp_path / "m.npy", "-o", tmp_path / "run", *options, "--prior", "flat")
    assert sys.modules["plugged"].Flat.calls > 0


def test_an_unknown_prior_names_those_there_are(plugged, mtd, tmp_path):
    pytest.importorskip("torch")
    np.save(tmp_path / "m.npy", np.zeros((40, 40), np.float32))
    refused = mtd(
        "recover", tmp_path / "m.npy", "-o", tmp_path / "run", "--box-size", 8, "--prior", "round", code=65
    )
    assert "glyphs" in refused.stderr
    assert "broken, flat" in refused.stderr


def test_a_plug_in_that_does_not_load_is_named(plugged):
    with pytest.raises(DependencyError, match=r"broken \(plugged:nothing\).*AttributeError"):
        plugin("mtdcore.priors", "broken")
    assert plugin("mtdcore.priors", "none") is None
    assert plugin_names("mtdcore.priors") == ["broken", "flat"]
