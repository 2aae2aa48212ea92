import numpy as np
import pytest

import mtdcore as mtd
from mtdcli.report.posterior import occupancy


@pytest.mark.parametrize("kind", ["window", "patch"])
def test_the_map_is_brightest_at_the_corners_of_the_copies(kind):
    target = mtd.datasets.glyphs(1, 12)[0].astype(float)
    simulation = mtd.simulate(target, shape=(96, 84), count=4, snr=20.0, seed=0)
    likelihood = (
        mtd.WindowLikelihood(mtd.Rotations(4, 12), simulation.noise_std, 4.0)
        if kind == "window"
        else mtd.PatchLikelihood(mtd.Rotations(4, 12), simulation.noise_std)
    ).bind(simulation.measurement.shape)
    (tile,) = simulation.measurement.tiles(likelihood.geometry)
    turned = mtd.Rotations(4, 12).apply(target)
    seen = occupancy(tile, mtd.get_backend("cpu").posterior(tile, turned, likelihood), 12)
    assert seen.shape == (96, 84)
    assert 0 <= seen.min() <= seen.max() <= 1.001
    likely = set(map(tuple, np.argwhere(seen > 0.5)))
    assert likely >= set(map(tuple, simulation.positions[:, 1:]))
    assert len(likely) <= 5  # two patches may judge the parts of one copy differently
