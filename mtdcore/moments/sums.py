"""Moments of a measurement up to the third order, as additive sums (docs/model.md 16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .._base.records import Sealed
from ..errors import ParameterError

#: Fields that two sums must share to be added, and fields that ``+`` adds.
_SHARED = ("box_shape", "reach", "shape", "offset")
_SUMMED = ("total", "pixels", "pairs", "pair_counts", "triples", "triple_counts")


@dataclass(frozen=True)
class Moments(Sealed):
    """Sums over the valid pixels, pairs and triples of pixels of a measurement less ``offset``.

    A triple is a pixel x, another at x + e, a third at x + q. The *edges* e are half of the lags up to ``reach``, since the
    other half gives the same triples; q are all lags of the box. ``pairs[i, j]`` belongs to the lag (i - h + 1, j - w + 1),
    and so do the last two axes of ``triples``.

    Attributes:
        box_shape: (h, w) of the box in pixels.
        reach: largest edge along rows and along columns.
        shape: (micrographs, H, W) of the measurement.
        offset: value near the mean that was subtracted from every pixel, in the units of the measurement.
        total: sum of the pixels.
        pixels: number of valid pixels.
        pairs: (2 h - 1, 2 w - 1) float64, sums of products.
        pair_counts: the same shape, number of valid pairs.
        triples: (E, 2 h - 1, 2 w - 1) float64, sums of products, E edges as :func:`edges_within` lists them.
        triple_counts: the same shape, number of valid triples.
    """

    box_shape: tuple[int, int]
    reach: tuple[int, int]
    shape: tuple[int, int, int]
    offset: float
    total: float
    pixels: float
    pairs: np.ndarray
    pair_counts: np.ndarray
    triples: np.ndarray
    triple_counts: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        mine, theirs = ([getattr(one, name) for name in _SHARED] for one in (self, other))
        if mine != theirs:
            raise ParameterError(
                f"moments add only when {', '.join(_SHARED)} agree; got {mine} and {theirs}: measure both with the same."
            )
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in _SUMMED})

    @property
    def edges(self) -> np.ndarray:
        """(E, 2) int64, the edges."""
        return edges_within(self.reach)

    @property
    def first(self) -> float:
        """Mean of the measurement, including its offset."""
        return self.offset + self.total / self.pixels

    @property
    def second(self) -> np.ndarray:
        """(2 h - 1, 2 w - 1): mean product of two centred pixels, including the noise at lag 0; NaN at lags without a pair."""
        return _mean(self.pairs, self.pair_counts) - (self.first - self.offset) ** 2

    @property
    def third(self) -> np.ndarray:
        """(E, 2 h - 1, 2 w - 1): mean product of three centred pixels, to which white noise adds nothing.

        NaN for lags without a triple, or with two pixels farther apart than a box.
        """
        height, width = self.box_shape
        mean, pairs = self.first - self.offset, np.full((4 * height - 3, 4 * width - 3), np.nan)
        pairs[height - 1 : 3 * height - 2, width - 1 : 3 * width - 2] = _mean(self.pairs, self.pair_counts)
        found = _mean(self.triples, self.triple_counts) + 2.0 * mean**3
        rows, columns = 2 * height - 2, 2 * width - 2  # the index of lag (0, 0)
        for one, (down, right) in zip(found, self.edges, strict=True):
            beside = [
                pairs[first : first + 2 * height - 1, second : second + 2 * width - 1]
                for first, second in (
                    (rows - height + 1, columns - width + 1),
                    (rows - height + 1 - down, columns - width + 1 - right),
                )
            ]
            one -= mean * (beside[0] + beside[1] + pairs[rows + down, columns + right])
        return found

    def record(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(JSON-able values, arrays by name)."""
        names = ("pairs", "pair_counts", "triples", "triple_counts")
        values = {name: getattr(self, name) for name in (*_SHARED, "total", "pixels")}
        return values, {name: np.ascontiguousarray(getattr(self, name)) for name in names}

    @classmethod
    def from_record(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The moments from the output of :meth:`record`."""
        fields = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()} | dict(arrays)
        found = cls(**fields)
        lags = (2 * found.box_shape[0] - 1, 2 * found.box_shape[1] - 1)
        shapes = {"pairs": lags, "triples": (len(found.edges), *lags)}
        for name, shape in shapes.items():
            for array in (getattr(found, name), getattr(found, f"{name.removesuffix('s')}_counts")):
                if array.shape != shape or array.dtype != np.float64:
                    raise ValueError(f"{name} should be float64 of shape {shape}; found {array.shape}")
        return found


def edges_within(reach: tuple[int, int]) -> np.ndarray:
    """(E, 2) int64: (0, 0) and one of each pair of opposite lags of at most ``reach``: the lag that points down, or right along a row."""
    rows, columns = reach
    return np.array(
        [(r, c) for r in range(rows + 1) for c in range(-columns, columns + 1) if r > 0 or c >= 0]
    )


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means; NaN where the count is 0."""
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))
