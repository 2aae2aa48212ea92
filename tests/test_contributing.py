"""The exercise of CONTRIBUTING: a view and a likelihood of one's own run through ``recover``."""

import re
from pathlib import Path

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.testing import ViewsConformance

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
VIEW, LIKELIHOOD = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the two blocks define."""
    defined = {"__name__": "exercise"}
    exec(VIEW, defined)
    exec(LIKELIHOOD, defined)
    return defined


class TestMirrored(ViewsConformance):
    @pytest.fixture
    def views(self, names):
        return names["Mirrored"](mtd.Rotations(3, 5))

    def make_views(self):
        raise NotImplementedError

    def test_travels(self, views):
        """A class that only this test knows does not travel."""


def test_both_run_through_recover(names):
    target = np.random.default_rng(0).uniform(0, 4, size=(7, 7))
    made = mtd.simulate(target, side=90, density=0.1, snr=4.0, seed=1, dtype="float64")
    pixels = made.measurement.array[0].copy()
    for (_, row, column), k in zip(made.positions[::2], made.rotation_indices[::2], strict=True):
        pixels[row : row + 7, column : column + 7] += np.rot90(target[:, ::-1] - target, k)
    views = names["Mirrored"](mtd.Rotations(4, 7))
    likelihood = names["CountedCopies"](views, made.noise_std, float(len(made.positions)))
    prior = mtd.GaussianPrior(2.0, 1.2)
    found = mtd.recover(
        pixels, box_size=7, rotations=views, likelihood=likelihood, prior=prior, backend="cpu", iterations=30
    )
    assert found.likelihood.expected_count == len(made.positions)
    error = min(mtd.relative_error(found.target[:, ::s], target, rotations=4) for s in (1, -1))
    assert error < 0.2
