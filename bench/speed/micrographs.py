"""A thousand micrographs made on the fly, none stored: does one E-step keep its pace and its memory?

Each has its own noise level, number of copies and transfer, and is made by a thread ahead of the E-step, as files are prepared.
Afterwards the E-step is asked what it found out about them. Rows are tenths of the run.

python bench/speed/micrographs.py --side 4096 --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np

import mtdcore as mtd
from mtdcore.data.measurement import Reader, TiledMeasurement
from mtdcore.data.micrographs.measurement import LastMicrograph
from mtdcore.data.prefetch import TILES_AHEAD, prefetched
from mtdcore.data.tiles import Region, Tile, TileGeometry
from mtdcore.model.filters.optics import radial_filter

#: Side of the box, pixels.
BOX = 24


class Generated(TiledMeasurement):
    """Micrographs with copies on a jittered grid; made again whenever they are read."""

    def __init__(self, facts: mtd.Micrographs, target: np.ndarray, side: int) -> None:
        super().__init__((len(facts), side, side), np.dtype(np.float32))
        self.facts, self.target, self.side, self.every = facts, target, side, max(1, len(facts) // 10)
        self.began: dict[int, tuple[float, float]] = {}
        self.making: dict[int, float] = {}  # shared by all parts, as is ``began``
        self._last = LastMicrograph()

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        for tile in prefetched(super().tiles(geometry), TILES_AHEAD):
            if tile.micrograph not in self.began:
                self.began[tile.micrograph] = time.perf_counter(), time.process_time()
                if tile.micrograph % self.every == 0 and tile.micrograph:
                    self.report(tile.micrograph)
            yield tile

    def _reader(self) -> Reader:
        def read(micrograph: int, regions: Sequence[Region]) -> Iterator[np.ndarray]:
            pixels = self._last.get(micrograph, lambda: self._made(micrograph))
            for region in regions:
                yield pixels[region.read]

        return read

    def report(self, micrograph: int) -> None:
        """What the last hundred (or so) took."""
        (wall, cpu), (then, before) = self.began[micrograph], self.began[micrograph - self.every]
        print(
            f"{micrograph - self.every:5} to {micrograph - 1:5}: {(wall - then) / self.every:.3f} s a micrograph, "
            f"{(cpu - before) / self.every:.3f} s of CPU time; {resident() / 2**20:.0f} MiB resident",
            flush=True,
        )

    def _made(self, micrograph: int) -> np.ndarray:
        assert self.facts.count is not None
        assert self.facts.transfer is not None
        began, rng = time.thread_time(), np.random.default_rng(micrograph)
        pixels = rng.standard_normal((self.side, self.side), dtype=np.float32)
        pixels *= np.float32(self.facts.noise[micrograph])
        image = radial_filter(self.target[None], self.facts.transfer[micrograph])[0].astype(np.float32)
        cells = self.side // (2 * BOX)
        for cell in rng.permutation(cells**2)[: int(self.facts.count[micrograph])]:
            row, column = (2 * BOX * c + rng.integers(BOX) for c in divmod(int(cell), cells))
            pixels[row : row + BOX, column : column + BOX] += image
        self.making[micrograph] = time.thread_time() - began
        return pixels


def resident() -> int:
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--micrographs", type=int, default=1000)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    count, side = options.micrographs, options.side
    rng = np.random.default_rng(0)
    frequency = np.linspace(0.0, 0.5, 49)
    defocus = rng.uniform(8.0, 14.0, size=(count, 1))
    facts = mtd.Micrographs(
        noise=rng.uniform(0.7, 1.5, size=count),
        count=rng.integers(1, (side // (2 * BOX)) ** 2 // 2, size=count),
        transfer=np.abs(np.sin(0.5 + np.pi * defocus * frequency**2)),
    )
    offset = np.arange(BOX) - (BOX - 1) / 2
    target = np.exp(-0.5 * np.add.outer((offset / 4) ** 2, (offset / 2.5) ** 2))
    measurement = Generated(facts, target, side)
    level = float(np.sqrt(np.mean(facts.noise**2)))
    model = mtd.WindowLikelihood(mtd.Rotations(1, BOX), level, float(facts.count.sum()), micrographs=facts)
    found = mtd.e_step(measurement, target, model, mtd.get_backend("cpu", threads=options.threads))
    measurement.began[count] = time.perf_counter(), time.process_time()
    measurement.report(count)
    total = measurement.began[count][0] - measurement.began[0][0]
    print(
        f"{count} micrographs of {side} x {side}: {total:.0f} s, {count * side**2 / total / 1e6:.1f} Mpixel/s; "
        f"{sum(measurement.making.values()) / count:.3f} s of CPU time each went into making them"
    )
    assert found.ledger is not None
    noise = np.sqrt(found.ledger[:, 3] / found.ledger[:, 2]) / facts.noise - 1.0
    copies = found.ledger[:, 4] / facts.count - 1.0
    print(
        f"noise of each: within {np.abs(noise).max():.2%}; copies of each: {np.sqrt(np.mean(copies**2)):.1%} rms"
    )


if __name__ == "__main__":
    main()
