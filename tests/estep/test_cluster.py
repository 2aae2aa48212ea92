"""A real Dask cluster on this machine: same bits, also when workers are killed."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mtdcore import PatchLikelihood, WindowLikelihood, e_step, get_backend, recover, simulate
from mtdcore.errors import InputError, ParameterError, StorageError
from mtdcore.estep.backends.cpu.backend import CpuBackend
from mtdcore.estep.backends.library import FEW_TILES, HostArrays
from mtdcore.model.rotations import Rotations
from mtdcore.model.views import Classes
from mtdcore.testing import assert_same_bits

pytest.importorskip("distributed")
from mtdcore.estep.dask import WorkerBackend, connected, local_workers


@pytest.fixture(scope="module")
def workers():
    with local_workers(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """20 micrographs with copies of a square, one of them worse than the others."""
    target = np.zeros((6, 6))
    target[1:4, 2:5] = 1.0
    path = tmp_path_factory.mktemp("cluster") / "m.zarr"
    made = simulate(target, side=60, density=0.1, snr=1.0, micrographs=20, path=path)
    return path, made


def kill(executor, which=0):
    """The process of one worker dies without a word."""
    os.kill(list(executor.client.run(os.getpid).values())[which], signal.SIGKILL)


@pytest.fixture
def small_parts(monkeypatch):
    """A task a tile. (What workers are asked is what it is without a patch: tests tell :class:`WorkerBackend`.)"""
    monkeypatch.setattr("mtdcore.estep.expectation.PART_TILES", 1)
    monkeypatch.setattr(HostArrays, "tiles_together", 1)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "model",
    [
        WindowLikelihood(Rotations(4, 6), 0.7, 200.0),
        pytest.param(PatchLikelihood(Rotations(4, 6), 0.7, 0.5), marks=pytest.mark.slow),
    ],
)
def test_same_bits_as_without(workers, store, model, single):
    path, made = store
    remote = WorkerBackend(workers, "cpu")
    assert remote.tiles_together == FEW_TILES
    remote.tiles_together = 1
    there = e_step(str(path), made.target, model, remote, workers)
    assert_same_bits(there, e_step(str(path), made.target, model, single))


@pytest.mark.usefixtures("small_parts")
def test_micrographs_and_classes_travel(workers, store, single):
    from mtdcore import Micrographs

    path, made = store
    facts = Micrographs(np.linspace(1, 2, 20), transfer=np.linspace(0.5, 1, 60).reshape(20, 3))
    model = WindowLikelihood(
        Classes(Rotations(4, 6), 2), 0.7, 200.0, class_weights=(0.6, 0.4), micrographs=facts
    )
    targets = np.stack([made.target, made.target.T])
    remote = WorkerBackend(workers, "cpu")
    remote.tiles_together = 1
    there = e_step(str(path), targets, model, remote, workers)
    here = e_step(str(path), targets, model, single)
    assert_same_bits(there, here)
    np.testing.assert_array_equal(there.ledger, here.ledger)


class _Deadly(CpuBackend):
    """Kills its process at the first call that finds a certain file, and removes it."""

    def __init__(self, file):
        super().__init__(threads=1)
        self.file = file

    def accumulate(self, tiles, templates, likelihood):
        try:
            os.unlink(self.file)
        except FileNotFoundError:
            return super().accumulate(tiles, templates, likelihood)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("small_parts")
def test_a_worker_that_dies_at_work_is_replaced(workers, store, tmp_path, single):
    path, made = store
    model = WindowLikelihood(Rotations(4, 6), 0.7, 200.0)
    (tmp_path / "once").touch()
    there = e_step(str(path), made.target, model, _Deadly(tmp_path / "once"), workers)
    assert not (tmp_path / "once").exists()
    assert_same_bits(there, e_step(str(path), made.target, model, single))


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_a_worker_killed_in_every_iteration(workers, store, tmp_path, single):
    path, made = store
    options = {"box_size": 6, "noise_std": made.noise_std, "iterations": 10, "tolerance": 0.0}
    deaths = []

    def next_one(state):
        deaths.append(not (tmp_path / "once").exists())
        (tmp_path / "once").touch()

    next_one(None)
    deadly = _Deadly(tmp_path / "once")
    there = recover(str(path), backend=deadly, executor=workers, callback=next_one, **options)
    here = recover(str(path), backend=single, **options)
    assert deaths == [True] * 11
    np.testing.assert_array_equal(there.target, here.target)
    assert_same_bits(there.statistics, here.statistics)


def test_tasks_are_small(store):
    """A worker is sent where the pixels are, not the pixels."""
    path, _made = store
    from mtdcore import open_measurement

    part = open_measurement(path).split(5)[0]
    assert len(pickle.dumps(part)) < 2000
    assert len(pickle.dumps(WindowLikelihood(Rotations(4, 28), 0.7, 200.0))) < 2000


@pytest.mark.slow
def test_the_cut_is_that_of_the_workers(workers, single):
    wide = WindowLikelihood(Rotations(4, 96), 1.0, 9.0)
    remote = WorkerBackend(workers, "auto")
    assert remote.name == get_backend("auto").name
    if remote.name == "cpu":
        assert remote.tile_pixels(wide) == single.tile_pixels(wide) > 0
    again = pickle.loads(pickle.dumps(remote))
    assert again.opened().name == remote.name


@pytest.mark.slow
def test_errors_of_workers_arrive(workers, store, tmp_path):
    _path, made = store
    pixels = np.zeros((60, 60), np.float32)
    np.save(tmp_path / "m.npy", pixels)
    from mtdcore import open_measurement

    measurement = open_measurement(tmp_path / "m.npy")
    (tmp_path / "m.npy").unlink()
    model = replace(WindowLikelihood(Rotations(4, 6), 0.7, 200.0))
    with pytest.raises((StorageError, InputError), match=r"m\.npy"):
        e_step(measurement, made.target, model, WorkerBackend(workers, "cpu"), workers)


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setattr("mtdcore.estep.dask._PATIENCE", 0.5)
    with (
        pytest.raises(StorageError, match="a Dask scheduler should listen at"),
        connected("tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.slow
def test_a_scheduler_of_somebody_else(workers, store, single):
    path, made = store
    model = WindowLikelihood(Rotations(4, 6), 0.7, 200.0)
    with connected(workers.client.scheduler.address, workers.client.security) as executor:
        there = e_step(str(path), made.target, model, WorkerBackend(executor, "cpu"), executor)
    assert_same_bits(there, e_step(str(path), made.target, model, single))


STRANGER = """
import sys
from distributed import Client
try:
    print(Client(sys.argv[1], timeout=3, set_as_default=False).run(lambda: "ran"))
except (OSError, TypeError, RuntimeError, ValueError) as refused:
    print("refused", type(refused).__name__)
"""


@pytest.mark.parametrize("protocol", ["tls", "tcp"])
def test_a_stranger_on_this_machine_is_not_let_in(workers, protocol):
    """Whoever has not the certificate of this run, whatever protocol is tried."""
    address = workers.client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    address = address.replace("tls", protocol)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, address], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ran" not in done.stdout
    assert "refused" in done.stdout, done.stderr
    assert workers.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize("address", ["foo", "tcp://node", "node:8786", ""])
def test_what_is_no_address(address):
    with pytest.raises(ParameterError, match="tls://HOST:PORT"), connected(address):
        pass
