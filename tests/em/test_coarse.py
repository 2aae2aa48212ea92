"""Block means: the measurement, the prior, and what they start."""

import numpy as np
import pytest

from mtdcore import (
    CompactUpdate,
    FlatPrior,
    GaussianPrior,
    Micrographs,
    PatchLikelihood,
    WindowLikelihood,
    e_step,
    get_backend,
    open_measurement,
    recover,
    relative_error,
    simulate,
)
from mtdcore.data.binned import BinnedMeasurement
from mtdcore.em.coarse import BinnedPrior, fine_start, recover_coarse, recover_coarse_first
from mtdcore.errors import ParameterError
from mtdcore.model.priors import denoise
from mtdcore.model.rotations import Rotations
from mtdcore.testing import assert_same_bits

CPU = get_backend("cpu", threads=1)
SHAPE = (2, 71, 90)


def pixels(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE)


def means(array, factor):
    rows, columns = (n // factor for n in array.shape[1:])
    cut = array[:, : rows * factor, : columns * factor]
    return cut.reshape(len(array), rows, factor, columns, factor).mean(axis=(2, 4))


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize(
    "likelihood",
    [WindowLikelihood(Rotations(4, 5), 1.0, 10.0), PatchLikelihood(Rotations(4, 5), 1.0)],
    ids=["window", "patch"],
)
def test_an_e_step_on_blocks_is_one_on_their_means(monkeypatch, likelihood, factor):
    monkeypatch.setattr("mtdcore.model.likelihood.window._TILE_PIXELS", 32)
    monkeypatch.setattr("mtdcore.model.likelihood.patch._TILE_PIXELS", 20)
    target = np.random.default_rng(1).normal(size=(5, 5))
    exact = get_backend("cpu", precision="float64", threads=1)
    blocks = BinnedMeasurement(open_measurement(pixels()), factor)
    found = e_step(blocks, target, likelihood, exact)
    expected = e_step(means(pixels(), factor), target, likelihood, exact)
    assert (found.sites, found.pixels) == (expected.sites, expected.pixels)
    np.testing.assert_allclose(found.right, expected.right, rtol=1e-9, atol=1e-12)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
    parts = [e_step(part, target, likelihood, exact) for part in blocks.split(2)]
    assert sum(part.sites for part in parts) == found.sites


def test_a_block_with_an_invalid_pixel_is_invalid():
    array = pixels()
    array[0, 10, 20] = np.nan
    blocks = BinnedMeasurement(open_measurement(array), 2)
    geometry = WindowLikelihood(Rotations(4, 5), 1.0, 10.0).geometry
    valid = [np.ones(t.values.shape, bool) if t.valid is None else t.valid for t in blocks.tiles(geometry)]
    assert [np.argwhere(~v).tolist() for v in valid] == [[[5, 10]], []]
    with pytest.raises(ParameterError, match=r"a block needs a side between 1 and .* got 72"):
        BinnedMeasurement(open_measurement(array), 72)


@pytest.mark.parametrize(("box", "factor"), [(6, 2), (7, 2), (5, 4), (4, 1)])
def test_spreading_and_averaging(box, factor):
    prior = BinnedPrior(FlatPrior(), factor, box)
    blocks = np.random.default_rng(0).normal(size=(3, -(-box // factor), -(-box // factor)))
    assert prior.spread(blocks).shape == (3, box, box)
    np.testing.assert_allclose(prior.bin(prior.spread(blocks)), blocks, atol=1e-12)
    ones = np.ones((1, box, box))
    np.testing.assert_allclose(prior.bin(ones), 1.0)


def test_the_prior_of_block_means_of_white_pixels():
    """Means over f x f of N(m, t^2) pixels are N(m, (t / f)^2); with noise s their denoiser is known."""
    prior = BinnedPrior(GaussianPrior(2.0, 1.5), 2, 6)
    y, s = np.random.default_rng(0).normal(size=(4, 3, 3)), 0.7
    exact = GaussianPrior(2.0, 1.5 / 2)
    np.testing.assert_allclose(denoise(prior, y, s), denoise(exact, y, s), rtol=1e-12)
    with pytest.raises(ParameterError, match="positive noise levels only"):
        prior.score(y, 0.0)


def test_the_centre_of_the_prior_in_blocks():
    class Centred(FlatPrior):
        centre = (13.5, 14.5)

    assert BinnedPrior(Centred(), 2, 28).centre == (6.5, 7.0)
    assert BinnedPrior(FlatPrior(), 2, 28).centre is None


@pytest.fixture(scope="module")
def made():
    """Sixty smooth targets."""
    offset = np.arange(12) - 5.5
    target = 4 * np.exp(-0.5 * ((offset[:, None] - 1) ** 2 / 4 + (offset[None, :] + 1) ** 2 / 12))
    return simulate(target, side=260, count=60, snr=1.0, separation=1)


def test_starts_the_fine_recovery_where_it_belongs(made):
    options = {"noise_std": made.noise_std, "initial": "blob", "iterations": 12, "backend": CPU}
    coarse = recover_coarse(open_measurement(made.measurement), 2, 12, 12, options)
    assert coarse.target.shape == (6, 6)
    assert coarse.noise_std == made.noise_std / 2
    start = fine_start(coarse, 2, 12)
    assert relative_error(start["initial"], made.target, max_shift=2) < 0.4
    found = recover_coarse_first(made.measurement, box_size=12, coarse_iterations=12, **options)
    assert relative_error(found.target, made.target, max_shift=2) < 0.3
    expected = recover(made.measurement, box_size=12, **options | start)
    assert_same_bits(found.statistics, expected.statistics)


def test_lengths_frequencies_and_images_are_those_of_blocks(made):
    """The diameter, the transfer of micrographs and an image to start from."""
    transfer = np.linspace(1.0, 0.2, 17)[None]
    options = {"diameter": 8.0, "initial": made.target, "backend": CPU}
    options |= {"micrographs": Micrographs(np.ones(1), transfer=transfer)}
    coarse = recover_coarse(open_measurement(made.measurement), 2, 2, 12, options)
    np.testing.assert_allclose(coarse.likelihood.micrographs.transfer, np.linspace(1.0, 0.6, 17)[None])
    told = recover(
        BinnedMeasurement(open_measurement(made.measurement), 2),
        box_size=6,
        iterations=2,
        backend=CPU,
        diameter=4.0,
        initial=made.target.reshape(6, 2, 6, 2).mean(axis=(1, 3)),
        micrographs=Micrographs(np.ones(1), transfer=np.linspace(1.0, 0.6, 17)[None]),
    )
    np.testing.assert_allclose(coarse.target, told.target, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "given",
    [
        {"rotations": Rotations(4, 12)},
        {"likelihood": WindowLikelihood(Rotations(4, 12), 1.0, 10.0)},
        {"update": CompactUpdate(8.0)},
    ],
)
def test_objects_of_pixels_are_refused(made, given):
    with pytest.raises(ParameterError, match=f"takes numbers, which it scales; got {next(iter(given))}="):
        recover_coarse_first(made.measurement, box_size=12, **given)


def test_a_state_needs_no_start(made):
    states = []
    options = {
        "noise_std": made.noise_std,
        "box_size": 12,
        "initial": "blob",
        "iterations": 4,
        "backend": CPU,
    }
    whole = recover_coarse_first(made.measurement, coarse_iterations=3, callback=states.append, **options)
    again = recover_coarse_first(made.measurement, state=states[1], **options)
    assert np.array_equal(again.target, whole.target)


def test_a_box_that_is_no_square_is_refused():
    with pytest.raises(ParameterError, match=r"a square box, one side in pixels; got \(1, 24\)"):
        recover_coarse_first(np.zeros((1, 400)), box_size=(1, 24))
