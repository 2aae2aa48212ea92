"""Volumes in noise as it comes: an offset, other units, a spectrum that is not white."""

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data.noise import estimate_noise_std
from mtdcore.em.plan.levels import first_levels
from mtdcore.em.volumes.noise import NoiseModel, first_noise_model, quiet_spectrum, suspected
from mtdcore.em.volumes.plan import VolumePlan
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.em.volumes.state import load_volume_checkpoint, save_volume_checkpoint
from mtdcore.errors import ParameterError
from mtdcore.model.priors import GaussianPrior
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.grids import ball, low_passed
from mtdcore.results.volumes import align_volumes, shape_correlation
from mtdcore.synthetic.placement import random_corners
from mtdcore.synthetic.volumes import chain

SIDE, WIDTH = 12, 240
PLAN = VolumePlan(SIDE, iterations=30, last_band=0.4, first_views=150, last_views=300, coarse_views=100)


def measured(noise, copies=40, seed=0):
    rng = np.random.default_rng(seed)
    made = noise.astype(np.float64)
    for picture in made:
        images = chain(SIDE).projections(so3.random_rotations(copies, rng), SIDE)
        corners = random_corners(rng, copies, (WIDTH - SIDE + 1, WIDTH - SIDE + 1), SIDE)
        for image, (row, column) in zip(images, corners, strict=False):
            picture[row : row + SIDE, column : column + SIDE] += image
    return made


def noise(seed=0, exponent=0.0):
    """Two pictures of noise with the amplitude f^-exponent, of the standard deviation that projections have at SNR 2."""
    rng = np.random.default_rng(seed)
    images = chain(SIDE).projections(so3.random_rotations(50, rng), SIDE)
    white = rng.standard_normal((2, WIDTH, WIDTH))
    f = np.hypot(np.fft.fftfreq(WIDTH)[:, None], np.fft.rfftfreq(WIDTH))
    shaped = np.fft.irfft2(np.fft.rfft2(white) * np.maximum(f, 0.02) ** -exponent, s=(WIDTH, WIDTH))
    return shaped / shaped.std() * np.sqrt(np.mean(images**2) / 2.0)


def shape(found):
    truth = low_passed(chain(SIDE).volume(SIDE) * ball(SIDE), PLAN.last_band)
    return shape_correlation(align_volumes(found.volume, truth).volume, truth)


def test_the_offset_is_found_and_nothing_depends_on_units():
    pixels = measured(noise())
    plain = recover_volume(pixels, box_size=SIDE, plan=PLAN)
    other = recover_volume((1000.0 + 30.0 * pixels).astype(np.float32), box_size=SIDE, plan=PLAN)
    assert other.evidence == pytest.approx(plain.evidence, rel=0.01)
    assert shape(other) == pytest.approx(shape(plain), abs=0.02)
    assert other.volume.sum() == pytest.approx(30.0 * plain.volume.sum(), rel=0.05)
    assert plain.likelihood.offset == pytest.approx(0.0, abs=0.05 * noise().std())
    assert other.likelihood.offset == pytest.approx(1000.0, abs=0.05 * 30.0 * noise().std())


def test_copies_in_white_noise_are_not_taken_for_its_colour():
    pixels = measured(noise(), copies=140)
    found = recover_volume(pixels, box_size=SIDE, plan=PLAN)
    white = recover_volume(pixels, box_size=SIDE, plan=PLAN, noise="white")
    assert suspected(mtd.open_measurement(pixels), white.noise_model, SIDE, PLAN.last_band, None) is not None
    np.testing.assert_array_equal(found.volume, white.volume)


def test_coloured_noise_is_filtered_and_the_volume_comes_back_without_the_filter():
    pixels = 50.0 + measured(0.6 * noise(exponent=1.0))
    white = recover_volume(pixels, box_size=SIDE, plan=PLAN, noise="white")
    found = recover_volume(pixels, box_size=SIDE, plan=PLAN)
    assert found.noise_model.whitening is not None
    assert shape(found) > 0.8
    assert shape(found) > shape(white) + 0.2
    assert found.found_copies
    assert found.likelihood.offset == pytest.approx(50.0, abs=0.2 * noise().std())
    assert found.expected_count == pytest.approx(80, rel=0.05)
    assert found.noise_std == pytest.approx(found.noise_model.noise_std, rel=0.3)
    truth = low_passed(chain(SIDE).volume(SIDE) * ball(SIDE), PLAN.last_band)
    assert np.linalg.norm(found.volume) == pytest.approx(np.linalg.norm(truth), rel=0.2)


