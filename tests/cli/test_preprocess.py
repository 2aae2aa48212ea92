import numpy as np
import pytest

from mtdcli.preprocess import gaussian_background, normalise, polynomial_background
from mtdcore.errors import InputError

RNG = np.random.default_rng(0)
ROWS, COLS = np.mgrid[-1:1:60j, -1:1:80j]


def test_a_polynomial_is_removed_exactly_and_ignores_what_is_not_finite():
    surface = 3 + 2 * ROWS - COLS + 0.5 * ROWS * COLS + COLS**2
    image = surface.copy()
    image[5:10, 7:20] = np.nan
    assert np.allclose(polynomial_background(image, 2), surface, atol=1e-10)
    assert not np.allclose(polynomial_background(image, 1), surface, atol=1e-2)


def test_the_fit_of_a_large_image_uses_every_region():
    rows = np.linspace(-1, 1, 700)[:, None] * np.ones((1, 600))
    assert np.allclose(polynomial_background(rows.astype(np.float32), 1), rows, atol=1e-5)


def test_a_gaussian_background_is_the_local_mean_of_the_finite_pixels():
    image = np.full((60, 80), 7.0)
    image[20:24, 30:34] = np.nan
    assert np.allclose(gaussian_background(image, 5.0), 7.0)
    slow = gaussian_background(np.sin(3 * ROWS) + RNG.normal(size=ROWS.shape), 6.0)
    assert np.corrcoef(slow.ravel(), np.sin(3 * ROWS).ravel())[0, 1] > 0.95


def test_normalise_is_robust_to_outliers():
    image = 5 + 2 * RNG.normal(size=(200, 200))
    image[:10] = 1e6
    image[0, 0] = np.nan
    scaled, middle, std = normalise(image)
    assert middle == pytest.approx(5, abs=0.2)
    assert std == pytest.approx(2, rel=0.1)
    assert np.allclose(scaled[10:] * std + middle, image[10:])


@pytest.mark.parametrize("image", [np.ones((4, 4)), np.full((4, 4), np.nan)])
def test_an_image_without_noise_is_refused(image):
    with pytest.raises(InputError, match="pixels"):
        normalise(image)
