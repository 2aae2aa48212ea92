"""Alignment of volumes, shape correlation, shell correlation, J."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtdcore.errors import ParameterError
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.grids import ball, filtered, moved, shell_mean, shifted
from mtdcore.model.volumes.projections import Projections
from mtdcore.results.volumes import (
    align_volumes,
    aspherical,
    cosine,
    fourier_shell_correlation,
    matched_to,
    mirror_volume,
    orientation_information,
    shape_correlation,
)
from mtdcore.synthetic.volumes import Gaussians, chain


@pytest.mark.parametrize("side", [15, 16])
def test_moving_is_what_turning_the_object_does(side):
    thing = chain(side)
    rotation = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    shift = np.array([1.0, -0.5, 0.7])
    wanted = Gaussians(thing.centres @ rotation.T + shift, thing.widths, thing.weights).volume(side)
    found = moved(thing.volume(side), rotation, shift)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    only = Gaussians(thing.centres + shift, thing.widths, thing.weights).volume(side)
    np.testing.assert_allclose(shifted(thing.volume(side), shift), only, atol=0.02 * only.max())
    mirrored = Gaussians(-thing.centres, thing.widths, thing.weights).volume(side)
    np.testing.assert_allclose(mirror_volume(thing.volume(side)), mirrored, atol=0.02 * mirrored.max())


@pytest.mark.parametrize(("side", "mirrored"), [(16, False), (17, True)])
def test_alignment_undoes_a_rotation_a_shift_and_the_hand(side, mirrored):
    thing = chain(side, seed=1)
    truth = thing.volume(side)
    rotation = so3.random_rotations(1, np.random.default_rng(0))[0]
    hand = -1.0 if mirrored else 1.0
    other = Gaussians(hand * thing.centres @ rotation.T + [0.8, -1.2, 0.4], thing.widths, thing.weights)
    found = align_volumes(2.5 * other.volume(side), truth)
    assert found.mirrored == mirrored
    assert found.correlation > 0.995
    assert shape_correlation(found.volume, truth) > 0.98
    # R turned the truth (or its mirror image), so the alignment turns it back.
    assert so3.angle_between(found.rotation, rotation.T) < 0.1


def test_the_wrong_hand_is_told_from_the_right_one():
    truth = chain(16, seed=2).volume(16)
    same = align_volumes(mirror_volume(truth), truth, hands="same")
    assert not same.mirrored
    assert shape_correlation(same.volume, truth) < 0.9


def test_shape_ignores_what_every_blob_shares():
    a, b = chain(16, seed=3).volume(16), chain(16, seed=4).volume(16)
    aligned = align_volumes(a, b)
    assert aligned.correlation > 0.75
    assert shape_correlation(aligned.volume, b) < aligned.correlation - 0.1
    assert shape_correlation(b, b) == pytest.approx(1.0)
    assert cosine(aspherical(b), b - aspherical(b)) == pytest.approx(0.0, abs=0.05)


def test_a_volume_of_steep_shells_is_matched_before_it_is_turned():
    """The map of denoised micrographs was scored .33 in a shell that it had at .87: interpolation had filled it from stronger shells."""
    side, rng = 16, np.random.default_rng(4)
    truth = Gaussians.of(rng.uniform(-4.0, 4.0, (12, 3)), 0.9).volume(side) * ball(side)
    rotation = so3.random_rotations(1, rng)[0]
    steep = filtered(moved(truth, rotation, order=5), 0.1 ** np.arange(15.0))
    matched = matched_to(steep, truth)
    power, wanted = (shell_mean(np.abs(np.fft.rfftn(v)) ** 2, side) for v in (matched, truth))
    np.testing.assert_allclose(power[:5], wanted[:5], rtol=1e-6)
    assert np.all(power[5:] < 1e-6 * wanted[0])  # rounding is not blown up
    aligned = align_volumes(matched, truth)
    before = fourier_shell_correlation(aligned.volume, truth).correlation[:4]
    after = fourier_shell_correlation(aligned.applied(steep), truth).correlation[:4]
    assert before.min() > 0.9
    assert after.min() < 0.6
    np.testing.assert_allclose(aligned.applied(matched), aligned.volume)


def test_shell_correlation_falls_with_noise():
    rng = np.random.default_rng(1)
    truth = chain(16).volume(16)
    noisy = [truth + truth.std() * rng.standard_normal(truth.shape) for _ in range(2)]
    curve = fourier_shell_correlation(*noisy)
    assert curve.correlation[0] > 0.8 > 0.3 > abs(curve.correlation[5:]).mean()
    assert len(curve.correlation) == 8
    np.testing.assert_allclose(fourier_shell_correlation(truth, 3 * truth).correlation, 1.0)
    sphere = np.exp(-sum(g**2 for g in np.ogrid[-8:8, -8:8, -8:8]) / 18)
    whole = fourier_shell_correlation(truth, sphere).correlation[0]
    rest = fourier_shell_correlation(truth, sphere, "aspherical").correlation[0]
    assert abs(rest) < 0.5 < whole


def test_orientation_information_is_a_variance_over_views():
    truth = chain(12).volume(12)
    sigma = 0.4
    images = Projections(12, so3.random_rotations(3000, np.random.default_rng(2))).apply(truth)
    wanted = ((images - images.mean(axis=0)) ** 2).sum(axis=(1, 2)).mean() / (2 * sigma**2)
    assert orientation_information(truth, sigma) == pytest.approx(wanted, rel=0.05)
    ball = np.exp(-sum(g**2 for g in np.ogrid[-6:6, -6:6, -6:6]) / 8)
    assert orientation_information(ball, sigma) < 0.01 * np.sum(ball**2)


def test_other_shapes_are_refused():
    with pytest.raises(ParameterError, match="cubes"):
        align_volumes(np.ones((4, 4, 4)), np.ones((5, 5, 5)))
    with pytest.raises(ParameterError, match="cubes"):
        fourier_shell_correlation(np.ones((4, 4, 5)), np.ones((4, 4, 5)))
