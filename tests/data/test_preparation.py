from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtdcore.data.micrographs.listing import Micrograph
from mtdcore.data.preparation.background import (
    contrast_skewness,
    gaussian_background,
    polynomial_background,
    scale,
)
from mtdcore.data.preparation.ctf import Ctf
from mtdcore.data.preparation.fourier import bin_by
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.data.preparation.whitening import noise_spectrum
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


PLAIN = Preparation(
    "keep", "keep", "keep", invert=False, flip_phases=False, background="none", whiten=False, normalise=False
)


def plain(image, micrograph=None, **steps):
    """Nothing but the steps that are named."""
    return replace(PLAIN, **steps)(image, micrograph)


@pytest.mark.parametrize("background", ["gaussian", "polynomial"])
def test_prepared_micrographs_are_flat_with_unit_noise(background):
    noise = RNG.normal(size=(60, 80)).astype(np.float32)
    image = 100 + 20 * ROWS.astype(np.float32) + 3 * noise
    prepared = plain(image, background=background, normalise=True)
    assert prepared.pixels.dtype == np.float32
    assert prepared.scale == pytest.approx(3, rel=0.1)
    assert plain(image, background=background, normalise=False).scale == 1.0
    assert abs(prepared.pixels[:20].mean() - prepared.pixels[-20:].mean()) < 0.3
    assert np.corrcoef(prepared.pixels.ravel(), noise.ravel())[0, 1] > 0.95


def test_steps_do_what_they_say_and_no_more():
    image = RNG.normal(size=(30, 30)).astype(np.float32)
    image[3, 4] = 50.0
    before = image.copy()
    assert np.array_equal(plain(image).pixels, image)
    assert np.array_equal(plain(image, invert=True).pixels, -image)
    masked = plain(image, mask_beyond=10.0).pixels
    assert np.argwhere(np.isnan(masked)).tolist() == [[3, 4]]
    inside = np.isfinite(plain(image, mask_edge=5).pixels)
    assert inside.sum() == 20 * 20
    assert inside[5:-5, 5:-5].all()
    assert np.array_equal(image, before)
    assert np.array_equal(plain(image).transfer, np.ones_like(plain(image).transfer))


def test_borders_and_contaminants_are_masked_and_counted_unless_kept():
    image = RNG.normal(size=(240, 200)).astype(np.float32)
    rows, cols = np.mgrid[:240, :200]
    crystal = (rows - 80) ** 2 + (cols - 90) ** 2 < 15**2
    image += 9 * crystal
    image[:6] = image[6]
    kept = Preparation("keep", "keep", "keep")(image)
    assert np.isfinite(kept.pixels).all()
    assert (kept.borders, kept.contaminants) == (0, 0)
    found = Preparation()(image)
    masked = np.isnan(found.pixels)
    assert masked[:6].all()
    assert not masked[6:40].any()
    assert masked[crystal].all()
    assert found.borders == 6 / 240
    assert found.contaminants == pytest.approx(masked[6:].sum() / masked.size)
    assert found.contaminants < 0.06


