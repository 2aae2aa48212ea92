"""Micrograph files as a measurement, without ``mtd import``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..measurement import Reader, TiledMeasurement
from ..prefetch import TILES_AHEAD, prefetched
from ..preparation.pixels import open_pixels
from ..preparation.prepare import Preparation
from ..tiles import Region, Tile, TileGeometry
from .listing import Micrograph, OnBad, find_micrographs, of_one_size


class LastMicrograph:
    """Cache of the micrograph made last, shared by all parts of a measurement; its pixels are not pickled."""

    def __init__(self) -> None:
        self._made: tuple[int, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, None]:
        return {"_made": None}

    def get(self, index: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The pixels of micrograph ``index``, made unless they are the last ones."""
        last = self._made
        if last is None or last[0] != index:
            del last
            self._made = None  # freed before the next micrograph takes memory
            last = self._made = index, make()
        return last[1]


class MicrographMeasurement(TiledMeasurement):
    """Micrographs on disk, prepared (or mapped) one at a time, ahead of the consumer. The measurement holds paths, no open handles.

    Every pass prepares each micrograph again, at the cost of a few E-steps; ``mtd import`` prepares it once. Only the
    micrograph prepared last is cached, because the parts of an E-step may end in the middle of a micrograph.

    Args:
        micrographs: of one size.
        preparation: what is done to each; None: pixels as stored.
        mask: see :class:`TiledMeasurement`; of the prepared shape.

    Raises:
        InputError: no micrograph, or several sizes.
    """

    def __init__(
        self,
        micrographs: Sequence[Micrograph],
        preparation: Preparation | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        self.micrographs = tuple(of_one_size(micrographs))
        self.preparation = preparation
        first = self.micrographs[0]
        if preparation is None:
            shape = first.shape
            dtype = np.result_type(
                *{open_pixels(path).stack.dtype for path in {m.path for m in self.micrographs}}
            )
        else:
            shape, dtype = preparation.shape(first.shape), np.dtype(np.float32)
        super().__init__((len(self.micrographs), *shape), dtype, mask)
        self._last = LastMicrograph()

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Tiles prepared ahead of their consumer; see :class:`mtdcore.data.Measurement`."""
        return prefetched(super().tiles(geometry), TILES_AHEAD)

    def _reader(self) -> Reader:
        steps = self.preparation

        def pixels(index: int) -> np.ndarray:
            if steps is None:
                return self.micrographs[index].read()
            return self._last.get(index, lambda: steps.read(self.micrographs[index]).pixels)

        def read(index: int, regions: Sequence[Region]) -> Iterator[np.ndarray]:
            whole = pixels(index)
            for region in regions:
                yield whole[region.read]

        return read

    def __repr__(self) -> str:
        return (
            f"MicrographMeasurement(shape={self.shape}, dtype={self.dtype}, first={self.micrographs[0].name})"
        )


def open_micrographs(
    source: str | Path | Sequence[str | Path],
    preparation: Preparation | None = None,
    *,
    pixel_size: float | None = None,
    mask: np.ndarray | None = None,
    on_bad: OnBad | None = None,
) -> MicrographMeasurement:
    """Micrographs as one measurement.

    Args:
        source: a STAR list, an MRC or TIFF file, or several of them, one after another.
        preparation: what is done to each micrograph; None: pixels as stored.
        pixel_size: angstrom, where a STAR list names none.
        mask: (h, w) or (micrographs, h, w) bool, true where a pixel may be used.
        on_bad: called with the reason for each micrograph that cannot be used (missing, damaged, of another size); None:
            raise it.

    Raises:
        InputError: nothing usable there, or a bad micrograph.
        StorageError: a file is missing.
    """
    paths = [source] if isinstance(source, str | Path) else source
    found = [one for path in paths for one in find_micrographs(path, pixel_size, on_bad)]
    return MicrographMeasurement(of_one_size(found, on_bad), preparation, mask)
