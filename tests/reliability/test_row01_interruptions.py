"""Killed, interrupted and competing runs of ``mtd recover`` (rows 1, 5, 6, 7)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mtdcore
from mtdcli import job, stopping

KILLING = Path(__file__).with_name("killing.py")
QUICK = ("--box-size", 8, "--rotations", 1, "--tolerance", 0, "--device", "cpu")


def killed_runs(measurement, folder, runs):
    command = [sys.executable, str(KILLING), str(measurement), str(folder), str(runs), "5", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()][1:]


@pytest.mark.slow
@pytest.mark.parametrize("runs", [50])
def test_kills_at_random_moments_change_no_bit(measurement, tmp_path, runs):
    for run in killed_runs(measurement, tmp_path, runs):
        assert run["same"]
        assert run["kills"] >= 5
        assert run["lost"] <= 1  # iterations; --checkpoint-every 0


def test_a_kill_changes_no_bit(mtd, mtd_process, measurement, tmp_path, results):
    """One run, one kill: the short form of the test above."""
    options = (*QUICK, "--iterations", 60, "--checkpoint-every", 0)
    process = mtd_process("recover", measurement, "-o", tmp_path / "run", *options)
    wait_for(tmp_path / "run" / "checkpoint.previous.safetensors", process)
    process.kill()
    process.communicate()
    (tmp_path / "run" / ".estimate.npy.1.part").write_bytes(b"left by the one that was killed")
    log = mtd("recover", measurement, "-o", tmp_path / "run", *options, "--resume").stderr
    assert "going on after iteration" in log
    mtd("recover", measurement, "-o", tmp_path / "whole", *options)
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert not list((tmp_path / "run").glob(".*.part"))


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_a_run_after_a_checkpoint(mtd, mtd_process, measurement, tmp_path, sign):
    options = (*QUICK, "--iterations", 100_000)
    process = mtd_process("recover", measurement, "-o", tmp_path / "run", *options)
    wait_for(tmp_path / "run" / ".lock", process)
    sent = time.monotonic()
    while process.poll() is None:  # before it listens a signal is what it always was, which loses nothing
        if "recover: " in process.stderr.readline():
            process.send_signal(sign)
            break
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + sign, stderr
    assert time.monotonic() - sent < 30
    done = re.search(r"interrupted after iteration (\d+); continue with: mtd recover", stderr)
    if int(done[1]):
        assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run" / "run.json").exists()


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


def test_of_two_runs_on_one_folder_the_second_is_refused_at_once(mtd, mtd_process, measurement, tmp_path):
    process = mtd_process("recover", measurement, "-o", tmp_path / "run", *QUICK, "--iterations", 100_000)
    wait_for(tmp_path / "run" / ".lock", process)
    while not (tmp_path / "run" / ".lock").read_text():
        time.sleep(0.005)
    started = time.monotonic()
    error = mtd("recover", measurement, "-o", tmp_path / "run", *QUICK, code=75).stderr
    assert time.monotonic() - started < 1
    assert f"process {process.pid} on {os.uname().nodename}" in error
    process.kill()
    process.communicate()
    mtd("recover", measurement, "-o", tmp_path / "run", *QUICK, "--iterations", 1, "--force")


CHANGES = {
    "box_size": ("--box-size", 9),
    "seed": ("--seed", 5),
    "rotations": ("--rotations", 2),
    "likelihood": ("--likelihood", "patch"),
    "noise_std": ("--noise-std", 0.5),
    "iterations": ("--iterations", 4),
    "defects": ("--defects", "keep"),
}


def test_what_a_resumed_run_may_not_change(mtd, measurement, tmp_path, monkeypatch):
    run = ("recover", measurement, "-o", tmp_path / "run", *QUICK, "--iterations", 2)
    mtd(*run)
    before = (tmp_path / "run" / "estimate.npy").read_bytes()
    for name, option in CHANGES.items():
        error = mtd(*run, *option, "--resume", code=74).stderr
        assert f"{name} was" in error
        assert f"is {option[1]}" in error
    error = mtd(*run, "--seed", 5, "--noise-std", 0.5, "--resume", code=74).stderr
    assert "seed was 0, is 5" in error
    assert "noise_std was auto, is 0.5" in error
    np.save(tmp_path / "start.npy", np.ones((8, 8)))
    assert "initial was" in mtd(*run, "--initial", tmp_path / "start.npy", "--resume", code=74).stderr
    with monkeypatch.context() as patch:
        patch.setattr(mtdcore, "__version__", "9.9")
        assert "version was" in mtd(*run, "--resume", code=74).stderr
    mtd("simulate", "glyph", "-o", measurement, "--box-size", 8, "--size", "70x80", "--seed", 2, "--force")
    assert "measurement was" in mtd(*run, "--resume", code=74).stderr
    assert (tmp_path / "run" / "estimate.npy").read_bytes() == before


def test_another_prior_is_another_run(tmp_path):
    """By the content of its file, not by its name."""
    identities = []
    pixels = mtdcore.open_measurement(np.zeros((9, 9), np.float32))
    backend = mtdcore.get_backend("cpu")
    for content in (b"one", b"two"):
        (tmp_path / "p.safetensors").write_bytes(content)
        parameters = {"prior": str(tmp_path / "p.safetensors"), "initial": "samples"}
        identities.append(job.identity(pixels, backend, parameters))
    assert identities[0]["prior"] != identities[1]["prior"]