@pytest.mark.parametrize(("side", "factor"), [(64, 2), (60, 3), (61, 4), (48, 5)])
def test_binning_keeps_coarse_waves_where_they_are_and_drops_fine_ones(side, factor):
    rows = np.arange(side)[:, None]
    used = side // factor * factor
    coarse = np.cos(2 * np.pi * 3 * rows / used + 0.4) * np.ones(side)
    fine = np.cos(2 * np.pi * (used // 2 - 1) * rows / used) * np.ones(side)
    binned = bin_by(coarse + fine + 7.0, factor)
    assert binned.shape == (side // factor,) * 2
    assert np.allclose(binned, 7.0 + coarse[:used:factor, :used:factor], atol=1e-10)


def test_a_binning_factor_beyond_the_image_is_named():
    with pytest.raises(
        InputError, match=r"binning factor should be from 1 to the size of the image.*got 1000"
    ):
        Preparation(bin=1000)(np.zeros((20, 30)))


def test_white_noise_stays_white_when_binned():
    binned = bin_by(RNG.normal(size=(512, 512)), 2)
    assert binned.std() == pytest.approx(0.5, rel=0.02)  # a quarter of the power in a quarter of the pixels
    assert np.ptp(noise_spectrum(binned)[8:]) < 0.1


def coloured(shape, at):
    """Noise whose amplitude falls as 1 / (1 + f / at), f in cycles per pixel."""
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return np.fft.irfft2(np.fft.rfft2(RNG.normal(size=shape)) / (1 + f / at), shape).astype(np.float32)


def test_the_noise_spectrum_is_the_one_that_was_simulated_in_spite_of_contaminants():
    image = 3 * coloured((700, 650), 0.1)
    f = np.linspace(0, 0.5, len(noise_spectrum(image)))
    assert np.allclose(noise_spectrum(image)[6:], (3 / (1 + f / 0.1))[6:], rtol=0.07)
    image[100:140, 200:260] += 500
    image[400:420, 300:310] = np.nan
    assert np.allclose(noise_spectrum(image)[6:], (3 / (1 + f / 0.1))[6:], rtol=0.1)


def test_whitening_makes_the_noise_white_and_keeps_the_filter():
    image = coloured((600, 500), 0.05)
    prepared = plain(image, whiten=True)
    assert np.allclose(noise_spectrum(prepared.pixels)[6:], 1.0, atol=0.06)
    f = np.linspace(0, 0.5, len(prepared.transfer))[6:]
    assert np.allclose(prepared.transfer[6:] / (1 + f / 0.05), prepared.scale, rtol=0.06)


CTF = Ctf(15000, 12000, 30)


def micrograph(shape, **more):
    return Micrograph("m", Path("m.mrc"), 0, shape, **{"pixel_size": 2.0, "ctf": CTF} | more)


def test_phase_flipping_leaves_the_magnitude_of_the_ctf_with_dark_particles():
    """A bright point behind a CTF is dark in the middle; after inversion and flipping its spectrum is |CTF|."""
    point = np.zeros((128, 160))
    point[64, 80] = 1.0
    grid = CTF.grid(point.shape, 2.0)
    seen = np.fft.irfft2(np.fft.rfft2(point) * grid, point.shape).astype(np.float32)
    found = plain(seen, micrograph(point.shape), invert=True, flip_phases=None)
    spectrum = np.fft.rfft2(np.roll(found.pixels, (-64, -80), (0, 1)))
    inner = np.ones(grid.shape, bool)
    inner[64] = inner[:, -1] = False  # at Nyquist a real image cannot tell a frequency from its opposite
    assert np.allclose(spectrum[inner], np.abs(grid[inner]), atol=1e-4)
    f = np.linspace(0, 0.25, len(found.transfer))  # 1/angstrom up to Nyquist
    assert np.allclose(found.transfer, np.abs(CTF.radial(f)))


def test_flipped_micrographs_are_not_flipped_again_but_modelled():
    image = RNG.normal(size=(64, 64)).astype(np.float32)
    found = plain(image, micrograph(image.shape, phase_flipped=True), flip_phases=True)
    assert np.allclose(found.pixels, image, atol=1e-5)
    assert found.transfer.min() < 0.1


def test_phase_flipping_needs_a_ctf():
    image = RNG.normal(size=(64, 64)).astype(np.float32)
    for known, missing in ({"ctf": None}, "CTF"), ({"pixel_size": None}, "pixel size"):
        with pytest.raises(InputError, match=f"the {missing} is unknown"):
            plain(image, micrograph(image.shape, **known), flip_phases=True)
        assert np.array_equal(plain(image, micrograph(image.shape, **known), flip_phases=None).pixels, image)


def test_invalid_pixels_survive_binning_and_flipping_as_a_mask():
    image = RNG.normal(size=(90, 80)).astype(np.float32)
    image[30:40, 20:30] = np.nan
    found = plain(image, micrograph(image.shape), flip_phases=True, bin=2).pixels
    expected = np.zeros((45, 40), bool)
    expected[15:20, 10:15] = True
    assert np.array_equal(np.isnan(found), expected)


def test_the_sign_of_the_contrast_is_not_that_of_the_edges():
    """What a background filter leaves along the edges is much stronger than a few faint particles, and dark."""
    rng = np.random.default_rng(3)
    image = rng.normal(size=(200, 220)).astype(np.float32)
    image[:15] -= 5.0
    image[:, -15:] -= 5.0
    nothing, error = contrast_skewness(image)
    assert abs(nothing) < 3 * error
    rows, columns = np.mgrid[:200, :220]
    for row, column in rng.integers(40, 160, size=(8, 2)):
        image += 2.0 * np.exp(-0.5 * ((rows - row) ** 2 + (columns - column) ** 2) / 5.0**2)
    assert contrast_skewness(image)[0] > 5 * error
    assert contrast_skewness(-image)[0] < -5 * error
    assert contrast_skewness(np.full((60, 60), np.nan, np.float32)) == (0.0, np.inf)
