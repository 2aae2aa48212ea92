"""Draws by the Lanczos process, against the square root of a matrix."""

import numpy as np
import pytest

from mtdcore._base.numerics.gaussian_draws import gaussian_draw

N = 30


@pytest.fixture
def precision():
    """A precision of condition 1000, and a root that is near its own."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((N, N)))[0]
    values = np.geomspace(1.0, 1000.0, N)
    root = (basis / np.sqrt(values * rng.uniform(0.7, 1.4, N))) @ basis.T
    turned = np.linalg.qr(np.eye(N) + 0.01 * rng.standard_normal((N, N)))[0]
    return (basis * values) @ basis.T, turned @ root @ turned.T


def apply(matrix):
    return lambda x: (matrix @ x.ravel()).reshape(x.shape)


def test_a_draw_is_the_root_of_the_preconditioned_covariance_times_white_noise(precision):
    a, g = precision
    white = np.random.default_rng(1).standard_normal((5, 6))
    values, vectors = np.linalg.eigh(g @ a @ g)
    wanted = g @ ((vectors / np.sqrt(values)) @ (vectors.T @ white.ravel()))
    found = gaussian_draw(apply(a), apply(g), white, max_steps=N, tolerance=0.0)
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-6, atol=1e-8)
    early = gaussian_draw(apply(a), apply(g), white, tolerance=1e-3)
    np.testing.assert_allclose(early.ravel(), wanted, atol=0.02 * np.abs(wanted).max())


def test_its_covariance_is_the_inverse_of_the_precision(precision):
    a, g = precision
    columns = [gaussian_draw(apply(a), apply(g), one, N, 0.0) for one in np.eye(N)]
    np.testing.assert_allclose(np.transpose(columns) @ columns, np.linalg.inv(a), atol=1e-7)


def test_a_good_root_needs_few_steps(precision):
    a, g = precision
    asked = []

    def counted(x):
        asked.append(1)
        return apply(a)(x)

    gaussian_draw(counted, apply(g), np.random.default_rng(2).standard_normal(N))
    assert len(asked) < N // 2