def test_a_filtered_run_goes_on_with_the_same_bits(tmp_path):
    pixels, kept = measured(0.6 * noise(exponent=1.0)), {}

    def keep(state):
        if (state.filtered and state.iteration == 3) or (
            not state.filtered and state.iteration == PLAN.cooled
        ):
            save_volume_checkpoint(tmp_path / f"{state.filtered}.safetensors", state, {})
            kept[state.filtered] = state

    whole = recover_volume(pixels, box_size=SIDE, plan=PLAN, callback=keep)
    assert set(kept) == {False, True}
    for filtered in kept:
        state = load_volume_checkpoint(tmp_path / f"{filtered}.safetensors", {})
        again = recover_volume(pixels, box_size=SIDE, plan=PLAN, state=state)
        np.testing.assert_array_equal(again.volume, whole.volume)


def test_a_filter_and_its_undoing_are_inverse_within_the_band():
    source = mtd.open_measurement(noise(exponent=1.0))
    suspicion = suspected(
        source, first_noise_model(source, "auto", estimate_noise_std(source)), SIDE, 0.4, None
    )
    volume = low_passed(np.random.default_rng(0).standard_normal((SIDE,) * 3), 0.4)
    noise_model = suspicion.noise_model
    np.testing.assert_allclose(noise_model.unfiltered(noise_model.seen(volume, 0.4), 0.4), volume, atol=1e-6)
    behind = np.asarray(noise_model.through(source))[:, 30:-30, 30:-30]
    spectrum = quiet_spectrum([(one, np.ones(one.shape, bool)) for one in behind], SIDE, None, share=1.0)
    within = np.sqrt(spectrum[2:10])
    assert within.max() < 1.35 * within.min()
    assert np.median(within) == pytest.approx(noise_model.noise_std, rel=0.15)
    assert behind.std() == pytest.approx(noise_model.noise_std * np.sqrt(noise_model.share), rel=0.15)


def test_white_noise_is_not_suspected():
    for seed in range(5):
        source = mtd.open_measurement(noise(seed))
        assert (
            suspected(source, first_noise_model(source, "auto", estimate_noise_std(source)), SIDE, 0.4, None)
            is None
        )


def test_the_spectrum_is_that_of_all_micrographs_whatever_their_levels():
    """The quietest blocks were those of the quietest micrograph, and its level that of all."""
    levels = np.array([0.5, 2.0])
    white, pink = noise(), noise(exponent=1.0)
    for made, suspect in ((white, False), (pink, True)):
        source = mtd.open_measurement((made * levels[:, None, None]).astype(np.float32))
        level, told = first_levels(source, "auto", "each")
        alike = first_levels(mtd.open_measurement(made.astype(np.float32)), "auto", "each")[0]
        found = suspected(source, first_noise_model(source, "auto", level), SIDE, 0.4, None, told)
        assert (found is not None) == suspect
        if found is not None:
            one = mtd.open_measurement(made.astype(np.float32))
            plain = suspected(one, first_noise_model(one, "auto", alike), SIDE, 0.4, None)
            scale = np.sqrt(np.mean(levels**2))
            assert found.noise_model.noise_std == pytest.approx(scale * plain.noise_model.noise_std, rel=0.05)


def test_a_learned_prior_goes_with_white_noise_alone():
    source = mtd.open_measurement(noise(exponent=1.0))
    noise_model = suspected(
        source, first_noise_model(source, "auto", estimate_noise_std(source)), SIDE, 0.4, None
    ).noise_model
    assert isinstance(noise_model, NoiseModel)
    prior = GaussianPrior(np.zeros((SIDE,) * 3), 1.0)
    with pytest.raises(ParameterError, match="through a filter"):
        recover_volume(source, box_size=SIDE, plan=PLAN, prior=prior, noise=noise_model)
