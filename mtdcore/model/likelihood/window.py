"""The window likelihood: whole windows with local exclusion (docs/model.md 7).

Every corner x carries one log-likelihood ratio per rotation, Lambda(x, k); corners closer than the
minimum separation exclude each other. No window is cropped, so each copy is scored once and whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..._base.typing import plain
from ...data.noise import default_expected_count
from ...data.tiles import Tile, TileGeometry
from ...errors import ParameterError
from ..filters.optics import Micrographs
from ..views import Views
from .base import FLOOR, Found, Likelihood, equal_weights

#: Exclusion saturates: above this share of the close-packed density the activity would diverge.
_MAX_PACKING = 0.9

#: Side of the square of pixels that a tile reads (for a rectangular box a rectangle of this area). The halo is computed again by
#: neighbouring tiles, so larger tiles are faster, as long as the correlation maps stay in the cache.
_TILE_PIXELS = 512


@dataclass(frozen=True)
class WindowLikelihood(Likelihood):
    """Window model with local exclusion; further attributes as in :class:`Likelihood`.

    Attributes:
        expected_count: expected number of copies in the whole measurement.
        min_separation: smallest distance d (max norm, pixels) between two corners; None: box_size.
        positions: number of corners in the whole measurement, which ``expected_count`` refers to;
            None until :meth:`bind` is called (the E-step does).
        corners: numbers of corners of a micrograph along rows and columns; None until :meth:`bind` is called.
    """

    expected_count: float
    min_separation: int | None = None
    positions: int | None = None
    corners: tuple[int, int] | None = None

    localises = True
    tempered = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.expected_count) and self.expected_count > 0):
            raise ParameterError(
                f"expected_count must be a positive number of copies; got {self.expected_count}."
            )
        if self.min_separation is not None and self.min_separation < 1:
            raise ParameterError(f"min_separation must be at least 1 pixel; got {self.min_separation}.")

    @property
    def separation(self) -> int:
        """Smallest distance d between two corners in pixels (max norm)."""
        return super().separation if self.min_separation is None else self.min_separation

    @property
    def neighbourhood(self) -> int:
        """Number of corners (2d - 1)^2 that a copy excludes, including its own; along each axis at most the corners of a micrograph."""
        rows, columns = (
            min(2 * d - 1, n)
            for d, n in zip(self.separations, self.corners or (math.inf, math.inf), strict=True)
        )
        return int(rows * columns)

    @property
    def geometry(self) -> TileGeometry:
        """Tiles of window corners with the halo that their competition needs."""
        box, reaches = self.views.box_shape, [n - 1 for n in self.views.box_shape]
        halos = [max(d - 1, margin) for d, margin in zip(self.separations, self.margins, strict=True)]
        around = [2 * halo + reach for halo, reach in zip(halos, reaches, strict=True)]
        pixels = [round(_TILE_PIXELS * math.sqrt(n / m)) for n, m in (box, box[::-1])]
        sides = [max(n - a, a, 1) for n, a in zip(pixels, around, strict=True)]
        return TileGeometry(side=plain(*sides), unit=1, halo=plain(*halos), reach=plain(*reaches))

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

        S_0 depends only on the number of neighbouring corners, which is smaller near the edges of the micrograph.
        """
        extent = tile.geometry.extent(tile.micrograph_shape)
        (rows, row_counts), (columns, column_counts) = (
            np.unique(
                np.minimum(np.arange(s.start, s.stop) + d, n)
                - np.maximum(np.arange(s.start, s.stop) - d + 1, 0),
                return_counts=True,
            )
            for s, n, d in zip(tile.region.owned, extent, self.separations, strict=True)
        )
        log_norm = np.log1p(math.exp(self.log_activity) * np.outer(rows, columns))
        return float(row_counts @ log_norm @ column_counts)

    def bind(self, shape: tuple[int, int, int]) -> WindowLikelihood:
        """The same likelihood for a measurement of this (micrographs, rows, columns) shape."""
        rows, cols = self.geometry.extent(shape[1:])
        return replace(super().bind(shape), positions=shape[0] * rows * cols, corners=(rows, cols))

    def of_micrograph(self, index: int) -> WindowLikelihood:
        """The bound likelihood of one micrograph, with its own noise level, count, corners and transfer."""
        optics = self.micrographs
        if optics is None or self.positions is None:
            return self
        return replace(
            super().of_micrograph(index),
            expected_count=self.expected_count * float(optics.count_share[index]),
            positions=self.positions // len(optics),
        )

    def of_times(self, factor: float, micrographs: Micrographs | None) -> WindowLikelihood:
        """See :class:`Likelihood`; unbound, with ``factor`` times the expected count."""
        count = self.expected_count * factor
        return replace(self, expected_count=count, micrographs=micrographs, positions=None, corners=None)

    @property
    def copies(self) -> float:
        """See :class:`Likelihood`."""
        return self.expected_count

    @classmethod
    def begin(
        cls,
        views: Views,
        noise_std: float,
        shape: tuple[int, int, int],
        expected_count: float | None = None,
        min_separation: int | None = None,
        micrographs: Micrographs | None = None,
    ) -> WindowLikelihood:
        """The likelihood at the start of a run; arguments as in :func:`mtdcore.recover`."""
        if expected_count is None:
            expected_count = default_expected_count(shape, math.prod(views.box_shape))
        model = cls(views, noise_std, expected_count, min_separation, micrographs=micrographs)
        return replace(model, class_weights=equal_weights(views))

    def with_separation(self, separation: int) -> WindowLikelihood:
        """The same likelihood with another minimum separation in pixels; itself where nothing changes."""
        return self if separation == self.min_separation else replace(self, min_separation=separation)

    def updated(
        self,
        statistics: Found,
        residual_energy: Callable[[], float] | None,
        first_count: float,
        corners: float,
        early: bool,
    ) -> WindowLikelihood:
        """See :class:`Likelihood`; the count becomes the posterior expected number of copies."""
        floor = FLOOR * first_count if early else 0.0
        model = replace(self, expected_count=max(statistics.expected_count, floor, 1e-3))
        return model._common_numbers(statistics, residual_energy, corners, early)

    def evidence(self, statistics: Found) -> float:
        """See :class:`Likelihood`; the E-step sums it up as its log-likelihood (docs/model.md 7)."""
        return statistics.log_likelihood

    def entered(
        self, optics: Micrographs, ledger: np.ndarray, corners: float, learn_noise: bool
    ) -> Micrographs:
        """See :class:`Likelihood`; noise levels and counts.

        The count of a micrograph shrinks towards the mean: with an exponential prior on the expected count, n copies found give
        ``(n + 1) / (1 + 1 / mean)``. A micrograph in which none was found thus keeps a positive expected count.
        """
        seen, sites, _, _, copies = ledger.T
        mean = self.expected_count / len(optics)
        count = self.expected_count * optics.count_share
        found = copies / np.maximum(sites, 1.0) * corners  # copies and sites of a mini-batch are scaled alike
        count[seen.astype(np.int64)] = (found + 1.0) / (1.0 + 1.0 / mean)
        return replace(super().entered(optics, ledger, corners, learn_noise), count=count)


def localised(likelihood: Likelihood, expected_count: float) -> WindowLikelihood:
    """The window likelihood with the views and the numbers of any likelihood, at another count."""
    if isinstance(likelihood, WindowLikelihood):
        return replace(likelihood, expected_count=expected_count)
    return WindowLikelihood(
        likelihood.views,
        likelihood.noise_std,
        expected_count,
        class_weights=likelihood.class_weights,
        micrographs=likelihood.micrographs,
        offset=likelihood.offset,
        whitening=likelihood.whitening,
    )
