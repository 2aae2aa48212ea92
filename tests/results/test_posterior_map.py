import numpy as np
import pytest

import mtdcore
from mtdcore.errors import ParameterError
from mtdcore.results.detections import detect
from mtdcore.results.posterior_map import posterior_maps, write_posterior_map

L = 9
MADE = mtdcore.simulate(
    np.random.default_rng(0).uniform(size=(L, L)),
    shape=(90, 70),
    count=12,
    snr=4.0,
    separation=1,
    micrographs=2,
)
MODEL = mtdcore.WindowLikelihood(L, 4, MADE.noise_std, 24.0)


def test_the_mass_is_the_count_of_an_e_step_and_lies_on_the_centres():
    maps = np.stack(list(posterior_maps(MADE.measurement, MADE.target, MODEL)))
    assert maps.shape == MADE.measurement.shape
    assert maps.sum() == pytest.approx(
        mtdcore.e_step(MADE.measurement, MADE.target, MODEL).expected_count, rel=1e-5
    )
    sure = np.argwhere(maps > 0.5)
    found = detect(MADE.measurement, MADE.target, MODEL, reach=0).positions
    assert {tuple(place) for place in sure} == {(m, r + L // 2, c + L // 2) for m, r, c in found.tolist()}


def test_it_is_written_as_an_image_that_opens(tmp_path):
    write_posterior_map(tmp_path / "p.zarr", MADE.measurement, MADE.target, MODEL, pixel_size=2.0)
    stored = mtdcore.open_measurement(tmp_path / "p.zarr")
    geometry = mtdcore.model.likelihood.TileGeometry(side=100, unit=1, halo=0, reach=0)
    read = np.stack([tile.values for tile in stored.tiles(geometry)])
    assert np.array_equal(read, np.stack(list(posterior_maps(MADE.measurement, MADE.target, MODEL))))


def test_the_patch_model_is_refused():
    with pytest.raises(ParameterError, match="window model"):
        list(posterior_maps(MADE.measurement, MADE.target, mtdcore.PatchLikelihood(L, 4, 1.0)))
