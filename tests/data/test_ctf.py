import math

import numpy as np
import pytest

from mtdcore.data.preparation.ctf import Ctf, wavelength
from mtdcore.errors import InputError


@pytest.mark.parametrize(("kilovolt", "picometre"), [(100, 3.7014), (200, 2.5079), (300, 1.9687)])
def test_the_wavelength_is_that_of_the_tables(kilovolt, picometre):
    """Williams and Carter, Transmission Electron Microscopy, table 1.2: 3.701, 2.508 and 1.969 pm."""
    assert 100 * wavelength(kilovolt) == pytest.approx(picometre, abs=2e-4)


def test_zeros_without_aberration_lie_where_the_phase_is_a_multiple_of_pi():
    ctf = Ctf(10000, 10000, 0, 300, 0, 0)
    zeros = np.sqrt(np.arange(1, 8) / (wavelength(300) * 10000))
    assert np.allclose(ctf.radial(zeros), 0, atol=1e-9)
    assert np.allclose(np.abs(ctf.radial(np.sqrt((np.arange(7) + 0.5) / (wavelength(300) * 10000)))), 1)


def test_first_zero_with_aberration_and_amplitude_contrast():
    """pi L D s^2 - pi/2 Cs L^3 s^4 + asin(w) = pi, a quadratic in s^2."""
    wave, defocus, cs, w = wavelength(300), 12000.0, 2.7e7, 0.1
    a, b, c = -np.pi / 2 * cs * wave**3, np.pi * wave * defocus, math.asin(w) - np.pi
    first = math.sqrt((-b + math.sqrt(b * b - 4 * a * c)) / (2 * a))
    ctf = Ctf(defocus, defocus, 0, 300, 2.7, w)
    assert ctf.radial(np.array([first])) == pytest.approx(0, abs=1e-9)
    assert (ctf.radial(np.linspace(0, 0.99 * first, 50)) < 0).all()  # dark particles
    assert ctf.radial(np.array([0.0])) == pytest.approx(-w)


def test_a_phase_plate_of_90_degrees_turns_sine_into_cosine():
    f = np.linspace(0, 0.2, 100)
    plain, plate = (Ctf(8000, 8000, 0, 300, 2.7, 0, shift).radial(f) for shift in (0, 90))
    assert np.allclose(plain**2 + plate**2, 1)


def test_astigmatism_turns_with_its_angle_from_columns_to_rows():
    ctf = Ctf(20000, 10000, 90, 300, 2.7, 0.07)
    grid = ctf.grid((64, 64), 2.0)
    f = np.fft.rfftfreq(64, 2.0)
    assert np.allclose(
        grid[:32, 0], Ctf(20000, 20000, 0, 300, 2.7, 0.07).radial(f[:32])
    )  # along the row axis: U
    assert np.allclose(grid[0, :33], Ctf(10000, 10000, 0, 300, 2.7, 0.07).radial(f))
    tilted = Ctf(20000, 10000, 45, 300, 2.7, 0.07).grid((64, 64), 2.0)
    diagonal = np.arange(1, 32)
    assert np.allclose(
        tilted[diagonal, diagonal], Ctf(20000, 20000, 0, 300, 2.7, 0.07).radial(f[1:32] * math.sqrt(2))
    )
    assert np.allclose(
        tilted[-diagonal, diagonal], Ctf(10000, 10000, 0, 300, 2.7, 0.07).radial(f[1:32] * math.sqrt(2))
    )


def test_swapping_the_axes_of_astigmatism_is_turning_them():
    assert np.allclose(Ctf(20000, 10000, 20).grid((32, 40), 1.5), Ctf(10000, 20000, 110).grid((32, 40), 1.5))


@pytest.mark.parametrize("wrong", [{"voltage": 0}, {"amplitude_contrast": 1.0}, {"defocus_u": math.nan}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(InputError, match="CTF"):
        Ctf(**{"defocus_u": 1e4, "defocus_v": 1e4} | wrong)
