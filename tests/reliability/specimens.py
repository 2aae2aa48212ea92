"""A good file of every kind that mtdcore reads, and its reader: what fuzzing.py damages."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

import mtdcore as mtd
from mtdbridge.priors.networks import build_network
from mtdbridge.priors.weights import ModelCard, load_weights, save_weights
from mtdbridge.training import state as training_state
from mtdbridge.training.images import load_images
from mtdcli.commands.inspect import provenance
from mtdcli.inputs.sources import read_images
from mtdcli.main import load
from mtdcli.report.recovery import write_report
from mtdcli.run.finished import FinishedRun
from mtdcore.data import open_measurement
from mtdcore.data.micrographs.star import read_star
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.data.tiles import TileGeometry
from mtdcore.data.zarr.ome import ome_pixel_size
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.em.state import Candidate, EMState, IterationRecord
from mtdcore.em.temperature import Temperature
from mtdcore.estep.statistics import Statistics
from mtdcore.model.normal import Diagonal
from mtdcore.synthetic.simulate import open_simulation

PIXELS = np.random.default_rng(0).normal(size=(12, 10)).astype(np.float32)
WHOLE = TileGeometry(side=64, unit=1, halo=0, reach=0)
CARD = ModelCard("mlp", {"width": 4}, 4, (0.0, 0.0), {"sha256": "0"}, {"steps": 3, "steps_done": 1})


class Kind(NamedTuple):
    """What is made, which files of it are damaged (none: it is one file), and how it is read."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    inside: tuple[str, ...] = ()


def tiles(path: Path) -> None:
    measurement = open_measurement(path)
    if np.prod(measurement.shape) < 1e6:
        list(measurement.tiles(WHOLE))


def images(path: Path) -> None:
    for image in read_images(path):
        if image.size < 1e6:
            np.asarray(image).sum()


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
    target = np.random.default_rng(1).normal(size=(4, 4))
    candidate = Candidate(target, mtd.WindowLikelihood(mtd.Rotations(1, 4), 1.0, 2.0))
    save_checkpoint(path, EMState((candidate,), Temperature(1.0, 10), 2.0, (record,)), {"seed": 0})


