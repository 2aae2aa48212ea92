"""When float32 correlations give way to float64."""

import math

import numpy as np
import pytest

from mtdcore import Statistics, WindowLikelihood, get_backend
from mtdcore.data import ArrayMeasurement
from mtdcore.estep.backends.precision import needed_precision
from mtdcore.model.rotations import Rotations

EPS = float(np.finfo(np.float32).eps)


def tile(level, shape=(24, 16)):
    """A tile whose root mean square is ``level``."""
    pixels = np.full(shape, level, np.float32)
    likelihood = WindowLikelihood(Rotations(1, 5), 1.0, 1.0)
    (only,) = ArrayMeasurement(pixels[None]).tiles(likelihood.geometry)
    return only


@pytest.mark.parametrize("level", [0.0, 0.25, 4.0])
@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_the_switch_is_at_a_hundredth_of_a_nat(norm, level):
    """Rounding of a hit, ``||F||^2 / sigma^2``, and of five levels of the pixels, which a transform adds."""
    limit = math.sqrt(EPS * (norm + 5 * level) * norm / 0.01)
    assert needed_precision("float32", norm, limit * (1 + 1e-6), [tile(level)]) == "float32"
    assert needed_precision("float32", norm, limit * (1 - 1e-6), [tile(level)]) == "float64"
    assert needed_precision("float64", norm, 1e3 * limit, [tile(level)]) == "float64"


def test_rounding_of_exactly_the_limit_is_too_much():
    assert needed_precision("float32", 1.0, math.sqrt(EPS) / 0.1, [tile(0.0)]) == "float64"


def test_the_brightest_of_the_tiles_decides():
    limit = math.sqrt(EPS * (1.0 + 5 * 4.0) / 0.01)
    dim, bright = tile(0.1), tile(4.0)
    for tiles, needed in (([dim, bright], "float64"), ([bright, dim], "float64"), ([dim, dim], "float32")):
        assert needed_precision("float32", 1.0, 0.99 * limit, tiles) == needed


@pytest.mark.parametrize("name", ["cpu", "array"])
def test_backends_switch_where_it_says(name):
    """Either side of the limit, float32 is or is not what float64 gives, bit for bit."""
    pixels = np.random.default_rng(0).normal(size=(1, 40, 50)).astype(np.float32)
    target = np.random.default_rng(1).uniform(size=(9, 9))
    norm, level = float(np.linalg.norm(target)), float(np.sqrt(np.mean(pixels[:, ::8] ** 2)))
    limit = math.sqrt(EPS * (norm + 5 * level) * norm / 0.01)

    def found(precision, noise_std) -> Statistics:
        likelihood = WindowLikelihood(Rotations(1, 9), noise_std, 4.0).bind(pixels.shape)
        tiles = ArrayMeasurement(pixels).tiles(likelihood.geometry)
        return get_backend(name, precision, threads=1).accumulate(tiles, target[None], likelihood)

    for factor, same in ((1.001, False), (0.999, True)):
        single, double = (found(p, factor * limit) for p in ("float32", "float64"))
        assert np.array_equal(single.backprojection, double.backprojection) == same
