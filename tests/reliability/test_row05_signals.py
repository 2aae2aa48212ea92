"""SIGTERM, SIGINT and SIGUSR1 at any moment of ``mtd recover`` (row 5)."""

import asyncio
import functools
import os
import random
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest

import mtdcore
import mtdcore.data.zarr.store
from mtdcli.run import job
from mtdcli.run.folder import RunFolder
from mtdcli.terminal import stopping
from mtdcore._base import outputs

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
QUICK = ("--box-size", 8, "--rotations", 1, "--tolerance", 0, "--device", "cpu")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.name != ".lock"}


@pytest.mark.slow
def test_sixty_signals_at_random_moments_change_no_bit(mtd, mtd_process, measurement, tmp_path, results):
    """Processes are signalled from their first millisecond to their last; then the same command goes on."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options, chance = (*QUICK, "--iterations", 300, "--threads", 1), random.Random(5)
    mtd("recover", measurement, "-o", whole, *options)
    started = time.monotonic()
    assert mtd_process("recover", measurement, "-o", tmp_path / "timed", *options).wait() == 0
    duration, moments, slowest = time.monotonic() - started, Counter(), 0.0
    while moments.total() - moments["finished"] < 60:
        before, sign = contents(run), SIGNALS[moments.total() % 3]
        process = mtd_process("recover", measurement, "-o", run, *options, "--resume")
        time.sleep(chance.uniform(0, duration))
        process.send_signal(sign)
        sent = time.monotonic()
        out, log = process.communicate(timeout=60)
        slowest = max(slowest, time.monotonic() - sent)
        moment = moment_of(process.returncode, sign, out, log, contents(run) == before)
        moments[moment] += 1
        assert not list(run.glob(".*.part"))
        if moment == "finished":
            assert results(run) == results(whole)
            RunFolder(run).clear()
    print(dict(moments), f"slowest {slowest:.2f} s")
    assert slowest < 30
    assert min(moments[name] for name in ("start-up", "preparing", "iterating", "writing")) > 0
    mtd("recover", measurement, "-o", run, *options, "--resume")
    assert results(run) == results(whole)


def moment_of(code, sign, out, log, unchanged):
    """What the process was doing when the signal came; asserts that it ended as it should."""
    if code in (0, -sign) and "report.html" in out:  # the interpreter ends: a signal is what it always was
        return "finished"
    if code == -sign:  # the interpreter starts
        assert unchanged
        assert "mtd: " not in log
        return "start-up"
    assert code == 128 + sign, log
    if "interrupted after iteration" not in log:
        assert unchanged
        assert "interrupted" in log
        return "preparing"
    assert "continue with: mtd recover" in log, log
    return "iterating" if "stopping after this step" in log else "writing"


@pytest.mark.parametrize("sign", SIGNALS)
def test_a_signal_ends_a_run_after_a_checkpoint(mtd_process, measurement, tmp_path, sign):
    process = mtd_process("recover", measurement, "-o", tmp_path / "run", *QUICK, "--iterations", 100_000)
    for line in process.stderr:
        if "recover: " in line:
            break
    process.send_signal(sign)
    sent = time.monotonic()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 128 + sign, log
    assert time.monotonic() - sent < 30
    assert "; continue with: mtd recover" in log
    assert set(contents(tmp_path / "run")) == {"checkpoint.safetensors"}


def test_a_signal_is_obeyed_within_a_long_iteration(monkeypatch, mtd, measurement, tmp_path, results):
    """The iteration is given up; the last one that was completed is in the checkpoint."""
    monkeypatch.setattr(stopping, "_PATIENCE", 0.2)
    engine = mtdcore.recover

    def slow(*args, callback, **kwargs):
        def after(state):
            callback(state)
            if state.iteration == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(30)  # the fourth iteration

        return engine(*args, callback=after, **kwargs)

    monkeypatch.setattr(mtdcore, "recover", slow)
    started = time.monotonic()
    options = (*QUICK, "--iterations", 10)
    stderr = mtd("recover", measurement, "-o", tmp_path / "run", *options, code=138).stderr
    assert time.monotonic() - started < 25
    assert "interrupted after iteration 3" in stderr
    monkeypatch.setattr(mtdcore, "recover", engine)
    log = mtd("recover", measurement, "-o", tmp_path / "run", *options, "--resume").stderr
    assert "going on after iteration 3" in log
    mtd("recover", measurement, "-o", tmp_path / "whole", *options)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.parametrize(
    ("where", "sign"),
    [*zip(["opening", "fingerprint", "history", "record", "copies", "report"], SIGNALS * 2, strict=True)],
)
def test_a_signal_is_obeyed_before_and_after_the_iterations(
    monkeypatch, mtd, measurement, tmp_path, results, where, sign
):
    module, name = {
        "opening": (mtdcore.data.zarr.measurement, "StoredArray"),
        "fingerprint": (job, "fingerprint"),
        "history": (RunFolder, "write_history"),
        "record": (RunFolder, "write_record"),
        "copies": (mtdcore.results.detections, "detect"),
        "report": (RunFolder, "read_image"),
    }[where]

    class Asked:
        """Stands in for a function; the signal comes when it is called or looked into."""

        def __call__(self, *_):
            os.kill(os.getpid(), sign)
            time.sleep(30)

        def __getattr__(self, name):
            return self

    options = (*QUICK, "--iterations", 3)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, Asked())
        log = mtd("recover", measurement, "-o", tmp_path / "run", *options, code=128 + sign).stderr
    early = where in ("opening", "fingerprint")
    assert ("interrupted; " if early else "interrupted after iteration 3; ") + "continue with" in log
    assert (contents(tmp_path / "run") == {}) == early
    mtd("recover", measurement, "-o", tmp_path / "run", *options, "--resume")
    mtd("recover", measurement, "-o", tmp_path / "whole", *options)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_forced_run_that_had_not_begun_leaves_the_old_one(mtd, monkeypatch, measurement, tmp_path):
    run, options = tmp_path / "run", (*QUICK, "--iterations", 2)
    mtd("recover", measurement, "-o", run, *options)
    before = contents(run)
    monkeypatch.setattr(job, "fingerprint", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(9))
    log = mtd("recover", measurement, "-o", run, *options, "--seed", 1, "--force", code=143).stderr
    assert log.endswith("--seed 1 --device cpu --force\n")
    assert contents(run) == before


def test_every_command_cleans_up_after_a_signal(mtd_process, tmp_path):
    """No hidden folder stays where a measurement was being written."""
    process = mtd_process("simulate", "glyph", "-o", tmp_path / "m.zarr", "--size", "20000x20000")
    while not list(tmp_path.glob(".m.zarr.*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "mtd: error: interrupted\n" in log  # zarr may complain about its pending task
    assert not list(tmp_path.iterdir())


def test_cleaning_up_survives_a_second_interruption(monkeypatch, tmp_path):
    """On a busy disk the folder is still going when the signal's alarm rings again."""
    remove, calls = outputs.shutil.rmtree, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) < 3:
            raise stopping.Interrupted(signal.SIGTERM, 0)
        remove(*args, **kwargs)

    monkeypatch.setattr(outputs.shutil, "rmtree", interrupted)
    with pytest.raises(stopping.Interrupted), outputs.making_folder(tmp_path / "m.zarr", False):
        raise stopping.Interrupted(signal.SIGTERM, 0)
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("window", ["made", "placed", "claimed"])
def test_a_signal_between_two_steps_leaves_no_folder(monkeypatch, tmp_path, window):
    """The handler runs when the system call returns: the folder was there, and the code that removes it not yet reached."""
    where, name = {
        "made": (outputs.Path, "mkdir"),
        "placed": (outputs.Path, "rename"),
        "claimed": (outputs, "_claim"),
    }[window]
    step = getattr(where, name)

    def interrupted(path, *args, **kwargs):
        step(path, *args, **kwargs)
        if ".partial" in path.name:
            raise stopping.Interrupted(signal.SIGTERM, 0)

    monkeypatch.setattr(where, name, interrupted)
    with pytest.raises(stopping.Interrupted), outputs.making_folder(tmp_path / "m.zarr", False):
        pass
    assert not list(tmp_path.iterdir())


