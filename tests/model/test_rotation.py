"""Rotations: right angles exactly, any angle against an analytic image, adjoints."""

import math

import numpy as np
import pytest

from mtdcore import Rotations
from mtdcore.errors import ParameterError
from mtdcore.model.rotations import disc, rotate


def blob(side, angle=0.0):
    """An elongated Gaussian off the centre, sampled after a counter-clockwise turn (row 0 on top)."""
    offset = np.arange(side) - (side - 1) / 2
    x, y = np.meshgrid(offset, -offset)
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * x + s * y, -s * x + c * y
    return np.exp(-0.5 * (((u - side / 16) / (side / 14)) ** 2 + ((v + side / 20) / (side / 18)) ** 2))


@pytest.mark.parametrize("support", [None, "square", "disc"])
@pytest.mark.parametrize("box_size", [1, 4, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12, 48])
def test_adjoint(count, box_size, support):
    turned = Rotations(count, box_size, support)
    rng = np.random.default_rng(count)
    image, stack = rng.normal(size=(box_size, box_size)), rng.normal(size=(count, box_size, box_size))
    left, right = np.vdot(turned.apply(image), stack), np.vdot(image, turned.adjoint(stack))
    assert left == pytest.approx(right, abs=1e-12 * np.linalg.norm(image) * np.linalg.norm(stack))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("box_size", [5, 6])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_right_angles_are_permutations(count, box_size, dtype):
    image = np.random.default_rng(0).normal(size=(box_size, box_size)).astype(dtype)
    turned = Rotations(count, box_size)
    assert turned.exact
    copies = turned.apply(image)
    assert copies.dtype == image.dtype
    assert np.array_equal(copies, [np.rot90(image, 4 // count * k) for k in range(count)])
    assert np.allclose(turned.adjoint(copies), count * image, rtol=1e-6)


def test_right_angles_are_exact_among_others():
    image = np.random.default_rng(0).normal(size=(9, 9)) * disc(9)
    copies = Rotations(12, 9).apply(image)
    for quarter in range(4):
        # the other angles share the transform: equal up to its rounding
        assert np.allclose(copies[3 * quarter], np.rot90(image, quarter), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("side", "accuracy"), [(24, 2e-4), (31, 1e-6)])
@pytest.mark.parametrize("degrees", [3.0, 30.0, 45.0, 100.0, 211.0, 359.0])
def test_any_angle_equals_the_analytic_image(side, accuracy, degrees):
    found = rotate(blob(side), [math.radians(degrees)])[0]
    assert np.abs(found - blob(side, math.radians(degrees))).max() < accuracy


@pytest.mark.parametrize("degrees", [10.0, 45.0, 77.0])
def test_energy_is_kept(degrees):
    image = blob(32)
    found = rotate(image, [math.radians(degrees)])[0]
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(image), rel=1e-12)


def test_turning_on_adds_up():
    image = blob(32)
    eighth = Rotations(8, 32).apply(image)[1]
    assert np.allclose(rotate(eighth, [math.pi / 4])[0], np.rot90(image), atol=1e-6)


def test_float32_stays_float32():
    single, double = (Rotations(7, 16).apply(blob(16).astype(dtype)) for dtype in ("float32", "float64"))
    assert single.dtype == np.float32
    assert np.allclose(single, double, atol=1e-6)


def test_support():
    image = np.ones((6, 6))
    assert Rotations(4, 6).mask(image) is None
    assert Rotations(3, 6, "square").mask(image) is None
    assert np.array_equal(Rotations(3, 6).mask(image), disc(6))
    assert np.array_equal(Rotations(4, 6, "disc").apply(image)[1], disc(6))
    assert disc(6).sum() == 32  # all but the corner pixels
    assert disc(1).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Rotations(0, 5), "must be positive; got 0 rotations of a box of 5"),
        (lambda: Rotations(4, 0), "must be positive; got 4 rotations of a box of 0"),
        (lambda: Rotations(4, 5).apply(np.zeros((5, 6))), r"shape \(5, 5\) for 4 rotations; got \(5, 6\)"),
        (lambda: Rotations(4, 5).adjoint(np.zeros((3, 5, 5))), r"shape \(4, 5, 5\)"),
    ],
)
def test_clear_errors(act, message):
    with pytest.raises(ParameterError, match=message):
        act()


@pytest.mark.parametrize("count", [6, 8, 12, 20])
def test_sectors_agree_with_each_angle_alone(count):
    turned = Rotations(count, 32)
    image = blob(32)
    assert np.allclose(turned.apply(image), rotate(image * disc(32), turned.angles), atol=1e-5)
    quarter = np.rot90(turned.apply(image), 2, axes=(1, 2))
    assert np.array_equal(np.roll(turned.apply(image), -count // 2, axis=0), quarter)
