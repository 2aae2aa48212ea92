"""The M-step side of the engine runs on any array-API library: here the strictest one there is, and one like CuPy."""

import sys
from pathlib import Path

import array_api_strict as strict
import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    ExactUpdate,
    FlatPrior,
    GaussianPrior,
    GradientAscent,
    Rotations,
    Statistics,
    get_backend,
)
from mtdcore.estep.sums import TemplateSums
from mtdcore.model.priors import denoise
from mtdcore.model.rotations import rotate
from mtdcore.testing import Case, assert_same_bits

sys.path.insert(0, str(Path(__file__).parent))
import cupy_like

ROTATIONS = pytest.mark.parametrize("rotations", [1, 3, 4])


@pytest.fixture(autouse=True, params=[strict, cupy_like], ids=["strict", "like CuPy"])
def library(request, monkeypatch):
    """The library of every test here."""
    monkeypatch.setattr(sys.modules[__name__], "xp", request.param)


xp = strict


def there(array):
    return xp.asarray(array)


def equal(found, expected):
    """``found`` stayed in its library and equals the NumPy result."""
    assert isinstance(found, type(xp.asarray(0.0)))
    found = found.get() if xp is cupy_like else np.asarray(found)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def both(rotations, margin=0):
    """Statistics as NumPy arrays and as arrays of the other library, and a target."""
    case = Case("patch tied", 6, rotations, margin)
    sums = case.accumulate(get_backend("cpu", precision="float64", threads=1))
    return Statistics.of(sums, case.views), Statistics.of(sums.moved(there), case.views), case.target()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@ROTATIONS
def test_rotations(rotations, dtype):
    rng = np.random.default_rng(0)
    turned = Rotations(rotations, 6)
    image, stack = rng.normal(size=(6, 6)).astype(dtype), rng.normal(size=(rotations, 6, 6)).astype(dtype)
    equal(turned.apply(there(image)), turned.apply(image))
    equal(turned.adjoint(there(stack)), turned.adjoint(stack))
    equal(rotate(there(image), [0.3, 2.0]), rotate(image, [0.3, 2.0]))


@ROTATIONS
def test_statistics(rotations):
    host, other, target = both(rotations, margin=2)
    equal((other + other).right, (host + host).right)
    equal(other.framed().right, host.framed().right)
    equal(other.normal(there(target)), host.normal(target))
    equal(other.gradient(there(target)), host.gradient(target))
    assert other.normal.bound == pytest.approx(host.normal.bound, rel=1e-14)
    assert other.residual_energy(there(target)) == pytest.approx(host.residual_energy(target), rel=1e-12)
    case = Case("patch tied", 6, rotations, 2)
    zeros = Statistics.of(TemplateSums.zeros(rotations, case.likelihood(), xp), case.views)
    equal((zeros + other).right, host.right)


@pytest.mark.parametrize("prior", [FlatPrior(), GaussianPrior(0.5), GaussianPrior(np.eye(6), 0.7)])
@pytest.mark.parametrize("update", [GradientAscent(1e-3, steps=2), ExactUpdate(), DenoisingUpdate(steps=2)])
@ROTATIONS
def test_updates(rotations, update, prior):
    host, other, target = both(rotations)
    equal(update(there(target), other, prior, 0, 1), update(target, host, prior, 0, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("prior", [FlatPrior(), GaussianPrior(np.eye(6), 0.7)])
def test_priors(prior, dtype):
    images = np.random.default_rng(0).normal(size=(2, 6, 6)).astype(dtype)
    equal(prior.score(there(images), 0.4), prior.score(images, 0.4))
    equal(denoise(prior, there(images), 0.4), denoise(prior, images, 0.4))


def test_saved_statistics_are_host_arrays(tmp_path):
    host, other, _ = both(4)
    other.save(tmp_path / "statistics.safetensors")
    loaded = Statistics.load(tmp_path / "statistics.safetensors")
    assert_same_bits(loaded, host)
