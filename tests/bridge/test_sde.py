import math

import numpy as np
import pytest
import torch

from mtdbridge.priors import sde
from mtdbridge.priors.parameterisation import VP_LEVELS

TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


def test_integrated_beta_is_the_integral_of_beta():
    beta = lambda t: 0.1 + 19.9 * t  # noqa: E731
    grid = np.linspace(0, 0.7, 100_001)
    assert sde.integrated_beta(torch.tensor(0.7, dtype=torch.float64)).item() == pytest.approx(
        np.trapezoid(beta(grid), grid), rel=1e-9
    )
    assert sde.integrated_beta(torch.tensor(1.0)).item() == pytest.approx(10.05)


def test_the_process_preserves_unit_variance():
    total = sde.signal_factor(TIMES) ** 2 + sde.noise_factor(TIMES) ** 2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-14, atol=0)


def test_level_is_the_noise_to_signal_ratio():
    torch.testing.assert_close(sde.level_at(TIMES), sde.noise_factor(TIMES) / sde.signal_factor(TIMES))


def test_time_and_level_are_inverses():
    torch.testing.assert_close(sde.time_at(sde.level_at(TIMES)), TIMES, rtol=1e-12, atol=1e-15)
    levels = torch.logspace(-6, 2, 50, dtype=torch.float64)
    torch.testing.assert_close(sde.level_at(sde.time_at(levels)), levels, rtol=1e-10, atol=0)


def test_time_follows_the_printed_formula_and_keeps_digits_in_float32():
    for level in (0.01, 0.3, 5.0):
        printed = (-0.1 + math.sqrt(0.01 + 39.8 * math.log1p(level**2))) / 19.9
        assert sde.time_at(torch.tensor(level, dtype=torch.float64)).item() == pytest.approx(
            printed, rel=1e-9
        )
    tiny = sde.time_at(torch.tensor(1e-3)).item()
    assert tiny == pytest.approx(sde.time_at(torch.tensor(1e-3, dtype=torch.float64)).item(), rel=1e-5)


def test_perturb_has_the_stated_mean_and_noise():
    clean, noise = torch.full((2, 3, 3), 2.0), torch.ones(2, 3, 3)
    time = torch.tensor([0.0, 0.5])
    noisy = sde.perturb(clean, time, noise)
    torch.testing.assert_close(noisy[0], clean[0])
    a = math.exp(-0.5 * (0.1 * 0.5 + 9.95 * 0.25))
    torch.testing.assert_close(noisy[1], torch.full((3, 3), 2 * a + math.sqrt(1 - a * a)))


def test_the_paper_evaluates_at_time_one_hundredth():
    assert VP_LEVELS[0] == pytest.approx(math.sqrt(math.exp(0.1 * 0.01 + 9.95 * 1e-4) - 1))
