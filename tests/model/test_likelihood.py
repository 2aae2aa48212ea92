"""Geometry of the tiles, pose priors and validation of both models."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from mtdcore import PatchLikelihood, WindowLikelihood
from mtdcore.data import open_measurement
from mtdcore.errors import ParameterError
from mtdcore.model.rotations import Rotations
from mtdcore.model.views import Classes

LIKELIHOODS = {
    "patch": PatchLikelihood(Rotations(4, 5), 1.0),
    "patch margin": PatchLikelihood(Rotations(4, 5), 1.0, margin=2),
    "window": WindowLikelihood(Rotations(4, 5), 1.0, 3.0),
    "window overlapping": WindowLikelihood(Rotations(4, 5), 1.0, 3.0, min_separation=2),
    "window margin": WindowLikelihood(Rotations(4, 5), 1.0, 3.0, min_separation=1, margin=3),
}


@pytest.fixture(params=[1, 16, 512], ids="tile pixels {}".format)
def tile_pixels(request, monkeypatch):
    for model in ("patch", "window"):
        monkeypatch.setattr(f"mtdcore.model.likelihood.{model}._TILE_PIXELS", request.param)


@pytest.mark.parametrize("shape", [(41, 77), (5, 5), (5, 64), (23, 9), (4, 30)])
@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.usefixtures("tile_pixels")
def test_tiles_partition_the_sites_and_the_pixels(name, shape):
    likelihood = LIKELIHOODS[name]
    geometry = likelihood.geometry
    sites, pixels = np.zeros(shape, int), np.zeros(shape, int)
    tiles = list(open_measurement(np.zeros(shape, np.float32)).tiles(geometry))
    for tile in tiles:
        owned, read = tile.region
        sites[owned] += 1
        pixels[read][tile.owned_pixels] += 1
        for site, seen, length in zip(owned, read, shape, strict=True):
            assert seen.start == max(0, site.start - geometry.halo)
            assert seen.stop == min(length, site.stop + geometry.halo + geometry.reach)
            assert 0 < site.stop - site.start <= geometry.side
            assert site.start % geometry.unit == site.stop % geometry.unit == 0
            assert seen.stop - seen.start <= max(geometry.largest_read(shape))
    rows, columns = geometry.extent(shape)
    assert np.array_equal(
        sites,
        np.pad(np.ones((rows, columns)), [(0, n - m) for n, m in zip(shape, (rows, columns), strict=True)]),
    )
    assert pixels.max(initial=0) <= 1
    assert (pixels == 0).sum() == geometry.unused_pixels(shape)
    assert len(tiles) == geometry.count(shape)


def test_extents():
    assert LIKELIHOODS["patch"].geometry.extent((14, 27)) == (10, 25)
    assert LIKELIHOODS["window"].geometry.extent((14, 27)) == (10, 23)
    assert LIKELIHOODS["window"].geometry.extent((4, 27)) == (0, 0)


@pytest.mark.parametrize("empty_probability", [None, 0.2, 0.999])
def test_pose_prior_of_a_patch_sums_to_one(empty_probability):
    log_empty, log_shown = PatchLikelihood(Rotations(3, 7), 1.0, empty_probability).log_prior
    empty = 3 * (4 * 7 - 1) * math.exp(log_empty)
    assert empty + 3 * (2 * 7 - 1) ** 2 * math.exp(log_shown) == pytest.approx(1, rel=1e-12)
    if empty_probability is None:
        assert log_empty == pytest.approx(log_shown) == pytest.approx(-math.log(4 * 7**2 * 3))
    else:
        assert empty == pytest.approx(empty_probability)


def test_activity_of_a_window():
    bound = WindowLikelihood(Rotations(4, 5), 1.0, 6.0, min_separation=3).bind((2, 34, 44))
    assert bound.positions == 2 * 30 * 40
    rate = 6.0 / 2400
    assert bound.log_activity == pytest.approx(math.log(rate / (1 - rate * 25)))


def test_activity_saturates_instead_of_diverging():
    crowded = WindowLikelihood(Rotations(4, 5), 1.0, 1e6).bind((1, 34, 44))
    assert math.exp(crowded.log_activity) * 81 == pytest.approx(0.9 / 0.1)


def test_unbound_window_is_refused():
    with pytest.raises(ParameterError, match=r"call bind\(shape\)"):
        _ = LIKELIHOODS["window"].log_activity


def test_another_noise_level_changes_nothing_else():
    for likelihood in LIKELIHOODS.values():
        louder = likelihood.with_noise_std(3.0)
        assert louder.noise_std == 3.0
        assert louder.with_noise_std(likelihood.noise_std) == likelihood


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_std": 0.0}, "noise_std must be .* got 0.0"),
        ({"noise_std": math.nan}, "noise_std must be .* got nan"),
        ({"margin": -1}, "margin must be .* got -1"),
    ],
)
@pytest.mark.parametrize("model", [PatchLikelihood, WindowLikelihood])
def test_parameters_outside_their_domain(model, changed, message):
    count = {"expected_count": 3.0} if model is WindowLikelihood else {}
    with pytest.raises(ParameterError, match=message):
        model(**({"views": Rotations(4, 5), "noise_std": 1.0} | count | changed))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchLikelihood(Rotations(4, 5), 1.0, margin=3), "margin must be at most box_size // 2 = 2"),
        (
            lambda: PatchLikelihood(Rotations(4, 5), 1.0, 0.0),
            "empty_probability must lie strictly between 0 and 1",
        ),
        (
            lambda: PatchLikelihood(Rotations(4, 5), 1.0, 1.0),
            "empty_probability must lie strictly between 0 and 1",
        ),
        (lambda: WindowLikelihood(Rotations(4, 5), 1.0, 0.0), "expected_count must be a positive number"),
        (
            lambda: WindowLikelihood(Rotations(4, 5), 1.0, math.inf),
            "expected_count must be a positive number",
        ),
        (
            lambda: WindowLikelihood(Rotations(4, 5), 1.0, 3.0, min_separation=0),
            "min_separation must be at least 1",
        ),
    ],
)
def test_parameters_of_one_model(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_likelihoods_are_frozen():
    with pytest.raises(FrozenInstanceError):
        LIKELIHOODS["patch"].box_size = 6


@pytest.mark.parametrize("weights", [(), (0.5,), (0.5, 0.6), (1.0, 0.0)])
@pytest.mark.parametrize("name", ["patch", "window"])
def test_class_weights_are_shares(name, weights):
    with pytest.raises(ParameterError, match="class weights should"):
        replace(LIKELIHOODS[name], class_weights=weights)


@pytest.mark.parametrize("name", ["patch", "window"])
def test_class_weights_become_a_bias_of_each_template(name):
    model = replace(LIKELIHOODS[name], views=Classes(Rotations(4, 5), 2), class_weights=(0.75, 0.25))
    assert (model.classes, model.templates) == (2, 8)
    share = np.exp(model.template_bias) / model.templates
    assert share.sum() == pytest.approx(1)
    assert share[0] == pytest.approx(0.75 / 4)
    assert not replace(model, class_weights=(0.5, 0.5)).template_bias.any()
