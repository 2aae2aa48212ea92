"""A result as a dataset with named axes; xarray is optional."""

import sys

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.errors import DependencyError


@pytest.fixture(scope="module", params=[1, 2])
def found(request):
    made = mtd.simulate(mtd.datasets.glyphs(1, 10)[0], side=60, density=0.1, snr=4.0, seed=1)
    return mtd.recover(made.measurement, box_size=10, classes=request.param, iterations=3, backend="array")


def test_images_and_history_have_named_axes(found):
    pytest.importorskip("xarray")
    made = found.to_xarray()
    axes = ("class", "row", "column")[-found.target.ndim :]
    for name, expected in (("estimate", found.target), ("aligned_average", found.aligned_average)):
        assert made[name].dims == axes
        np.testing.assert_array_equal(made[name], expected)
    last = made.sel(iteration=3)
    assert float(last.expected_count) == found.history[-1].expected_count
    assert float(last.objective) == found.history[-1].objective
    assert made.attrs["evidence_nats"] == found.evidence
    assert made.attrs["stopped"] == "iterations"


def test_without_xarray_it_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(DependencyError, match=r"xarray.*pip install 'mtdcore\[xarray\]'"):
        found.to_xarray()
