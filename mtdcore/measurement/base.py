"""What the engine asks of a measurement: shape, dtype and tiles in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Self

import numpy as np

from ..likelihood import Tile, TileGeometry


class Measurement(Protocol):
    """A stack of equally shaped micrographs, in memory or on disk.

    Measurements are picklable and cheap to send: one that lives on disk holds its path, never an open handle.

    Attributes:
        shape: (micrographs, H, W).
        dtype: dtype of the tiles it yields, float32 or float64.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def dtype(self) -> np.dtype: ...

    def tile_count(self, geometry: TileGeometry) -> int:
        """Number of tiles that :meth:`tiles` yields."""
        ...

    def tiles(self, geometry: TileGeometry) -> Iterator[Tile]:
        """Host tiles: micrograph by micrograph, each in the row-major order of ``geometry.regions``.

        Non-finite pixels are marked invalid and set to 0 in ``Tile.values``; the measurement itself is
        never written to.
        """
        ...

    def split(self, parts: int) -> list[Self]:
        """``parts`` measurements whose tiles, one after another, are the tiles of this one.

        Part i of n yields tiles ``[i * N // n, (i + 1) * N // n)`` of the N tiles of a geometry; ``shape`` stays
        that of the whole, so a likelihood bound to one part is bound to all.
        """
        ...
