import pytest
import torch

from mtdbridge.priors import sde
from mtdbridge.training import losses


@pytest.fixture
def images():
    return torch.randn((6, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def network():
    torch.manual_seed(1)
    linear = torch.nn.Linear(6, 6, dtype=torch.float64)
    return lambda x: torch.tanh(linear(x.flatten(1))).view_as(x) + x**3


def loop_over_the_jacobian(network, images):
    """Equation (5), one image and one pixel at a time."""
    total = 0.0
    for image in images:
        jacobian = torch.autograd.functional.jacobian(lambda x: network(x[None])[0].flatten(), image)
        trace = torch.trace(jacobian.reshape(image.numel(), image.numel()))
        total += 0.5 * (network(image[None]) ** 2).sum() + trace
    return total / len(images)


def test_exact_trace_equals_the_jacobian_of_every_image(network, images):
    expected = loop_over_the_jacobian(network, images)
    torch.testing.assert_close(losses.implicit_score_matching(network, images), expected)


def test_hutchinson_is_unbiased(network, images):
    exact = losses.implicit_score_matching(network, images).item()
    generator = torch.Generator().manual_seed(2)
    draws = torch.tensor(
        [
            losses.implicit_score_matching(
                network, images, 2.0 * torch.randint(0, 2, images.shape, generator=generator).double() - 1
            ).item()
            for _ in range(400)
        ]
    )
    error = draws.std() / len(draws) ** 0.5
    assert error > 0
    assert abs(draws.mean().item() - exact) < 4 * error


def test_implicit_loss_is_least_at_the_true_score():
    """For N(0, 1) and s(x) = -c x the loss is d (c^2 / 2 - c), least at c = 1."""
    samples = torch.randn((20_000, 2, 2), generator=torch.Generator().manual_seed(3))
    values = {
        c: losses.implicit_score_matching(lambda x, c=c: -c * x, samples).item() for c in (0.5, 1.0, 1.5)
    }
    assert values[1.0] == pytest.approx(4 * (0.5 - 1), abs=0.05)
    assert values[1.0] < min(values[0.5], values[1.5])


def test_implicit_loss_reaches_the_parameters():
    linear = torch.nn.Linear(4, 4)
    losses.implicit_score_matching(lambda x: linear(x.flatten(1)).view_as(x), torch.randn(5, 2, 2)).backward()
    assert linear.weight.grad.abs().sum() > 0


def test_denoising_loss_is_equation_7(images):
    """Equation (7) as printed, with the gradient of log p(x_t | x_0) by autograd."""
    time = torch.linspace(0.1, 0.9, len(images), dtype=torch.float64)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    score = lambda x, t: torch.sin(x) * t[:, None, None]  # noqa: E731
    x_t = sde.perturb(images, time, noise).requires_grad_(True)
    signal, width = (f(time)[:, None, None] for f in (sde.signal_factor, sde.noise_factor))
    log_density = (-((x_t - signal * images) ** 2) / (2 * width**2)).sum()
    (target,) = torch.autograd.grad(log_density, x_t)
    expected = (width**2 * (score(x_t, time) - target) ** 2).mean()
    torch.testing.assert_close(losses.denoising_score_matching(score, images, time, noise), expected.detach())


def test_denoising_loss_is_finite_at_time_zero(images):
    time = torch.zeros(len(images), dtype=torch.float64)
    noise = torch.ones_like(images)
    assert losses.denoising_score_matching(lambda x, t: x, images, time, noise).item() == pytest.approx(1)


def test_edm_loss_is_one_per_pixel_for_the_preconditioned_zero_network():
    """With f = 0 the denoiser is the best linear one; its weighted error is 1 at every level."""
    generator = torch.Generator().manual_seed(5)
    images = 0.3 * torch.randn((4000, 3, 3), generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    for level in (0.05, 0.3, 2.0):
        levels = torch.full((len(images),), level)
        linear = lambda y, s: y * 0.09 / (0.09 + s[:, None, None] ** 2)  # noqa: E731
        loss = losses.preconditioned_denoising(linear, images, levels, noise, 0.3)
        assert loss.item() == pytest.approx(1, abs=0.05)
