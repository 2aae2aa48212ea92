"""Draws from a prior, and from its posterior given noisy images, by the steps of a diffusion."""

import numpy as np
import pytest

from mtdcore import GaussianPrior
from mtdcore.model.priors import denoise
from mtdcore.model.sampling import sample_from, sample_prior

PRIOR = GaussianPrior(2.0, 0.5)


def test_two_levels_give_the_posterior_mean_up_to_the_last_of_them():
    rng = np.random.default_rng(0)
    level, last = 1.0, 0.02 * PRIOR.spread
    noisy = 2.0 + rng.normal(size=(4, 32, 32))
    found = sample_from(PRIOR, noisy, level, steps=2, noise=rng)
    # noise of the last level is added, and denoised at that level again
    assert np.std(found - denoise(PRIOR, noisy, level)) == pytest.approx(last, rel=0.1)


@pytest.mark.parametrize("level", [0.1, 0.5, 3.0])
def test_corrected_draws_have_the_spread_of_the_posterior_with_half_the_levels(level):
    rng, exact = np.random.default_rng(0), level / np.sqrt(1 + (level / PRIOR.std) ** 2)
    noisy = np.full((40, 40, 40), 2.3)
    plain, corrected = (
        sample_from(PRIOR, noisy, level, steps=steps, noise=rng, corrected=steps == 32) for steps in (64, 32)
    )
    assert plain.std() < 0.975 * exact
    assert corrected.std() == pytest.approx(exact, rel=0.02)
    assert corrected.mean() == pytest.approx(denoise(PRIOR, noisy, level).mean(), abs=0.02 * exact)


def test_draws_from_a_gaussian_prior_have_its_mean_and_spread():
    found = sample_prior(PRIOR, 64, 8, seed=1, steps=300)  # few steps draw from a narrower one
    assert found.mean() == pytest.approx(2.0, abs=0.05)
    assert found.std() == pytest.approx(0.5, rel=0.05)


class Strengths:
    """A prior of images or volumes that are constant, of standard normal strength."""

    def score(self, images, noise_std):
        axes, size = tuple(range(1, images.ndim)), images[0].size
        mean = images.mean(axis=axes, keepdims=True) * size / (size + noise_std**2)
        return (mean - images) / noise_std**2


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_default_start_hides_what_varies_most(dimension):
    """The pixels of a volume are many: from the level that is enough for images, half of the strength would be drawn."""
    found = sample_prior(Strengths(), 250, 8, seed=1, steps=60, dimension=dimension)
    strengths = found.reshape(250, -1).mean(axis=1)
    assert strengths.std() == pytest.approx(1.0, abs=0.2)
