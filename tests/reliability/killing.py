"""Runs of ``mtd recover --resume`` that are killed with SIGKILL at random moments until one gets to the end.

    python killing.py MEASUREMENT FOLDER RUNS KILLS SEED

Processes are forked from this one, which has imported everything and run nothing: a start costs milliseconds instead
of seconds. Prints one JSON line per run: kills, the most iterations lost by one of them, whether the results equal the
undisturbed ones. The HTML report is left out: it would take most of the time and decides nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy  # noqa: F401

import mtdcli.report.recovery
import mtdcli.run.job
from mtdcli.main import main
from mtdcli.terminal.progress import Progress

OPTIONS = (
    "--box-size 8 --rotations 1 --iterations 60 --tolerance 0 --device cpu --threads 2 --checkpoint-every 0"
)


def child(arguments: list[str], log: Path, progress: int) -> None:
    """Become ``mtd`` with its log in a file; the number of each completed iteration goes down the pipe."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    update = Progress.update

    def tell(self: Progress, done: int, *rest: object) -> None:
        update(self, done, *rest)  # type: ignore[arg-type]
        os.write(progress, b"%d\n" % done)

    Progress.update = tell  # type: ignore[method-assign, assignment]
    code = 70
    try:
        main(arguments)
    except SystemExit as ending:
        code = ending.code or 0  # type: ignore[assignment]
    finally:
        os._exit(code)


def attempt(arguments: list[str], log: Path, seconds: float | None) -> tuple[int | None, int]:
    """Run until the end or the kill; (exit code or None if killed, last iteration that was completed)."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        child(arguments, log, into)
    os.close(into)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(out, "rb") as file:
        told = file.read().split(b"\n")[:-1]
    _, status = os.waitpid(pid, 0)
    last = int(told[-1]) if told else 0
    return (None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)), last


def results(folder: Path) -> list[object]:
    """Images, and history and result, without the times."""
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    time_column = rows[0].index("seconds")
    images = [(folder / name).read_bytes() for name in ("estimate.npy", "aligned_average.npy")]
    record = json.loads((folder / "run.json").read_text())
    return [[row[:time_column] + row[time_column + 1 :] for row in rows], images, record["result"]]


def resumed_after(log: Path) -> int:
    found = re.search(r"going on after iteration (\d+)", log.read_text())
    return int(found[1]) if found else 0


def main_loop(measurement: str, work: Path, runs: int, kills: int, seed: int) -> None:
    random.seed(seed)
    mtdcli.report.recovery.write_report = lambda *_: None  # type: ignore[assignment]
    log, whole = work / "log", work / "whole"
    command = ["recover", measurement, *OPTIONS.split()]
    assert attempt([*command, "-o", str(whole)], log, None)[0] == 0, log.read_text()
    shutil.rmtree(whole)
    began = time.monotonic()
    assert attempt([*command, "-o", str(whole)], log, None)[0] == 0, log.read_text()
    print(json.dumps({"seconds": time.monotonic() - began}), flush=True)
    duration, expected = time.monotonic() - began, results(whole)
    for number in range(runs):
        folder = work / f"run{number}"
        again, killed, lost, before = [*command, "-o", str(folder), "--resume"], 0, 0, 0
        while True:
            patience = random.uniform(0, duration) if killed < kills + 3 else None
            code, last = attempt(again, log, patience)
            if killed and last:  # a run that got as far as iterating said where it began
                lost = max(lost, before - resumed_after(log))
            before = max(last, before if not last else 0)
            if code is None:
                killed += 1
                continue
            assert code == 0, log.read_text()
            if killed >= kills:
                break
            shutil.rmtree(folder)  # too quick: this run does not count, and those after it are killed earlier
            killed = before = 0
            duration *= 0.9
        print(json.dumps({"kills": killed, "lost": lost, "same": results(folder) == expected}), flush=True)
        assert not list(folder.glob(".*.part"))
        shutil.rmtree(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as scratch:
        main_loop(sys.argv[1], Path(scratch), *map(int, sys.argv[3:]))
