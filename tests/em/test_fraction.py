"""The fraction of a pixel that a prior chooses, from the noisy average and not from what it has denoised."""

import numpy as np
import pytest

import mtdcore as mtd
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
    seen = Seen.white(noisy(target, shift), LEVEL, prior)
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
            PriorGauge.of(prior, 1, BOX, between=between).choose(image, Seen.white(average, LEVEL, prior)),
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
