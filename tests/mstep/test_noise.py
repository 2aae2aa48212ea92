"""The noise spectrum: white stays white, what is there is found, copies are none of it, the gain is bounded."""

import numpy as np
import pytest

from mtdcore import Micrographs, PatchLikelihood, Rotations, WindowLikelihood, datasets, get_backend, simulate
from mtdcore.data import open_measurement
from mtdcore.estep.residual import residual_spectrum, spectrum_side
from mtdcore.model.filters.whitening import MOST
from mtdcore.mstep.noise import learned, shrunk

CPU = get_backend("cpu", threads=1)
SIDE, BOX, P = 200, 16, 64
FREQUENCY = np.hypot(np.fft.fftfreq(P)[:, None], np.fft.rfftfreq(P))


def white(seed, shape=(SIDE, SIDE)):
    return np.random.default_rng(seed).standard_normal(shape)


def blurred(noise, power):
    """White noise through the root of a power that depends on the length of the frequency."""
    shape = noise.shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return np.fft.irfft2(np.fft.rfft2(noise) * np.sqrt(power(frequency)), shape)


def coloured(frequency):
    return 0.3 + 2.0 * np.exp(-((frequency / 0.12) ** 2))


def residual(pixels, target=None, likelihood=None, mask=None):
    likelihood = likelihood or WindowLikelihood(Rotations(4, BOX), 1.0, 20.0)
    return residual_spectrum(open_measurement(pixels, mask), target, likelihood, CPU, P, copies=20.0)


@pytest.fixture(scope="module")
def copies():
    target = datasets.glyphs(1)[0][6:22, 6:22]
    return target, simulate(target, side=SIDE, density=0.2, snr=1.0, rotations=4, separation=1, seed=3)


def test_the_spectrum_of_known_noise_is_unbiased():
    found = np.mean([residual(blurred(white(s, (2, SIDE, SIDE)), coloured)).power for s in range(4)], axis=0)
    ratio = found[FREQUENCY > 0.03] / coloured(FREQUENCY)[FREQUENCY > 0.03]
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)
    low = FREQUENCY < 0.1
    assert found[low].mean() == pytest.approx(coloured(FREQUENCY)[low].mean(), rel=0.06)


@pytest.mark.parametrize("kind", [WindowLikelihood, PatchLikelihood])
def test_copies_are_no_noise(copies, kind):
    """What they add to the data is taken off, also where a mask cuts pieces short; without a target it stays."""
    target, made = copies
    views, sigma = Rotations(4, BOX), made.noise_std
    likelihood = (
        WindowLikelihood(views, sigma, 20.0) if kind is WindowLikelihood else PatchLikelihood(views, sigma)
    )
    mask = np.ones((SIDE, SIDE), bool)
    mask[:40, 60:90] = False
    low = FREQUENCY < 0.06
    known, unknown = (
        residual(made.measurement.array[0], t, likelihood, mask).power / sigma**2 for t in (target, None)
    )
    assert unknown[low].mean() > 3.0
    assert known[low].mean() == pytest.approx(1.0, abs=0.25)
    assert known.mean() == pytest.approx(1.0, abs=0.03)


def test_poses_in_doubt_are_accounted_for():
    """At an SNR where no copy can be placed the posterior mean explains little, and its variance makes up for it."""
    target = datasets.glyphs(1)[0][6:22, 6:22]
    made = simulate(target, side=400, density=0.2, snr=0.04, rotations=4, separation=1, seed=3)
    count = float(len(made.positions))
    likelihood = WindowLikelihood(Rotations(4, BOX), made.noise_std, count)
    found = residual(made.measurement.array[0], target, likelihood)
    assert found.power.mean() / made.noise_std**2 == pytest.approx(1.0, abs=0.02)
    assert found.power[FREQUENCY < 0.06].mean() / made.noise_std**2 == pytest.approx(1.0, abs=0.15)


def test_levels_of_micrographs_are_divided_out():
    pixels = np.array([0.5, 2.0])[:, None, None] * white(0, (2, SIDE, SIDE))
    optics = Micrographs(np.array([0.5, 2.0]))
    ratio = optics.noise_ratio
    likelihood = WindowLikelihood(Rotations(4, BOX), 1.0, 20.0, micrographs=optics)
    assert residual(pixels, None, likelihood).power.mean() == pytest.approx((2.0 / ratio[1]) ** 2, rel=0.03)


