import numpy as np
import pytest

from mtdcli.preprocess import gaussian_background, polynomial_background, prepare, scale
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


def test_the_scale_is_robust_to_outliers():
    image = 5 + 2 * RNG.normal(size=(200, 200))
    image[:10] = 1e6
    image[0, 0] = np.nan
    middle, std = scale(image)
    assert middle == pytest.approx(5, abs=0.2)
    assert std == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("image", [np.ones((4, 4)), np.full((4, 4), np.nan)])
def test_an_image_without_noise_is_refused(image):
    with pytest.raises(InputError, match="pixels"):
        scale(image)


PLAIN = {
    "invert": False,
    "background": "none",
    "background_width": None,
    "background_degree": 1,
    "normalise": False,
    "mask_beyond": None,
}


@pytest.mark.parametrize("background", ["gaussian", "polynomial"])
def test_prepared_micrographs_are_flat_with_unit_noise(background):
    noise = RNG.normal(size=(60, 80)).astype(np.float32)
    image = 100 + 20 * ROWS.astype(np.float32) + 3 * noise
    prepared, std = prepare(image, **{**PLAIN, "background": background, "normalise": True})
    assert prepared.dtype == np.float32
    assert std == pytest.approx(3, rel=0.1)
    assert abs(prepared[:20].mean() - prepared[-20:].mean()) < 0.3
    assert np.corrcoef(prepared.ravel(), noise.ravel())[0, 1] > 0.95


def test_options_do_what_they_say_and_no_more():
    image = RNG.normal(size=(30, 30))
    image[3, 4] = 50.0
    assert np.array_equal(prepare(image, **PLAIN)[0], image)
    assert np.array_equal(prepare(image, **{**PLAIN, "invert": True})[0], -image)
    masked = prepare(image, **{**PLAIN, "mask_beyond": 10.0})[0]
    assert np.argwhere(np.isnan(masked)).tolist() == [[3, 4]]
