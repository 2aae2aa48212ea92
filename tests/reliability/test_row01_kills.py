"""Runs of ``mtd recover`` that are killed and resumed (row 1)."""

import time

import pytest

OPTIONS = (
    "--box-size",
    8,
    "--rotations",
    1,
    "--tolerance",
    0,
    "--device",
    "cpu",
    "--iterations",
    60,
    "--checkpoint-every",
    0,
)


@pytest.mark.slow
def test_fifty_runs_killed_at_random_moments_end_with_the_same_bits(run_script, measurement, tmp_path):
    runs = run_script("killing.py", measurement, tmp_path, 50, 5, 7)[1:]
    assert len(runs) == 50
    for run in runs:
        assert run["same"]
        assert run["kills"] >= 5
        assert run["lost"] <= 1  # iterations; --checkpoint-every 0


def test_a_kill_changes_no_bit(mtd, mtd_process, measurement, tmp_path, results):
    """One run, one kill: the short form of the test above."""
    process = mtd_process("recover", measurement, "-o", tmp_path / "run", *OPTIONS)
    while not (tmp_path / "run" / "checkpoint.previous.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    (tmp_path / "run" / ".estimate.npy.1.part").write_bytes(b"left by the one that was killed")
    log = mtd("recover", measurement, "-o", tmp_path / "run", *OPTIONS, "--resume").stderr
    assert "going on after iteration" in log
    mtd("recover", measurement, "-o", tmp_path / "whole", *OPTIONS)
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert not list((tmp_path / "run").glob(".*.part"))
