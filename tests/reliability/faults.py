"""Lets every call of the file system fail in turn under what mtdcore writes and reads; run with faults.c preloaded.

    LD_PRELOAD=faults.so python faults.py FOLDER [SCENARIO ...]

Each scenario is repeated with the first, second, ... call of one kind failing, until it gets through without meeting the
fault. Prints one JSON line per scenario; a promise that is broken ends the process with a traceback.
"""

from __future__ import annotations

import ctypes
import errno
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mtdcore as mtd
from mtdcli.run.folder import RunFolder
from mtdcore.data.tiles import TileGeometry
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.em.state import Candidate, EMState, IterationRecord
from mtdcore.em.temperature import Temperature
from mtdcore.errors import MtdError

KINDS = ("write", "fsync", "rename", "read", "open")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR)
IDENTITY = {"seed": 0}
LIBRARY = ctypes.CDLL(None)
TARGET = mtd.datasets.glyphs(1, 8)[0]


def state(iterations: int) -> EMState:
    records = [IterationRecord(i + 1, 1.0, 0.1, 2.0, 1.0, 1.0, 0.5) for i in range(iterations)]
    target = np.random.default_rng(iterations).normal(size=(8, 8))
    return EMState(
        (Candidate(target, mtd.WindowLikelihood(mtd.Rotations(1, 8), 1.0, 2.0)),),
        Temperature(1.0, 10),
        2.0,
        tuple(records),
    )


class Scenario:
    """Something to prepare, something to do under faults, and what must hold afterwards."""

    def prepare(self, folder: Path) -> None: ...
    def act(self, folder: Path) -> object: ...
    def check(self, folder: Path, failed: bool, found: object) -> None: ...


class SaveCheckpoint(Scenario):
    def prepare(self, folder: Path) -> None:
        save_checkpoint(folder / "c.safetensors", state(1), IDENTITY)
        save_checkpoint(folder / "c.safetensors", state(2), IDENTITY)

    def act(self, folder: Path) -> object:
        return save_checkpoint(folder / "c.safetensors", state(3), IDENTITY)

    def check(self, folder: Path, failed: bool, found: object) -> None:
        loaded = load_checkpoint(folder / "c.safetensors", IDENTITY)
        assert loaded.iteration in ((2, 3) if failed else (3,))
        assert np.array_equal(loaded.target, state(loaded.iteration).target)


class LoadCheckpoint(SaveCheckpoint):
    def act(self, folder: Path) -> object:
        return load_checkpoint(folder / "c.safetensors", IDENTITY)

    def check(self, folder: Path, failed: bool, found: object) -> None:
        if isinstance(found, EMState):  # the one before, with a warning, where the last could not be read
            assert np.array_equal(found.target, state(found.iteration).target)
        assert load_checkpoint(folder / "c.safetensors", IDENTITY).iteration == 2


class WriteResults(Scenario):
    def write(self, folder: Path, value: float) -> None:
        run = RunFolder(folder)
        run.write_image(run.estimate, np.full((8, 8), value))
        run.write_record({"value": value})
        run.write_history([{"iteration": value}] * 3000)

    def prepare(self, folder: Path) -> None:
        self.write(folder, 1.0)

    def act(self, folder: Path) -> object:
        return self.write(folder, 2.0)

    def check(self, folder: Path, failed: bool, found: object) -> None:
        run, good = RunFolder(folder), (1.0, 2.0) if failed else (2.0,)
        image = run.read_image(run.estimate, 8)
        assert (image == image[0, 0]).all()
        assert image[0, 0] in good
        assert run.read_record()["value"] in good
        assert run.history.read_text().splitlines() in [["iteration"] + [str(v)] * 3000 for v in good]


def pixels(path: Path) -> np.ndarray:
    whole = TileGeometry(side=64, unit=1, halo=0, reach=0)
    return np.concatenate([tile.values for tile in mtd.open_measurement(path).tiles(whole)])


class ReplaceMeasurement(Scenario):
    def write(self, folder: Path, seed: int) -> np.ndarray:
        path = folder / "m.zarr"
        mtd.simulate(TARGET, side=48, count=2, noise_std=1.0, seed=seed, path=path, overwrite=True)
        return pixels(path)

    def prepare(self, folder: Path) -> None:
        self.good = [self.write(folder, seed) for seed in (2, 1)]

    def act(self, folder: Path) -> object:
        return mtd.simulate(
            TARGET, side=48, count=2, noise_std=1.0, seed=2, path=folder / "m.zarr", overwrite=True
        )

    def check(self, folder: Path, failed: bool, found: object) -> None:
        now = pixels(folder / "m.zarr")
        assert any(np.array_equal(now, one) for one in (self.good if failed else self.good[:1]))


class ReadMeasurement(ReplaceMeasurement):
    def prepare(self, folder: Path) -> None:
        self.good = [self.write(folder, 1)]

    def act(self, folder: Path) -> object:
        return pixels(folder / "m.zarr")

    def check(self, folder: Path, failed: bool, found: object) -> None:
        assert failed or np.array_equal(found, self.good[0])  # type: ignore[arg-type]


class ReadNpy(Scenario):
    def prepare(self, folder: Path) -> None:
        self.good = np.random.default_rng(0).normal(size=(48, 48)).astype(np.float32)
        np.save(folder / "m.npy", self.good)

    def act(self, folder: Path) -> object:
        return pixels(folder / "m.npy")

    def check(self, folder: Path, failed: bool, found: object) -> None:
        assert failed or np.array_equal(found, self.good)  # type: ignore[arg-type]


def attempts(scenario: Scenario, folder: Path, kind: int, number: int) -> tuple[int, int]:
    """(attempts, errors) until no call is left that could fail."""
    errors = 0
    for after in range(10_000):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        scenario.prepare(folder)
        LIBRARY.faults_arm(kind, after, number, str(folder).encode())
        failed, found = False, None
        try:
            found = scenario.act(folder)
        except MtdError:
            failed = True
        finally:
            fired = LIBRARY.faults_disarm()
        scenario.check(folder, failed, found)
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert not left, left
        errors += failed
        if not fired:
            assert not failed
            return after, errors
    raise AssertionError("no end of calls")


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    kind.__name__: kind
    for kind in (SaveCheckpoint, LoadCheckpoint, WriteResults, ReplaceMeasurement, ReadMeasurement, ReadNpy)
}


def main(folder: Path, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    for name in names or SCENARIOS:
        counts = {
            f"{KINDS[kind]} {errno.errorcode[number]}": attempts(
                SCENARIOS[name](), folder / "work", kind, number
            )
            for kind in range(len(KINDS))
            for number in ERRORS
        }
        tried, errors = (sum(column) for column in zip(*counts.values(), strict=True))
        print(json.dumps({"scenario": name, "faults": tried, "errors": errors, "counts": counts}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
