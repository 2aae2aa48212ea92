"""Double-buffered uploads: what arrives is what was sent, however late the copies run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtdcore.data.tiles import Region, Tile, TileGeometry
from mtdcore.estep.backends.cuda.staging import Group, grouped, staged


def _tile(number: int, masked: bool) -> Tile:
    rng = np.random.default_rng(number)
    shape = (3 + number % 4, 5 + number % 3)
    valid = rng.random(shape) > 0.3 if masked else None
    values = rng.normal(size=shape)
    values[~valid if valid is not None else np.zeros(shape, bool)] = np.nan
    whole = slice(0, shape[0]), slice(0, shape[1])
    values.flags.writeable = False
    geometry = TileGeometry(side=max(shape), unit=1, halo=0, reach=0)
    return Tile(values, valid, Region(whole, whole), number, shape, geometry)


@pytest.mark.parametrize("sizes", [[1], [3], [1, 2, 3, 4, 5], [9, 1, 9, 1, 1, 9]])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_tile_arrives(host_device: Any, sizes: list[int], precision: str) -> None:
    numbers = iter(range(sum(sizes)))
    groups = [
        Group([_tile(n, n % 3 == 1) for n, _ in zip(numbers, range(size), strict=False)], precision)
        for size in sizes
    ]
    arrived = 0
    for group, tiles in staged(host_device, iter(groups)):
        assert group is groups[arrived]
        for sent, tile in zip(tiles, group.tiles, strict=True):
            assert sent.tile is tile
            assert sent.pixels.dtype == precision
            expected = tile.values if tile.valid is None else np.where(tile.valid, tile.values, 0)
            np.testing.assert_array_equal(sent.pixels, expected.astype(precision))
            assert (sent.valid is None) == (tile.valid is None)
            if tile.valid is not None:
                np.testing.assert_array_equal(sent.valid, tile.valid)
        arrived += 1
    assert arrived == len(groups)


def test_the_next_group_is_sent_before_this_one_is_handed_over(host_device: Any) -> None:
    events = []
    upload, wait = host_device.upload, host_device.wait
    host_device.upload = lambda *a: events.append("send") or upload(*a)
    host_device.wait = lambda e: events.append("wait") or wait(e)
    for _ in staged(host_device, (Group([_tile(n, False)], "float32") for n in range(3))):
        events.append("work")
    assert events == ["send", "send", "wait", "work", "send", "wait", "work", "wait", "work"]


def test_groups_close_at_a_number_of_pixels_or_another_key() -> None:
    tiles = [_tile(0, False)] * 5  # 15 pixels each
    keys = iter([("float32", 1)] * 3 + [("float64", 1)] + [("float64", 2)])
    groups = list(grouped(tiles, lambda _: next(keys), pixels=30))
    assert [(len(g.tiles), g.precision) for g in groups] == [
        (2, "float32"),
        (1, "float32"),
        (1, "float64"),
        (1, "float64"),
    ]
    assert [len(g.tiles) for g in grouped(tiles[:1], lambda _: ("float32", 0), pixels=1)] == [1]
    assert list(grouped([], lambda _: ("float32", 0))) == []
