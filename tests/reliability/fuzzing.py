"""Damaged files for every reader: a good file of each kind is mutated and read, many times, with memory capped.

    python fuzzing.py FOLDER CASES SEED [KIND ...]

Prints one JSON line per kind: cases, refusals. Anything but success or an error of ours ends the process with a
traceback; a crash or a hang is seen by whoever started it.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mtdcore as mtd
from mtdcli.inspect import provenance
from mtdcli.run_folder import RunFolder
from mtdcli.sources import read_images
from mtdcore.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.errors import MtdError
from mtdcore.likelihood import TileGeometry
from mtdcore.measurement import open_measurement
from mtdcore.recovery import Candidate, EMState, IterationRecord
from mtdcore.schedule import Temperature
from mtdcore.simulate import open_simulation
from mtdcore.statistics import Statistics

PIXELS = np.random.default_rng(0).normal(size=(12, 10)).astype(np.float32)
WHOLE = TileGeometry(side=64, unit=1, halo=0, reach=0)
SECONDS = 20

Reader = Callable[[Path], object]


def tiles(path: Path) -> None:
    measurement = open_measurement(path)
    if np.prod(measurement.shape) < 1e6:
        list(measurement.tiles(WHOLE))


def images(path: Path) -> None:
    for image in read_images(path):
        if image.size < 1e6:
            np.asarray(image).sum()


def make_npy(path: Path) -> None:
    np.save(path, PIXELS)


def make_npz(path: Path) -> None:
    np.savez_compressed(path, image=PIXELS)


def make_png(path: Path) -> None:
    from PIL import Image

    Image.fromarray((PIXELS * 40 + 128).clip(0, 255).astype(np.uint8)).save(path)


def make_tif(path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, PIXELS, compression="zlib")


def make_mrc(path: Path) -> None:
    import mrcfile

    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(PIXELS)


def make_checkpoint(path: Path) -> None:
    record = IterationRecord(1, 1.0, 0.1, 2.0, 1.0, 1.0, 0.5)
    likelihood = mtd.WindowLikelihood(4, 1, 1.0, 2.0)
    target = np.random.default_rng(1).normal(size=(4, 4))
    state = EMState((Candidate(target, likelihood),), Temperature(1.0, 10), 2.0, (record,))
    save_checkpoint(path, state, {"seed": 0})


def make_record(path: Path) -> None:
    RunFolder(path.parent).write_record({"parameters": {"seed": 0}, "result": {"noise_std": 1.0}})


def make_statistics(path: Path) -> None:
    Statistics.zeros(1, 4, 1.0).save(path)


def make_zarr(path: Path, **options: object) -> None:
    import zarr

    shutil.rmtree(path, ignore_errors=True)
    array = zarr.create_array(
        str(path),
        shape=PIXELS.shape,
        dtype="f4",
        chunks=(6, 5),
        config={"write_empty_chunks": True},
        **options,
    )
    array[:] = PIXELS


def make_simulation(path: Path) -> None:
    mtd.simulate(PIXELS[:4, :4], side=16, count=1, noise_std=1.0, seed=0, path=path, overwrite=True)


def make_star(path: Path) -> None:
    make_mrc(path.with_name("a.mrc"))
    rows = [
        "# version 30001",
        "",
        "data_micrographs",
        "",
        "loop_",
        "_rlnMicrographName #1",
        "_rlnDefocusU #2",
        "a.mrc 15000.0",
        "",
    ]
    path.write_text("\n".join(rows))


#: name of the file -> (makes a good one, files inside that are mutated, reads it).
KINDS: dict[str, tuple[Callable[[Path], None], tuple[str, ...], Reader]] = {
    "a.npy": (make_npy, (), lambda path: (images(path), tiles(path))),
    "a.npz": (make_npz, (), images),
    "a.png": (make_png, (), images),
    "a.tif": (make_tif, (), images),
    "a.mrc": (make_mrc, (), images),
    "micrographs.star": (make_star, (), tiles),
    "c.safetensors": (make_checkpoint, (), lambda path: load_checkpoint(path, {"seed": 0})),
    "run.json": (make_record, (), lambda path: RunFolder(path.parent).read_record()),
    "s.npz": (make_statistics, (), Statistics.load),
    "3.zarr": (make_zarr, ("zarr.json",), lambda path: (tiles(path), provenance(path))),
    "2.zarr": (lambda path: make_zarr(path, zarr_format=2), (".zarray",), tiles),
    "chunk.zarr": (make_zarr, ("c/0/1", "c/1/0"), tiles),
    "simulation.zarr": (make_simulation, ("zarr.json", "truth.npz", "digests.npz"), open_simulation),
}

TOKENS = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"99999999999",
    b"../../x",
    b"\x00",
    b"\xff" * 4,
    b'"name"',
]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few random changes: bits, bytes, cuts, repeats, swaps, and words that parsers trip over."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(7):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + size] = chance.randbytes(size)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                data[at : at + size] = chance.choice(TOKENS)
            case 5:
                del data[at:]
            case 6:
                data[at : at + size] = chance.choice((b"\x00", b"\xff", b"\x7f")) * size
    return bytes(data)


def fuzz(kind: str, folder: Path, cases: int, seed: int) -> dict[str, object]:
    make, inside, read = KINDS[kind]
    folder = folder / kind.replace(".", "_")
    folder.mkdir()
    path, chance, refused = folder / kind, random.Random(f"{kind} {seed}"), 0
    make(path)
    read(path)
    files = [path / name for name in inside] or [path]
    good = {file: file.read_bytes() for file in files}
    for case in range(cases):
        file = chance.choice(files)
        content = mutated(good[file], chance)
        file.write_bytes(content)
        (folder / "case").write_bytes(content)
        signal.alarm(SECONDS)
        try:
            read(path)
        except MtdError:
            refused += 1
        except BaseException:
            print(f"{kind} case {case}: {content[:2000]!r}", file=sys.stderr, flush=True)
            raise
        finally:
            signal.alarm(0)
        file.write_bytes(good[file])
    return {"kind": kind, "cases": cases, "refused": refused}


def main(folder: Path, cases: int, seed: int, kinds: list[str]) -> None:
    warnings.simplefilter("ignore")
    import mrcfile  # noqa: F401
    import tifffile  # noqa: F401
    import zarr  # noqa: F401
    from PIL import Image

    Image.init()
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, line_buffering=True)
    for kind in kinds or KINDS:
        print(json.dumps(fuzz(kind, folder, cases, seed)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
