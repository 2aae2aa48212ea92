"""The place of a target in its box that a prior chooses, by what the copies show of each frame and not by what it has restored."""

from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.em.gauge.frames import centre_of_mass
from mtdcore.em.gauge.position import likeliest_fraction
from mtdcore.em.gauge.prior import PriorGauge
from mtdcore.em.gauge.seen import Seen
from mtdcore.em.plan.beginning import views_of
from mtdcore.em.plan.defaults import default_gauge
from mtdcore.model.priors import denoise
from mtdcore.model.shifts import translate
from mtdcore.mstep.updates import DenoisingUpdate
from mtdcore.synthetic.glyphs import glyphs

BOX, LEVEL = 20, 0.15


class Glyphs:
    """N(mean, C) of glyphs that are no targets."""

    centre = ((BOX - 1) / 2, (BOX - 1) / 2)

    def __init__(self):
        flat = glyphs(600, BOX, seed=1)[4:].reshape(-1, BOX * BOX).astype(float)
        self.mean = flat.mean(axis=0)
        variances, self.axes = np.linalg.eigh(np.cov(flat, rowvar=False))
        self.variances = np.maximum(variances, 0.0)

    def score(self, images, noise_std):
        left = (self.mean - np.reshape(images, (len(images), -1))) @ self.axes
        return ((left / (self.variances + noise_std**2)) @ self.axes.T).reshape(images.shape)


@pytest.fixture(scope="module")
def prior():
    return Glyphs()


@pytest.fixture(scope="module")
def target():
    return glyphs(4, BOX, seed=1)[2].astype(float)


def noisy(target, shift):
    noise = np.random.default_rng(5).normal(size=target.shape)
    return translate(target, shift) + LEVEL * noise


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.3), (-0.35, 0.45)])
def test_an_average_tells_its_fraction(prior, target, shift):
    seen = Seen.of_average(noisy(target, shift), LEVEL, prior)
    found = likeliest_fraction(seen.information, seen.restored, target)
    np.testing.assert_allclose(found, np.negative(shift), atol=0.2)


def test_the_gauge_moves_the_target_by_it(prior, target):
    """The error of an image that is off by a fraction falls; without, the gauge leaves it there."""
    off = (0.4, -0.3)
    average = np.pad(noisy(target, off), 4)
    average += LEVEL * (average == 0) * np.random.default_rng(6).normal(size=average.shape)
    image = denoise(prior, average[None, 4:-4, 4:-4], LEVEL)[0]
    before = mtd.relative_error(image, target, 1)
    errors = [
        mtd.relative_error(
            PriorGauge.of(prior, 1, BOX, between=between).choose(
                image, Seen.of_average(average, LEVEL, prior)
            ),
            target,
            1,
        )
        for between in (False, True)
    ]
    assert errors[0] == pytest.approx(before)
    assert errors[1] < 0.8 * before


def test_only_copies_between_pixels_ask_for_it(prior):
    chosen = [default_gauge(prior, DenoisingUpdate(), views_of(4, BOX, 1, subpixel=s)) for s in (False, True)]
    assert [gauge.between for gauge in chosen] == [False, True]


def behind_a_filter(image, prior, seed=8):
    """What the copies show of an image through a filter that stops slow frequencies, and their average, which these spoil."""
    wide, margin = BOX + 8, 4
    rng = np.random.default_rng(seed)
    rows = np.fft.fftfreq(wide)[:, None]
    gain = 1.0 - np.exp(-0.5 * (rows**2 + np.fft.fftfreq(wide) ** 2) / 0.06**2)

    def passed(frame):
        return np.fft.ifft2(gain * np.fft.fft2(frame)).real

    def normal(inside):
        return passed(passed(np.pad(inside, margin)))[margin:-margin, margin:-margin] / LEVEL**2

    data = passed(np.pad(image, margin)) + LEVEL * rng.normal(size=(wide, wide))
    information = passed(data) / LEVEL**2

    def restored(part, start):
        for _ in range(40):
            start = denoise(prior, (start + LEVEL**2 * (part - normal(start)))[None], LEVEL)[0]
        return start, float((start * (part - 0.5 * normal(start))).sum())

    average = np.fft.ifft2(np.fft.fft2(data) / np.maximum(gain, 0.02)).real
    return Seen(average, LEVEL, information, restored, white=False)


@pytest.mark.parametrize("off", [(0, 0), (1, -1), (-1, 0)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_behind_a_filter_the_pixel_and_the_turn_are_found(prior, target, off, turns):
    """The restored image sits where the prior has its images wherever it is: its centre of mass says nothing."""
    moved = np.rot90(np.roll(target, off, axis=(0, 1)), turns)
    seen = behind_a_filter(moved, prior)
    image, _ = seen.restored(seen.information[4:-4, 4:-4], moved)
    found = PriorGauge.of(prior, 4, BOX).choose(image, seen)
    if off == (0, 0) and turns == 0:
        assert np.array_equal(found, image)
    else:
        before, after = (np.linalg.norm(one - target) / np.linalg.norm(target) for one in (image, found))
        assert after < 0.3 < before


def test_the_centre_of_mass_gives_way_to_what_is_likelier(prior, target):
    """Half a pixel from where this image lies, by which the others would be moved."""
    seen = Seen.of_average(
        np.pad(target, 4) + 0.02 * np.random.default_rng(9).normal(size=(BOX + 8, BOX + 8)), 0.02, prior
    )
    image, _ = seen.restored(seen.information[4:-4, 4:-4], target)
    row, column = centre_of_mass(image)
    gauge = PriorGauge(prior, 4, (row + 0.6, column))
    assert np.array_equal(gauge.choose(image, seen), image)
    assert not np.array_equal(gauge.choose(image, replace(seen, restored=None)), image)


def test_patches_leave_the_place_to_the_centre_of_mass(prior, target):
    """What patches see of a target depends on where it lies in them."""
    made = mtd.simulate(target, side=5 * BOX, density=0.1, snr=2.0, rotations=1)
    told = {}

    class Asked:
        def choose(self, image, seen):
            told[kind] = seen.restored is not None
            return image

    for kind in ("window", "patch"):
        mtd.recover(
            made.measurement, box_size=BOX, rotations=1, prior=prior, likelihood=kind, initial=target, iterations=1, tolerance=1e9, gauge=Asked(),
            noise="white",
        )  # fmt: skip
    assert told == {"window": True, "patch": False}
