"""Commands that are killed with SIGKILL at random moments: what was there stays, the next one finds nothing in its way.

    python killing_commands.py COMMAND FOLDER KILLS SEED        COMMAND: import, train-prior or report

Processes are forked from this one, which has imported everything. Prints one JSON line: kills, and how many of them found the
command at work.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

import mtdcore
from mtdcli.main import load, main
from mtdcore.data import open_measurement

for name in ("import", "recover", "report"):
    load(name)
for module in (
    "mtdcore.data.zarr.store",
    "mtdcli.inputs.frames",
    "mtdcli.report.figures",
    "mtdcli.report.location",
):
    importlib.import_module(module)


def child(words: list[str], log: Path) -> None:
    """Become ``mtd`` with its log in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 70
    try:
        main(words)
    except SystemExit as ending:
        code = ending.code or 0  # type: ignore[assignment]
    finally:
        os._exit(code)


def attempt(words: list[str], log: Path, seconds: float | None) -> int | None:
    """Exit code, None if it was killed before its end."""
    pid = os.fork()
    if pid == 0:
        child(words, log)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


class Import:
    """Replaces a measurement by another one: afterwards it is one of both, or comes back with the next command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "m.zarr"
        for seed in (1, 2):
            pixels = np.random.default_rng(seed).normal(size=(6, 300, 300)).astype(np.float32)
            np.save(folder / f"{seed}.npy", pixels)
        self.words = ["import", str(folder / "2.npy"), "-o", str(self.out), "--force"]

    def prepare(self) -> None:
        assert (
            attempt(
                ["import", str(self.folder / "1.npy"), "-o", str(self.out), "--force"],
                self.folder / "log",
                None,
            )
            == 0
        )
        self.good = [np.asarray(open_measurement(self.out))]

    def check(self, finished: bool) -> None:
        aside = self.out.with_name(".m.zarr.mtd.old")
        found = np.asarray(open_measurement(self.out if self.out.exists() else aside))
        if finished:
            self.good.append(found)
        assert found.shape == (6, 300, 300)
        assert np.isfinite(found).all()
        if not finished and len(self.good) == 1 and not np.array_equal(found, self.good[0]):
            assert (
                attempt(self.words, self.folder / "log", None) == 0
            )  # it was done; only tidying up was left
            assert np.array_equal(np.asarray(open_measurement(self.out)), found)
        names = {path.name for path in self.folder.iterdir()}
        if not finished:  # one that was killed while it cleaned up after another
            names = {name for name in names if not re.fullmatch(r"\.m\.zarr\.mtd\.partial\.\d+", name)}
        left = {".m.zarr.mtd.partial", ".m.zarr.mtd.old"} if not finished else set()
        assert names <= {"1.npy", "2.npy", "log", "m.zarr"} | left, names


class TrainPrior:
    """Continues a training: the weights are always whole, and training ends with those of an undisturbed one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "p.safetensors"
        np.save(folder / "images.npy", np.random.default_rng(0).random((40, 8, 8)).astype(np.float32))
        quick = [
            "--network",
            "mlp",
            "--width",
            "8",
            "--steps",
            "60",
            "--validation",
            "4",
            "--batch-size",
            "4",
            "--threads",
            "1",
            "--resume",
        ]
        import mtdbridge.training.train  # noqa: F401 (the children are forked with it)

        self.words = ["train-prior", str(folder / "images.npy"), "-o", str(self.out), *quick]

    def prepare(self) -> None:
        for path in self.folder.glob("p.*"):
            path.unlink()

    def check(self, finished: bool) -> None:
        from mtdbridge import load_prior

        if finished or self.out.exists():
            load_prior(self.out)
        names = {path.name for path in self.folder.iterdir()}
        whole = {"images.npy", "log", "p.safetensors", "p.safetensors.state", "p.html"}
        left = {name for name in names - whole if name.endswith(".part")} if not finished else set()
        assert names <= whole | left, names


class Report:
    """Writes the page again: it is always whole, and nothing else changes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        target = mtdcore.datasets.glyphs(1, 8)[0]
        mtdcore.simulate(target, side=60, count=4, snr=4.0, rotations=1, path=folder / "m.zarr")
        words = [
            "--box-size",
            "8",
            "--rotations",
            "1",
            "--iterations",
            "3",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
        assert (
            attempt(["recover", str(folder / "m.zarr"), "-o", str(self.run), *words], folder / "log", None)
            == 0
        )
        self.words = ["report", str(self.run)]
        self.before = self._content()

    def _content(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in self.run.iterdir()
            if path.name not in (".lock", "report.html")
        }

    def prepare(self) -> None:
        pass

    def check(self, finished: bool) -> None:
        assert (self.run / "report.html").read_text().rstrip().endswith("</html>")
        now = self._content()
        left = {name for name in now.keys() - self.before.keys() if name.endswith(".part")}
        assert not (finished and left), left
        assert {name: content for name, content in now.items() if name not in left} == self.before


COMMANDS = {"import": Import, "train-prior": TrainPrior, "report": Report}


def kill(name: str, folder: Path, kills: int, seed: int) -> dict[str, object]:
    chance = random.Random(seed)
    case = COMMANDS[name](folder)
    log = folder / "log"
    case.prepare()
    began = time.monotonic()
    assert attempt(case.words, log, None) == 0, log.read_text()
    duration = time.monotonic() - began
    case.prepare()
    killed = 0
    while killed < kills:
        code = attempt(case.words, log, chance.uniform(0, duration))
        assert code in (None, 0), log.read_text()
        killed += code is None
        case.check(code == 0)
        if code == 0 or chance.random() < 0.2:  # go on to the end, and start anew
            assert attempt(case.words, log, None) == 0, log.read_text()
            case.check(True)
            case.prepare()
    assert attempt(case.words, log, None) == 0, log.read_text()
    case.check(True)
    return {"command": name, "kills": killed, "seconds": round(duration, 2)}


if __name__ == "__main__":
    where = Path(sys.argv[2]) / sys.argv[1]
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    print(json.dumps(kill(sys.argv[1], where, int(sys.argv[3]), int(sys.argv[4]))))
