"""A damaged, foreign or unwritable cache of compiled kernels, processes that share one, and forks (row 20)."""

import importlib.util
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore._base.numerics import kernels as _kernel_cache
from mtdcore._base.numerics.kernels import SealedFiles

SOURCE = """
from mtdcore._base.numerics.kernels import kernel

@kernel()
def weighted(x, factor):
    return x * factor

@kernel()
def shifted(x, factor):
    return x + factor
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """The two kernels as a new process would see them, with their cache in a folder of the test's own."""
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)

    def load():
        spec = importlib.util.spec_from_file_location("kernels", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "kernels", module)
        spec.loader.exec_module(module)
        return module

    return load


def entries(folder):
    return sorted(folder.rglob("*.nbc"))


def run(module):
    """Values of both kernels, and how often machine code came from the cache."""
    values = module.weighted(3.0, 2.0), module.shifted(3.0, 2.0)
    hits = [sum(f.stats.cache_hits.values()) for f in (module.weighted, module.shifted)]
    return values, hits


def test_kernels_are_compiled_once_which_is_announced(fresh, tmp_path, caplog):
    _kernel_cache._announce.cache_clear()
    caplog.set_level(logging.INFO, "mtdcore")
    assert run(fresh()) == ((6.0, 5.0), [0, 0])
    assert len(entries(tmp_path)) == 2
    assert ["compiling" in message for message in caplog.messages] == [True]
    assert run(fresh()) == ((6.0, 5.0), [1, 1])
    assert len(caplog.messages) == 1


def test_a_damaged_cache_is_compiled_again_and_replaced(fresh, tmp_path):
    run(fresh())
    rng = np.random.default_rng(0)
    good = [path.read_bytes() for path in entries(tmp_path)]
    for damage in (
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        *[lambda content: flipped(content, rng)] * 3,
    ):
        for path, content in zip(entries(tmp_path), good, strict=True):
            path.write_bytes(damage(content))
        assert run(fresh()) == ((6.0, 5.0), [0, 0])
        assert run(fresh()) == ((6.0, 5.0), [1, 1])


def flipped(content, rng):
    place = int(rng.integers(len(content)))
    return content[:place] + bytes([content[place] ^ (1 << rng.integers(8))]) + content[place + 1 :]


def test_an_entry_under_the_name_of_another_is_not_run(fresh, tmp_path):
    """What two processes sharing Numba's own cache can end with."""
    run(fresh())
    one, two = entries(tmp_path)
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    assert run(fresh()) == ((6.0, 5.0), [0, 0])


def test_other_sources_and_an_unwritable_folder(fresh, tmp_path, monkeypatch):
    run(fresh())
    with monkeypatch.context() as patch:
        patch.setattr(_kernel_cache, "_sources", lambda folder: "newer")
        assert run(fresh()) == ((6.0, 5.0), [0, 0])

    def refuse(*_):
        raise mtd.errors.StorageError("No space left on device")

    with monkeypatch.context() as patch:
        for path in entries(tmp_path):
            path.unlink()
        patch.setattr(_kernel_cache, "write_whole", refuse)
        assert run(fresh()) == ((6.0, 5.0), [0, 0])
        patch.setattr(_kernel_cache, "FunctionCache", None)  # another Numba
        assert run(fresh()) == ((6.0, 5.0), [0, 0])


def test_keys_are_compared_in_full(tmp_path):
    class Key:
        """Equal by name only."""

        def __repr__(self):
            return "same"

    files = SealedFiles(tmp_path, "f", tmp_path)
    files.save("key", 1)
    assert files.load("key") == 1
    files.path("other").write_bytes(files.path("key").read_bytes())
    assert files.load("other") is None
    files.flush()
    assert files.load("key") is None


def test_two_processes_share_a_cache(fresh, tmp_path):
    code = "import sys, kernels; assert (kernels.weighted(3.0, 2.0), kernels.shifted(3.0, 2.0)) == (6.0, 5.0)"
    run(fresh())
    for path in entries(tmp_path):
        path.unlink()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert len(entries(tmp_path)) == 2
    assert run(fresh()) == ((6.0, 5.0), [1, 1])
    assert not list(tmp_path.rglob("*.part"))


FORK = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import mtdcore as mtd

target = np.random.default_rng(1).normal(size=(8, 8))
likelihood = mtd.WindowLikelihood(mtd.Rotations(2, 8), 1.0, 5.0)
def step(executor=None):
    found = mtd.e_step(sys.argv[1], target, likelihood, mtd.get_backend("cpu", threads=2), executor)
    return found.right.tobytes(), found.log_likelihood

if __name__ == "__main__":
    before = step()
    for method in sys.argv[2:]:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as workers:
            assert step(workers) == before, method
"""


@pytest.mark.parametrize("methods", [["fork"], ["forkserver"]], ids=str)
def test_worker_processes_after_kernels_ran(tmp_path, methods):
    """Numba, the reading thread and zarr's event loop have run in the parent; a forked child must not wait for them."""
    target = np.random.default_rng(1).normal(size=(8, 8))
    mtd.simulate(target, side=80, density=0.1, snr=1.0, rotations=1, seed=0, path=tmp_path / "m.zarr")
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    command = [sys.executable, str(script), str(tmp_path / "m.zarr"), *methods]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_our_own_workers_are_never_forked(monkeypatch):
    from mtdcore.estep.backends.cuda import workers as _cuda_workers

    asked = []
    monkeypatch.setattr(_cuda_workers, "describe_devices", lambda: [SimpleNamespace(index=0, usable=True)])
    monkeypatch.setattr(
        _cuda_workers,
        "ProcessPoolExecutor",
        lambda count, context, *_: asked.append(context.get_start_method()),
    )
    _cuda_workers.device_executor()
    assert asked == ["spawn"]
