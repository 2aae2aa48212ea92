import numpy as np
import pytest
import torch

from mtdbridge.priors import sde
from mtdbridge.priors.parameterisation import check_parameterisation, denoise, smoothed_score
from mtdcore.errors import ParameterError
from mtdcore.model.priors import GaussianPrior

MEAN, STD = 0.4, 0.7


def expand(value):
    return value[:, None, None]


def vp_score(x, time):
    """Exact score of the VP process for N(MEAN, STD^2)."""
    a, width = expand(sde.signal_factor(time)), expand(sde.noise_factor(time))
    return (a * MEAN - x) / (a**2 * STD**2 + width**2)


NETWORKS = {
    "vp-score": vp_score,
    "epsilon": lambda x, t: -expand(sde.noise_factor(t)) * vp_score(x, t),
    "denoiser": lambda y, s: (y * STD**2 + MEAN * expand(s) ** 2) / (STD**2 + expand(s) ** 2),
}


@pytest.fixture
def images():
    return torch.randn((3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", [0.05, 0.3, 2.0])
def test_every_parameterisation_gives_the_exact_score_of_a_gaussian(name, level, images):
    found = smoothed_score(NETWORKS[name], name, images, level, (0.02, 5.0))
    expected = GaussianPrior(MEAN, STD).score(images.numpy(), level)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_plain_score_is_passed_through_at_level_zero_only(images):
    network = lambda x: -x  # noqa: E731
    assert torch.equal(smoothed_score(network, "score", images, 0.0, (0.0, 0.0)), -images)
    with pytest.raises(ParameterError, match="level 0 only"):
        smoothed_score(network, "score", images, 0.1, (0.0, 0.0))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1, 1.0, 50.0])
def test_the_network_is_never_asked_outside_its_levels(name, level, images):
    asked = []

    def network(x, condition):
        asked.append(condition if name == "denoiser" else sde.level_at(condition))
        return NETWORKS[name](x, condition)

    low, high = 0.1, 1.0
    found = smoothed_score(network, name, images, level, (low, high))
    assert torch.isfinite(found).all()
    assert len(asked) == 1
    assert low - 1e-9 <= asked[0].min()
    assert asked[0].max() <= high + 1e-9


def test_denoising_continues_above_the_levels(images):
    """Continuous at the highest level, and the prior's mean, nearly, far above it."""
    network, levels = NETWORKS["denoiser"], (0.1, 2.0)
    at, above = (denoise(network, "denoiser", images, s, levels) for s in (2.0, 2.0 * (1 + 1e-9)))
    torch.testing.assert_close(at, above)
    far = denoise(network, "denoiser", 100 * images, 100.0, levels)
    assert (far - MEAN).abs().max() < 0.15


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("scores", (0.1, 1)),
        ("score", (0.1, 1)),
        ("denoiser", (0, 1)),
        ("denoiser", (2, 1)),
        ("epsilon", (0.1, float("nan"))),
    ],
)
def test_nonsense_is_refused(name, levels):
    with pytest.raises(ParameterError):
        check_parameterisation(name, levels)
