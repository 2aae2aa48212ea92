import numpy as np
import pytest

import mtdcore as mtd
from mtdcli.posterior import peaks, view


@pytest.mark.parametrize("kind", ["window", "patch"])
def test_the_copies_drawn_are_those_placed(kind):
    target = mtd.datasets.glyphs(1, 12)[0].astype(float)
    simulation = mtd.simulate(target, shape=(96, 84), count=4, snr=20.0, seed=0)
    likelihood = (
        mtd.WindowLikelihood(12, 4, simulation.noise_std, 4.0)
        if kind == "window"
        else mtd.PatchLikelihood(12, 4, simulation.noise_std)
    ).bind(simulation.measurement.shape)
    (tile,) = simulation.measurement.tiles(likelihood.geometry)
    turned = mtd.RotationSet(4, 12).apply(target)
    seen = view(tile, mtd.get_backend("cpu").posterior(tile, turned, likelihood), likelihood)
    assert seen.best.shape == seen.values.shape == (96, 84)
    assert 0 <= seen.best.min() <= seen.best.max() <= 1.001
    assert sorted(map(tuple, seen.corners)) == sorted(map(tuple, simulation.positions[:, 1:]))


def test_peaks_need_mass_and_distance():
    mass = np.zeros((20, 20))
    mass[5, 5], mass[5, 6] = 0.31, 0.3
    mass[5, 9] = 0.55
    mass[15, 15] = 0.4
    assert peaks(mass, 3).tolist() == [[5, 5], [5, 9]]
    assert peaks(mass, 6).tolist() == [[5, 9]]
    assert not len(peaks(np.zeros((5, 5)), 3))