@pytest.mark.parametrize("side", [SIDE, 330])
def test_white_noise_stays_white(side):
    kept = [learned(residual(white(seed, (side, side))), BOX, "auto") is None for seed in range(50)]
    assert sum(kept) >= 48


def test_white_noise_may_be_given_a_spectrum_all_the_same():
    found = learned(residual(white(0)), BOX, "spectrum")
    assert not found.background
    assert found.amplitude == pytest.approx(1.0, abs=0.05)


def test_colour_is_found_where_it_is():
    found = learned(residual(blurred(white(1), coloured)), BOX, "auto")
    expected = np.sqrt(coloured(FREQUENCY))
    expected /= np.median(expected)
    middle = FREQUENCY > 0.03
    assert found.amplitude[middle] == pytest.approx(expected[middle], rel=0.15)
    assert not found.background


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_are_found_and_nothing_else(axis):
    stripes = 0.3 * white(7, (SIDE, 1)) * np.ones((1, SIDE))
    found = learned(residual(white(2) + (stripes if axis == 0 else stripes.T)), BOX, "auto")
    line, rest = found.amplitude[5 : P // 2, 0], found.amplitude[5 : P // 2, 5:]
    if axis:
        line, rest = found.amplitude[0, 5:], found.amplitude[5 : P // 2, 5:]
    # of a power of .09 a row, one piece wide; 2 / 3 of it are in the middle of the Hann window
    assert line.mean() == pytest.approx(np.sqrt(1 + 0.09 * P * 2 / 3), rel=0.15)
    assert rest == pytest.approx(1.0, abs=0.12)
    assert rest.mean() == pytest.approx(1.0, abs=0.02)
    assert not found.background


@pytest.mark.parametrize("copies", [False, True])
def test_a_slow_background_is_found_and_removed(copies):
    slope = 1.7 * np.linspace(-1.0, 1.0, SIDE)[None] * np.ones((SIDE, 1))
    found = learned(residual(white(3) + slope), BOX, "auto", copies=copies)
    assert found.background
    assert found.cutoff == pytest.approx(1 / (4 * BOX))
    assert f"beyond {4 * BOX} pixels" in found.sentence
    assert found.kernel.sum() == pytest.approx(0.0, abs=1e-9)
    across = found.kernel.sum(axis=0)
    assert across @ np.arange(len(across)) == pytest.approx(0.0, abs=1e-9)


def test_copies_that_are_unknown_are_not_taken_for_noise(copies):
    _, made = copies
    found = residual(made.measurement.array[0])
    assert learned(found, BOX, "auto", copies=True) is None
    assert learned(found, BOX, "auto") is not None


def test_the_gain_is_bounded():
    """Where an earlier filter left nothing, nothing is: the gain there is at most twenty times that of the typical amplitude."""
    found = learned(residual(blurred(white(4), lambda f: np.where(f < 0.25, 1.0, 1e-8))), BOX, "auto")
    typical = np.sqrt(np.mean(found.amplitude**2))
    assert typical / found.amplitude.min() == pytest.approx(MOST, rel=0.1)
    assert found.power.max() <= 1.25 * (MOST / typical) ** 2


def test_a_spectrum_is_followed_only_beyond_chance():
    rng = np.random.default_rng(0)
    power = rng.gamma(20.0, 1 / 20.0, (P, P))
    power = 0.5 * (power + np.roll(power[::-1, ::-1], (1, 1), (0, 1)))
    flat, is_white = shrunk(power, 20.0)
    assert is_white
    assert np.ptp(flat) == 0.0
    power[5, 9] = power[-5, -9] = 9.0
    peaked, is_white = shrunk(power, 20.0)
    assert not is_white
    assert np.argwhere(peaked > 2.0).tolist() == [[5, 9], [P - 5, P - 9]]


def test_pieces_need_room():
    assert spectrum_side((28, 28), (1, 308, 308)) == 112
    assert spectrum_side((28, 28), (4, 61, 90)) == 60
    assert spectrum_side((100, 100), (1, 4096, 4096)) == 256
    assert spectrum_side((28, 28), (1, 28, 300)) == 28
    assert spectrum_side((4, 4), (9, 12, 300)) is None
    assert residual(np.full((SIDE, SIDE), np.nan)) is None