def test_zarr_writes_nothing_after_its_caller_was_interrupted(monkeypatch, tmp_path):
    """Its thread goes on with the chunks that were asked for, and would make their folder anew."""
    begun, store = threading.Event(), mtdcore.data.zarr.store
    write = store.LocalStore.set

    async def slow(self, key, *rest):
        if key.startswith("c/"):
            begun.set()
            await asyncio.sleep(0.1)
        await write(self, key, *rest)

    monkeypatch.setattr(store.LocalStore, "set", slow)
    shape = (1, 16 * store.CHUNK[0], 16 * store.CHUNK[1])
    with pytest.raises(KeyboardInterrupt):
        interrupted(store.creating(tmp_path / "m.zarr", shape, np.dtype("uint8"), {}), begun)
    time.sleep(0.5)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def interruptible():
    """SIGINT interrupts: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ome", [False, True])
@pytest.mark.parametrize("step", ["get", "set"])
def test_zarr_makes_no_folder_anew_when_its_caller_was_interrupted_at_the_start(
    monkeypatch, tmp_path, step, ome, interruptible
):
    """The first metadata are on their way in the thread of zarr while the caller removes the folder."""
    store = mtdcore.data.zarr.store
    act, begun = getattr(store.LocalStore, step), threading.Event()

    async def slow(self, *request, **options):
        begun.set()
        await asyncio.sleep(0.2)
        return await act(self, *request, **options)

    monkeypatch.setattr(store.LocalStore, step, slow)
    shape = (1, *store.CHUNK)
    interrupt = functools.partial(signal.pthread_kill, threading.get_ident(), signal.SIGINT)
    threading.Thread(target=lambda: begun.wait(30) and interrupt()).start()
    with (
        pytest.raises(KeyboardInterrupt),
        store.creating(tmp_path / "m.zarr", shape, np.dtype("uint8"), {}, ome=ome),
    ):
        pytest.fail("the interruption came too late")
    assert begun.is_set()
    time.sleep(0.5)
    assert not list(tmp_path.iterdir())


def interrupted(creating, begun):
    with creating as (array, _):
        threading.Thread(target=array.__setitem__, args=(Ellipsis, 1)).start()
        assert begun.wait(30)
        raise KeyboardInterrupt


def test_a_signal_at_the_very_end_shows_no_traceback(mtd_process, measurement, tmp_path):
    """Packages tidy up when the interpreter ends; a second Ctrl-C ends that, too, without a word."""
    slow = "import atexit, time; atexit.register(lambda: (print('ending', flush=True), time.sleep(20)))"
    process = mtd_process(
        "recover", measurement, "-o", tmp_path / "run", *QUICK, "--iterations", 100_000, before=slow
    )
    for line in process.stderr:
        if "recover: " in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=15)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in log
