"""``mtd watch`` killed with SIGKILL at random moments while another process drops micrographs, against one batch run in the same order.

    python watching.py FOLDER MICROGRAPHS SIDE KILLS SEED [OPTION ...]

Processes are forked from this one, which has imported everything and run nothing. Prints one JSON line: kills, what was counted,
whether the results and the states equal those of the batch run. The HTML report is left out: it decides nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mtdcli.watching.watcher
import mtdcore as mtd
from mtdcli.commands import watch  # noqa: F401
from mtdcli.main import main
from mtdcore._base.records import unseal
from mtdcore.data.micrographs import measurement  # noqa: F401
from mtdcore.synthetic.glyphs import glyphs

OPTIONS = "--box-size 12 --rotations 4 --iterations 8 --starts 2 --tolerance 0 --first 5 --every 4 --settle 0.05 --device cpu --threads 1"


def make(folder: Path, count: int, side: int, seed: int) -> None:
    """Raw micrographs of one glyph, dark on grey, as MRC files."""
    import mrcfile

    folder.mkdir()
    glyph = glyphs(1, 12, 1)[0]
    shape = {"shape": (side, side), "density": 0.08, "snr": 1.0, "rotations": 4}
    for i in range(count):
        pixels = np.asarray(mtd.simulate(glyph, **shape, seed=seed + i).measurement).reshape(side, side)
        with mrcfile.new(folder / f"m{i:04d}.mrc") as file:
            file.set_data((100.0 - pixels).astype(np.float32))


def drop(paths: list[Path], folder: Path, seed: int, pause: float) -> None:
    """Write micrographs into a folder in a random order, each in two halves."""
    rng = random.Random(seed)
    rng.shuffle(paths)
    for path in paths:
        content = path.read_bytes()
        with open(folder / path.name, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(rng.uniform(0, pause))
            file.write(content[len(content) // 2 :])
        time.sleep(rng.uniform(0, pause))


def forked(work: Callable[[], object], log: Path) -> int:
    """Do this in a process of its own, its output added to a file."""
    pid = os.fork()
    if pid:
        return pid
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code: Any = 0
    try:
        work()
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException:
        code = 70
        raise
    finally:
        os._exit(code)


def ended(pid: int) -> int | None:
    """Wait for a process: its exit code, or None if it was killed."""
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def counted(run: Path) -> int:
    """How many micrographs count by now."""
    state = run / "watch.safetensors"
    return len(unseal(state)[0]["counted"]) if state.exists() else 0


def results(run: Path) -> dict[str, Any]:
    """Images, picks, state and pixels; nothing that tells times."""
    header, arrays = unseal(run / "watch.safetensors")
    history = [{k: v for k, v in one.items() if k != "seconds"} for one in header["history"]]
    entries = [(one["entry"]["name"], one["digest"], one["nats"], one["picks"]) for one in header["counted"]]
    files = ("estimate.npy", "aligned_average.npy", "detections.csv", "detections.star")
    return {
        "history": history,
        "candidates": header["candidates"],
        "counted": entries,
        "arrays": {name: array.tobytes() for name, array in arrays.items()},
        "files": [(run / name).read_bytes() for name in files],
        "result": json.loads((run / "run.json").read_text())["result"],
        "pixels": np.asarray(mtd.open_measurement(run / "micrographs.zarr")).tobytes(),
    }


def main_loop(work: Path, count: int, side: int, kills: int, seed: int, options: list[str]) -> None:
    random.seed(seed)
    mtdcli.watching.watcher.write_report = lambda *_: None  # type: ignore[assignment]
    log, run, folder = work / "log", work / "run", work / "arriving"
    assert ended(forked(lambda: make(work / "made", count, side, seed), log)) == 0, log.read_text()
    paths = sorted((work / "made").iterdir())
    folder.mkdir()
    command = ["watch", str(folder), "-o", str(run), *(options or OPTIONS.split())]
    dropping = forked(lambda: drop(paths, folder, seed, 0.02), log)
    killed, began = 0, time.monotonic()
    while killed < kills:
        pid, before = forked(lambda: main(command), log), counted(run)
        # after some have been counted, at a random moment of the next; the last kills may find nothing left to do
        until = min(before + random.randint(1, max(1, count // kills)), count)
        while counted(run) < until:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) is None, log.read_text()
        killed += 1
    assert ended(dropping) == 0
    assert ended(forked(lambda: main([*command, "--once"]), log)) == 0, log.read_text()
    seconds = time.monotonic() - began
    order = (run / "order.txt").read_text().splitlines()
    batch = [
        *command[:2],
        "-o",
        str(work / "batch"),
        *command[4:],
        "--once",
        "--order",
        str(run / "order.txt"),
    ]
    assert ended(forked(lambda: main(batch), log)) == 0, log.read_text()
    mine, theirs = results(run), results(work / "batch")
    told = {
        "kills": killed,
        "seconds": seconds,
        "counted": len(order),
        "different": len({line.split("@")[1] for line in order}),
        "as_named": order != sorted(order),
        "same": [name for name in mine if mine[name] == theirs[name]],
        "differ": [name for name in mine if mine[name] != theirs[name]],
    }
    print(json.dumps(told), flush=True)
    shutil.rmtree(work / "made")


if __name__ == "__main__":
    main_loop(Path(sys.argv[1]), *map(int, sys.argv[2:6]), sys.argv[6:])
