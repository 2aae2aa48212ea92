import numpy as np
import pytest

from mtdcore._base.numerics.fourier import radial_factors, radial_filter, radial_frequencies

RNG = np.random.default_rng(0)


def test_factors_are_linear_between_the_profile_and_constant_beyond_it():
    found = radial_factors((8, 8), np.array([0.0, 1.0, 3.0]), np.float64)
    expected = {0.0: 0.0, 0.125: 0.5, 0.25: 1.0, 0.375: 2.0, 0.5: 3.0}
    for column, frequency in enumerate(np.fft.rfftfreq(8)):
        assert found[0, column] == pytest.approx(expected[frequency])
    assert found[4, 4] == 3.0  # beyond the Nyquist frequency
    assert radial_frequencies((8, 8))[4, 4] > 0.7


def test_a_profile_per_image_is_the_profile_of_each():
    images, profiles = RNG.normal(size=(3, 5, 5)), RNG.normal(size=(3, 4))
    each = [radial_filter(image[None], profile)[0] for image, profile in zip(images, profiles, strict=True)]
    np.testing.assert_array_equal(radial_filter(images, profiles), each)


def test_the_filter_is_a_sum_over_frequencies_that_wraps_nothing_around():
    """Against the plain definition on a padded image."""
    image, profile = RNG.normal(size=(4, 4)), np.array([1.0, -0.5, 0.25])
    padded = np.zeros((8, 8))
    padded[:4, :4] = image
    spectrum = np.fft.fft2(padded)
    for i in range(8):
        for j in range(8):
            length = min(np.hypot(np.fft.fftfreq(8)[i], np.fft.fftfreq(8)[j]), 0.5)
            spectrum[i, j] *= np.interp(length, [0.0, 0.25, 0.5], profile)
    np.testing.assert_allclose(
        radial_filter(image[None], profile)[0], np.fft.ifft2(spectrum).real[:4, :4], atol=1e-12
    )
