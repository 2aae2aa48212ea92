"""Two runs of ``mtd recover`` on one folder (row 6)."""

import os
import time

OPTIONS = ("--box-size", 8, "--rotations", 1, "--device", "cpu", "--tolerance", 0)


def test_the_second_is_refused_at_once_and_the_lock_goes_with_the_first(
    mtd, mtd_process, measurement, tmp_path
):
    """In a process of its own, from its start to its end: the lock is asked for before the engine is loaded."""
    command = ("recover", measurement, "-o", tmp_path / "run", *OPTIONS)
    holder = mtd_process(*command, "--iterations", 100_000)
    lock = tmp_path / "run" / ".lock"
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.005)
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        second = mtd_process(*command)
        _, error = second.communicate(timeout=60)
        seconds.append(time.monotonic() - started)
        assert second.returncode == 75
        assert f"is in use by process {holder.pid} on {os.uname().nodename}" in error
    assert min(seconds) < 1, seconds  # one of three, for machines that are busy
    holder.kill()
    holder.communicate()
    mtd(*command, "--iterations", 1, "--force")
