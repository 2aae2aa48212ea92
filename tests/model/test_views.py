"""Every kind of views passes the conformance class."""

import numpy as np
import pytest

from mtdcore import Classes, Mirrored, Projections, Rotations, Shifted
from mtdcore.errors import ParameterError
from mtdcore.model.filters.optics import Defocused
from mtdcore.model.filters.whitening import Whitened, Whitening
from mtdcore.testing import ViewsConformance

TRANSFER = np.array([1.0, 0.2, 0.7])


class TestRightAngles(ViewsConformance):
    def make_views(self):
        return Rotations(4, 6)


class TestAnyAngle(ViewsConformance):
    def make_views(self):
        return Rotations(6, 6)


class TestShifted(ViewsConformance):
    def make_views(self):
        return Shifted(Rotations(4, 6))


class TestShiftedByThirds(ViewsConformance):
    def make_views(self):
        return Shifted(Rotations(3, 5), steps=3)


class TestClasses(ViewsConformance):
    def make_views(self):
        return Classes(Rotations(4, 5), 3)


class TestDefocused(ViewsConformance):
    def make_views(self):
        return Defocused(Rotations(3, 6), TRANSFER)


class TestComposed(ViewsConformance):
    def make_views(self):
        return Classes(Defocused(Shifted(Rotations(2, 5)), TRANSFER), 2)


class TestMirrored(ViewsConformance):
    def make_views(self):
        return Mirrored(Rotations(4, 6))


class TestMirroredBetweenPixels(ViewsConformance):
    def make_views(self):
        return Classes(Defocused(Shifted(Mirrored(Rotations(3, 5))), TRANSFER), 2)


class TestAsymmetricUnit(ViewsConformance):
    def make_views(self):
        return Rotations(2, 6, symmetry=2)


class TestAsymmetricUnitOfAnyAngle(ViewsConformance):
    def make_views(self):
        return Mirrored(Rotations(4, 6, symmetry=3))


class TestProjections(ViewsConformance):
    rtol = 2e-3  # of gridding, in the normal operator; the adjoint is exact, see test_projections.py

    def make_views(self):
        return Projections(6, 40)

    def coverage(self, weights):
        return np.broadcast_to(weights.mean(axis=(1, 2), keepdims=True), weights.shape)

    def test_normal_is_solved(self, views):
        """Up to the damping, which keeps out what hardly any slice saw."""
        target = self.random(views.target_shape)
        normal = views.normal(np.ones((views.count, *views.box_shape)))
        right = normal(target)
        solved = normal.solve(right, np.zeros(views.target_shape))
        assert np.linalg.norm(normal(solved) - right) <= 0.02 * np.linalg.norm(right)


def test_a_shift_of_whole_steps_is_the_image_in_between():
    """A band-limited image at half a pixel is the mean of its neighbours' interpolation: compare with the phase itself."""
    grid = np.arange(16)
    wave = np.cos(2 * np.pi * 0.11 * grid) * np.exp(-((grid - 7.5) ** 2) / 8)
    moved = np.cos(2 * np.pi * 0.11 * (grid - 0.5)) * np.exp(-((grid - 8.0) ** 2) / 8)
    views = Shifted(Rotations(1, 16))
    image = np.outer(wave, wave)
    seen = dict(zip(map(tuple, views.offsets), views.apply(image), strict=True))
    np.testing.assert_array_equal(views.offsets[0], [0, 0])
    np.testing.assert_allclose(seen[0.0, 0.0], image, atol=1e-12)
    np.testing.assert_allclose(seen[0.5, 0.0], np.outer(moved, wave), atol=1e-3)
    np.testing.assert_allclose(seen[0.0, 0.5], np.outer(wave, moved), atol=1e-3)


def test_classes_hold_the_views_of_one_target():
    with pytest.raises(ParameterError, match="classes of classes"):
        Classes(Classes(Rotations(4, 5), 2), 2)
    with pytest.raises(ParameterError, match="positive number; got 0"):
        Classes(Rotations(4, 5), 0)


def test_a_part_has_no_step():
    with pytest.raises(ParameterError, match="without a step"):
        Classes(Rotations(4, 5), 2).apply(np.zeros((2, 5, 5)), slice(0, 8, 2))


def whitening():
    frequency = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.rfftfreq(16))
    amplitude = 1.0 + np.exp(-((frequency / 0.1) ** 2))
    amplitude[:, 0] *= 2.0  # stripes: not the same in all directions
    return Whitening(amplitude, 1 / 16)


class TestWhitened(ViewsConformance):
    def make_views(self):
        return Whitened(Rotations(4, 6), whitening())


class TestWhitenedClasses(ViewsConformance):
    def make_views(self):
        return whitening().seen_through(Classes(Rotations(3, 5), 2))


class TestWhitenedAndDefocused(ViewsConformance):
    def make_views(self):
        return Defocused(Whitened(Rotations(2, 5), whitening()), TRANSFER)


@pytest.mark.parametrize(
    "amplitude", [np.ones((5, 3)), np.ones((6, 3)), np.zeros((6, 4)), np.full((6, 4), np.nan), np.ones(6)]
)
def test_impossible_noise_is_refused(amplitude):
    with pytest.raises(ParameterError, match="amplitude spectrum of"):
        Whitening(amplitude)
