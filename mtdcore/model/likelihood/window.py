"""The window likelihood: whole windows with local exclusion (docs/model.md 7).

Every corner x carries one log-likelihood ratio per rotation, Lambda(x, k); corners closer than the
minimum separation exclude each other. Nothing is cropped, so a copy is judged once and whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ...data.tiles import Tile, TileGeometry
from ...errors import ParameterError
from ..optics import Micrographs, check_number
from .checks import check_common
from .classes import Templates

#: Exclusion saturates: above this share of the close-packed density the activity would diverge.
_MAX_PACKING = 0.9

#: Side of the square of pixels a tile reads: the halo is recomputed, so larger is leaner until the
#: correlation maps leave the cache.
_TILE_PIXELS = 512


@dataclass(frozen=True)
class WindowLikelihood(Templates):
    """Window model with local exclusion.

    Attributes:
        box_size: side L of the target in pixels.
        rotations: number K of equally spaced in-plane rotations.
        noise_std: standard deviation of the white noise, in the units of the measurement.
        expected_count: expected number of copies in the whole measurement.
        min_separation: smallest distance d (max norm, pixels) between two corners; None: box_size.
        margin: extra pixels kept around the L x L frame in the statistics (for gauge moves).
        positions: number of corners in the whole measurement, which ``expected_count`` refers to;
            None until :meth:`bind` is called (the E-step does).
        class_weights: share of each of C classes among the copies; None: one class.
        micrographs: what tells the micrographs apart; None: nothing does.
    """

    box_size: int
    rotations: int
    noise_std: float
    expected_count: float
    min_separation: int | None = None
    margin: int = 0
    positions: int | None = None
    class_weights: tuple[float, ...] | None = None
    micrographs: Micrographs | None = None

    def __post_init__(self) -> None:
        check_common(self)
        self._check_weights()
        if not (math.isfinite(self.expected_count) and self.expected_count > 0):
            raise ParameterError(
                f"expected_count must be a positive number of copies; got {self.expected_count}."
            )
        if self.min_separation is not None and self.min_separation < 1:
            raise ParameterError(f"min_separation must be at least 1 pixel; got {self.min_separation}.")

    @property
    def separation(self) -> int:
        """Smallest distance d between two corners in pixels (max norm)."""
        return self.box_size if self.min_separation is None else self.min_separation

    @property
    def neighbourhood(self) -> int:
        """Number of corners (2d - 1)^2 that a copy excludes, its own among them."""
        return (2 * self.separation - 1) ** 2

    @property
    def geometry(self) -> TileGeometry:
        """Tiles of window corners with the halo that their competition needs."""
        halo = max(self.separation - 1, self.margin)
        around = 2 * halo + self.box_size - 1
        side = max(_TILE_PIXELS - around, around)
        return TileGeometry(side=side, unit=1, halo=halo, reach=self.box_size - 1)

    @property
    def log_activity(self) -> float:
        """Log lambda: prior odds of a copy at one corner, corrected for exclusion (docs/model.md 7)."""
        if self.positions is None:
            raise ParameterError(
                "the window likelihood must be bound to a measurement first: call bind(shape)."
            )
        rate = self.expected_count / self.positions
        packing = min(rate * self.neighbourhood, _MAX_PACKING)
        return math.log(packing / self.neighbourhood) - math.log1p(-packing)

    def blank(self, tile: Tile) -> float:
        """Nats: sum of log(1 + S_0) over the owned corners of a tile, S_0 the competition when every Lambda is 0.

        S_0 depends only on how many corners are near, which the edges of the micrograph alone make differ.
        """
        reach = self.separation - 1
        extent = tile.geometry.extent(tile.micrograph_shape)
        (rows, row_counts), (columns, column_counts) = (
            np.unique(
                np.minimum(np.arange(s.start, s.stop) + reach, n - 1)
                - np.maximum(np.arange(s.start, s.stop) - reach, 0)
                + 1,
                return_counts=True,
            )
            for s, n in zip(tile.region.owned, extent, strict=True)
        )
        log_norm = np.log1p(math.exp(self.log_activity) * np.outer(rows, columns))
        return float(row_counts @ log_norm @ column_counts)

    def bind(self, shape: tuple[int, int, int]) -> WindowLikelihood:
        """The same model for a measurement of this (micrographs, rows, columns) shape."""
        check_number(self.micrographs, shape[0])
        rows, cols = self.geometry.extent(shape[1:])
        return replace(self, positions=shape[0] * rows * cols)

    def of_micrograph(self, index: int) -> WindowLikelihood:
        """The bound model of one micrograph alone: its noise level, count and corners; its transfer is left to the templates."""
        facts = self.micrographs
        if facts is None or self.positions is None:
            return self
        return replace(
            self,
            noise_std=self.noise_std * float(facts.noise_ratio[index]),
            expected_count=self.expected_count * float(facts.count_share[index]),
            positions=self.positions // len(facts),
            micrographs=None,
        )

    def with_noise_std(self, noise_std: float) -> WindowLikelihood:
        """The same model at another noise level."""
        return replace(self, noise_std=noise_std)
