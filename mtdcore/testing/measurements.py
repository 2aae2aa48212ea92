"""Conformance tests of measurements."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pytest

from ..data import Measurement
from ..data.tiles import Tile, TileGeometry


class MeasurementConformance(ABC):
    """A kind of measurement yields the pixels it was made from."""

    #: Windows of 5 x 5 with a halo: tiles overlap, the last ones are smaller.
    geometry = TileGeometry(side=8, unit=1, halo=3, reach=4)

    @abstractmethod
    def make_measurement(self, array: np.ndarray) -> Measurement:
        """A measurement with these (micrographs, H, W) pixels."""

    @pytest.fixture
    def pixels(self) -> np.ndarray:
        """(2, 21, 34) float32 pixels."""
        return np.random.default_rng(0).normal(size=(2, 21, 34)).astype(np.float32)

    def test_tiles_are_the_pixels(self, pixels: np.ndarray) -> None:
        """In the fixed order, with no pixel marked invalid."""
        measurement = self.make_measurement(pixels)
        assert measurement.shape == pixels.shape
        assert measurement.dtype == np.float32
        expected = [(m, region) for m in range(2) for region in self.geometry.regions(pixels.shape[1:])]
        tiles = list(measurement.tiles(self.geometry))
        assert measurement.tile_count(self.geometry) == len(tiles) == len(expected)
        for tile, (micrograph, region) in zip(tiles, expected, strict=True):
            assert (tile.micrograph, tile.region) == (micrograph, region)
            assert tile.micrograph_shape == pixels.shape[1:]
            assert tile.valid is None
            assert tile.values.flags.c_contiguous
            np.testing.assert_array_equal(tile.values, pixels[micrograph][region.read])

    def test_tiles_are_fresh(self, pixels: np.ndarray) -> None:
        """Writing to a tile changes nothing."""
        measurement = self.make_measurement(pixels.copy())
        for tile in measurement.tiles(self.geometry):
            tile.values[:] = 0
        for tile in measurement.tiles(self.geometry):
            np.testing.assert_array_equal(tile.values, pixels[tile.micrograph][tile.region.read])

    def test_pixels_that_are_not_finite_are_invalid(self, pixels: np.ndarray) -> None:
        """Marked, and set to zero."""
        pixels[1, 3, 4], pixels[1, 5, 6] = np.nan, -np.inf
        tiles = list(self.make_measurement(pixels).tiles(self.geometry))
        for tile in tiles:
            expected = pixels[tile.micrograph][tile.region.read]
            good = np.isfinite(expected)
            assert (tile.valid is None) == good.all()
            np.testing.assert_array_equal(tile.values, np.where(good, expected, 0))
            if tile.valid is not None:
                np.testing.assert_array_equal(tile.valid, good)
        assert any(tile.valid is not None for tile in tiles)

    @pytest.mark.parametrize("parts", [1, 2, 3, 50])
    @pytest.mark.parametrize("pickled", [False, True])
    def test_parts_are_the_whole(self, pixels: np.ndarray, parts: int, pickled: bool) -> None:
        """The tiles of the parts, one after another, also of pickled parts."""
        whole = self.make_measurement(pixels)
        pieces = whole.split(parts)
        assert len(pieces) == parts
        if pickled:
            pieces = pickle.loads(pickle.dumps(pieces))
        assert all(piece.shape == whole.shape for piece in pieces)
        _assert_same_tiles(
            (tile for piece in pieces for tile in piece.tiles(self.geometry)), whole.tiles(self.geometry)
        )
        counts = [piece.tile_count(self.geometry) for piece in pieces]
        assert counts == [sum(1 for _ in piece.tiles(self.geometry)) for piece in pieces]
        assert max(counts) - min(counts) <= 1

    def test_a_part_splits_again(self, pixels: np.ndarray) -> None:
        """Splitting twice is splitting finer."""
        whole = self.make_measurement(pixels)
        finer = [piece for half in whole.split(2) for piece in half.split(2)]
        _assert_same_tiles(
            (tile for piece in finer for tile in piece.tiles(self.geometry)), whole.tiles(self.geometry)
        )


def _assert_same_tiles(actual: Iterator[Tile], expected: Iterator[Tile]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert (a.micrograph, a.region) == (b.micrograph, b.region)
        np.testing.assert_array_equal(a.values, b.values)