def make_zarr(path: Path, pixels: np.ndarray = PIXELS, **options: Any) -> None:
    import zarr

    shutil.rmtree(path, ignore_errors=True)
    chunks = tuple(n // 2 for n in pixels.shape)
    kept = {"config": {"write_empty_chunks": True}, "shape": pixels.shape, "dtype": "f4", "chunks": chunks}
    zarr.create_array(str(path), **kept, **options)[:] = pixels


def make_stack(path: Path) -> None:
    make_zarr(path, np.ones((4, 6, 6), np.float32), zarr_format=2)


def make_shards(path: Path) -> None:
    make_zarr(path, shards=(12, 10))


def make_simulation(path: Path) -> None:
    mtd.simulate(PIXELS[:4, :4], side=16, count=1, noise_std=1.0, seed=0, path=path, overwrite=True)


def make_import(path: Path) -> None:
    np.save(path.with_name("m.npy"), np.random.default_rng(1).normal(size=(40, 40)))
    command(["import", path.with_name("m.npy"), "-o", path, "--pixel-size", "1.5", "--whiten", "--force"])


def read_import(path: Path) -> None:
    tiles(path)
    ome_pixel_size(path)
    table = MicrographTable.load(path)
    if table is not None:
        _ = table.transfer


def make_star(path: Path) -> None:
    make_mrc(path.with_name("a.mrc"))
    labels = ["_rlnMicrographName #1", "_rlnDefocusU #2", "_rlnVoltage #3"]
    path.write_text("\n".join(["data_micrographs", "", "loop_", *labels, "a.mrc 15000.0 300", ""]))


def make_picks(path: Path) -> None:
    lines = ["_rlnMicrographName #1", "_rlnCoordinateX #2", "_rlnCoordinateY #3", "a.mrc 3.0 4.5", ""]
    path.write_text("\n".join(["data_", "", "loop_", *lines]))


def make_idx(path: Path) -> None:
    content = b"\0\0\x08\x03" + np.array([2, 5, 5], ">u4").tobytes() + bytes(range(50))
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_weights(path: Path) -> None:
    torch.manual_seed(0)
    save_weights(path, build_network("mlp", 4, width=4), CARD)


@cache
def training() -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    model, average = (build_network("mlp", 4, width=4) for _ in range(2))
    return model, average, torch.optim.Adam(model.parameters())


def make_state(path: Path) -> None:
    training_state.save(path, *training(), CARD)


def command(words: list[Any]) -> None:
    """A command of ``mtd`` without its entry point, which turns errors into exit codes."""
    name, *rest = map(str, words)
    load(name).main(rest, standalone_mode=False)


def make_run(path: Path) -> None:
    measurement = path.with_name("m.zarr")
    target = mtd.datasets.glyphs(1, 8)[0]
    mtd.simulate(target, side=24, count=2, noise_std=0.1, rotations=1, path=measurement, overwrite=True)
    options = ["--box-size", 8, "--rotations", 1, "--iterations", 2, "--device", "cpu", "--force"]
    with patch("mtdcli.report.recovery.write_report"):  # its charts would take most of the time
        command(["recover", measurement, "-o", path, *options])


def read_run(path: Path) -> None:
    command(["inspect", path])
    write_report(FinishedRun.at(path))


def read_copies(path: Path) -> None:
    command(["evaluate", path])


RUN = ("run.json", "history.csv", "estimate.npy", "aligned_average.npy", "detections.csv")


def _statistics(path: Path) -> None:
    normal = Diagonal(np.ones((4, 4)))
    Statistics(np.zeros((4, 4)), normal, 0.0, 0.0, 0.0, np.zeros(1), 0.0, 0, 0, 1.0).save(path)


#: By the name of the file.
KINDS = {
    "a.npy": Kind(lambda path: np.save(path, PIXELS), lambda path: (images(path), tiles(path))),
    "a.npz": Kind(lambda path: np.savez_compressed(path, image=PIXELS), images),
    "a.png": Kind(make_png, images),
    "a.tif": Kind(make_tif, images),
    "a.mrc": Kind(make_mrc, lambda path: (images(path), tiles(path))),
    "micrographs.star": Kind(make_star, tiles),
    "picks.star": Kind(make_picks, read_star),
    "c.safetensors": Kind(make_checkpoint, lambda path: load_checkpoint(path, {"seed": 0})),
    "s.safetensors": Kind(_statistics, Statistics.load),
    "3.zarr": Kind(make_zarr, lambda path: (tiles(path), provenance(path)), ("zarr.json",)),
    "2.zarr": Kind(lambda path: make_zarr(path, zarr_format=2), tiles, (".zarray",)),
    "chunk.zarr": Kind(make_zarr, tiles, ("c/0/1", "c/1/0")),
    "shard.zarr": Kind(make_shards, tiles, ("c/0/0", "zarr.json")),
    "import.zarr": Kind(make_import, read_import, ("zarr.json", "0/zarr.json", "micrographs.json")),
    "simulation.zarr": Kind(make_simulation, open_simulation, ("zarr.json", "truth.npz", "digests.npz")),
    "a.idx": Kind(make_idx, load_images),
    "a.idx.gz": Kind(make_idx, load_images),
    "images.zarr": Kind(make_stack, load_images, (".zarray", "1.1.0")),
    "weights.safetensors": Kind(make_weights, load_weights),
    "weights.state": Kind(make_state, lambda path: training_state.load(path, *training(), CARD)),
    "run": Kind(make_run, read_run, RUN),
    "copies": Kind(make_run, read_copies, RUN[:3]),
}
