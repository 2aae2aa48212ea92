"""Every backend against the written definition."""

import array_api_strict
import pytest

from mtdcore import get_backend
from mtdcore.errors import ParameterError
from mtdcore.estep.backends.array.backend import ArrayBackend
from mtdcore.testing import BackendConformance, Case, assert_same_bits


class TestCpuBackend(BackendConformance):
    def make_backend(self, precision):
        return get_backend("cpu", precision=precision, threads=1)


class TestArrayBackend(BackendConformance):
    def make_backend(self, precision):
        return get_backend("array", precision=precision)


class TestArrayBackendInSmallChunks(BackendConformance):
    """A template, and a patch, at a time: scores are computed twice."""

    def make_backend(self, precision):
        return ArrayBackend(precision=precision, max_memory=1)


class TestStrictArrays(BackendConformance):
    """The library that has nothing but the standard."""

    def make_backend(self, precision):
        return ArrayBackend(array_api_strict, precision)


class TestTorchOnTheCpu(BackendConformance):
    def make_backend(self, precision):
        pytest.importorskip("torch")
        return get_backend("torch", precision=precision)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("model", ["patch", "window"])
@pytest.mark.parametrize("box_size", [4, 9])
def test_threads_never_change_a_bit(model, box_size, threads):
    case = Case(model, box_size, rotations=4, masked=True)
    one, many = (
        case.accumulate(get_backend("cpu", threads=n), "float32", small_tiles=True) for n in (1, threads)
    )
    assert_same_bits(many, one)


def test_get_backend():
    backend = get_backend("cpu", precision="float64", threads=2)
    assert (backend.name, backend.precision, backend.threads) == ("cpu", "float64", 2)
    assert get_backend(backend) is backend
    assert get_backend("reference").name == "reference"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gpu"}, "backend must be"),
        ({"name": "cpu", "precision": "float16"}, "precision must be"),
        ({"name": "cpu", "threads": 0}, "threads must be"),
    ],
)
def test_clear_errors(arguments, message):
    with pytest.raises(ParameterError, match=message):
        get_backend(**arguments)
