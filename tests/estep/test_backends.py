"""Every backend against the written definition."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise, product

import array_api_strict
import numpy as np
import pytest

from mtdcore import e_step, get_backend
from mtdcore.errors import DeviceError, ParameterError
from mtdcore.estep.backends.array.backend import ArrayBackend
from mtdcore.estep.backends.competition import log_norm
from mtdcore.estep.backends.cpu.backend import CpuBackend
from mtdcore.estep.dask import WorkerBackend
from mtdcore.testing import BackendConformance, Case, assert_same_bits, assert_same_statistics, covering


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


class TestWorkerBackend(BackendConformance):
    """A worker that is this process."""

    def make_backend(self, precision):
        with ThreadPoolExecutor(1) as worker:
            return WorkerBackend(worker, "cpu", precision)


@pytest.mark.parametrize("together", [1, 3])
def test_workers_sum_in_the_order_that_their_device_asks_for(together, monkeypatch):
    """A device that wants many tiles in one call, as CUDA does, gives the same bits behind an executor."""
    monkeypatch.setattr("mtdcore.estep.expectation.PART_TILES", 1)
    monkeypatch.setattr(CpuBackend, "tile_pixels", lambda self, likelihood: 0)
    monkeypatch.setattr(CpuBackend, "tiles_together", together)
    case = Case("window", 9, rotations=3)
    likelihood = case.likelihood(small_tiles=True)
    with ThreadPoolExecutor(1) as worker:
        remote = WorkerBackend(worker, "cpu")
        assert remote.tiles_together == together
        there = e_step(case.measurement(), case.target(), likelihood, remote, worker)
    here = e_step(case.measurement(), case.target(), likelihood, get_backend("cpu", threads=1))
    assert_same_bits(there, here)


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


@pytest.mark.parametrize("name", ["array", "torch", "torch:cpu"])
def test_array_backends_are_found_by_their_names(name):
    if name.startswith("torch"):
        pytest.importorskip("torch")
    backend = get_backend(name, precision="float64")
    assert (backend.name, backend.precision) == (name, "float64")
    travelled = pickle.loads(pickle.dumps(backend))
    assert (travelled.name, travelled.precision, travelled.xp) == (name, "float64", backend.xp)
    assert type(travelled.asarray([1.0])) is type(backend.asarray([1.0]))


def test_arrays_stay_on_their_device():
    torch = pytest.importorskip("torch")
    backend = ArrayBackend(torch, device="meta")  # a device that holds shapes and no numbers
    assert backend.name == "torch:meta"
    for array in (np.ones(2), torch.ones(2), torch.ones(2, device="meta")):
        assert backend.asarray(array).device.type == "meta"


def test_one_library_is_not_another():
    torch = pytest.importorskip("torch")
    case = Case("window", 4, 3)
    tile, likelihood = case.second_tile("float32")
    tensor = torch.from_numpy(case.templates())
    for name in ("cpu", "reference", "array"):
        with pytest.raises(ParameterError, match=r"got torch\.Tensor"):
            get_backend(name).accumulate([tile], tensor, likelihood)
        with pytest.raises(ParameterError, match=r"got torch\.Tensor"):
            e_step(case.measurement(), tensor[0], likelihood, name)
    with pytest.raises(ParameterError, match=r"array of array_api_compat\.torch .* got numpy\.ndarray"):
        get_backend("torch").accumulate([tile], case.templates(), likelihood)


def test_templates_in_parts_share_out_their_prior():
    """The parts of classes of unequal weights, in any number, by any number of threads."""
    case = Case("window overlapping", 9, 4, 1, class_weights=(0.6, 0.3, 0.1))
    tile, likelihood = case.second_tile("float64")
    templates, backend = case.templates(), get_backend("cpu", "float64", threads=1)
    whole = backend.log_odds(tile, templates, likelihood)
    for edges in ((0, 12), (0, 5, 12), (0, 1, 4, 11, 12)):
        parts = [slice(a, b) for a, b in pairwise(edges)]
        found = [backend.log_odds(tile, templates[p], likelihood, p) for p in parts]
        np.testing.assert_allclose(np.logaddexp.reduce(found), whole, rtol=0, atol=1e-10)
    norm, part = log_norm(whole, tile, likelihood), slice(3, 7)
    one, three = (
        get_backend("cpu", threads=n).project(tile, templates[part], likelihood, norm, part) for n in (1, 3)
    )
    assert_same_bits(three, one)


@pytest.mark.parametrize("model", ["patch", "window"])
def test_chunks_of_any_size(model):
    """Templates and patches that wait for their normaliser in memory, in twos and threes, or one at a time."""
    case = Case(model, 6, 4, 1, masked=True)
    whole, *others = (
        case.accumulate(ArrayBackend(precision="float64", max_memory=size))
        for size in (1 << 28, 60_000, 30_000, 1)
    )
    for other in others:
        assert_same_statistics(other, whole, 1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gpu"}, "backend must be"),
        ({"name": "array:numpy"}, "backend must be"),
        ({"name": "cpu", "precision": "float16"}, "precision must be"),
        ({"name": "array", "precision": "float16"}, "precision must be"),
        ({"name": "cpu", "threads": 0}, "threads must be"),
    ],
)
def test_clear_errors(arguments, message):
    with pytest.raises(ParameterError, match=message):
        get_backend(**arguments)


def test_clear_errors_of_array_backends():
    with pytest.raises(ParameterError, match="max_memory must be"):
        ArrayBackend(max_memory=0)
    torch = pytest.importorskip("torch")
    with pytest.raises(DeviceError, match="torch should have a device 'abacus'"):
        ArrayBackend(torch, device="abacus")


class TestCovering:
    factors = ((1, 2, 3), "abc", (False, True), "xy")

    def test_any_two_levels_meet(self):
        rows = covering(self.factors)
        assert len(rows) < 13
        for i, j in combinations(range(4), 2):
            met = {(row[i], row[j]) for row in rows}
            assert met == set(product(self.factors[i], self.factors[j]))

    def test_levels_that_must_not_meet_do_not(self):
        rows = covering(self.factors, lambda number, letter, *rest: (number, letter) != (2, "b"))
        assert not any(row[:2] == (2, "b") for row in rows)
        assert {row[:2] for row in rows} == set(product((1, 2, 3), "abc")) - {(2, "b")}

    def test_the_same_rows_every_time(self):
        assert covering(self.factors) == covering(self.factors)
