"""Cache of tiles that stay on the device from one E-step to the next, if they fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....data.derived import as_stored
from ....data.tiles import Tile
from .device import Device
from .staging import Group, StagedTile, grouped, sent, shown, staged

_LOG = logging.getLogger("mtdcore.cuda")

#: Share of the memory of the card for cached tiles.
_SHARE = 0.2

_Key = Callable[[Tile], tuple[str, Any]]


@dataclass(frozen=True)
class _Kept:
    """Cached tiles as stored, in groups of one way through the E-step, with the key of every tile."""

    groups: list[list[StagedTile]]
    keys: list[Any]
    bytes: int


class Resident:
    """Pixels on the device by the identity of the tiles they came from (:class:`mtdcore.data.measurement.Tiles`)."""

    def __init__(self) -> None:
        self._kept: dict[Any, _Kept] = {}
        self._said: set[Any] = set()

    def clear(self) -> None:
        """Drop all tiles to free their memory."""
        self._kept.clear()

    def groups(
        self, device: Device, tiles: Iterable[Tile], key: _Key
    ) -> Iterator[tuple[Group, list[StagedTile]]]:
        """As :func:`staged` of :func:`grouped` tiles, but from the device if they are cached there.

        The offset of the pixels is subtracted on the device, so that cached pixels stay valid when it changes.
        """
        stored, offset = as_stored(tiles)
        identity = getattr(stored, "identity", None)
        if identity is None and not offset:
            yield from staged(device, grouped(tiles, key))
            return

        def key_of(tile: Tile) -> tuple[str, Any]:
            return key(_below(tile, offset))

        def group_of(kept: list[StagedTile]) -> tuple[Group, list[StagedTile]]:
            precision, _ = key_of(kept[0].tile)
            seen = [replace(tile, tile=_below(tile.tile, offset)) for tile in kept]
            return Group([tile.tile for tile in seen], precision), shown(device, seen, precision, offset)

        found = self._kept.get(identity)
        if found is not None:
            if found.keys == [key_of(tile.tile) for kept in found.groups for tile in kept]:
                yield from map(group_of, found.groups)
                return
            del self._kept[identity]  # their keys have changed
        copies: list[list[StagedTile]] | None = None if identity is None else []
        keys: list[Any] = []
        size = 0
        for group, arrived in sent(device, grouped(stored, key_of)):
            if copies is not None:
                keys += [key_of(tile) for tile in group.tiles]
                size += sum(t.pixels.nbytes + (0 if t.valid is None else t.valid.nbytes) for t in arrived)
                copies = self._copied(device, arrived, copies) if self._fits(device, identity, size) else None
            yield group_of(arrived)
        if copies:
            self._kept[identity] = _Kept(copies, keys, size)
            self._say(identity, len(keys), size, device.name)

    def _fits(self, device: Device, identity: Any, size: int) -> bool:
        """Whether ``size`` more bytes may stay; other measurements, and other cuts or filters of the same pixels, are evicted for them."""
        room = _SHARE * device.total_bytes() - size
        if sum(kept.bytes for kept in self._kept.values()) > room:
            for other in [i for i in self._kept if i[0] != identity[0] or i[:2] == identity[:2]]:
                del self._kept[other]
        return sum(kept.bytes for kept in self._kept.values()) <= room

    def _copied(
        self, device: Device, arrived: list[StagedTile], copies: list[list[StagedTile]]
    ) -> list[list[StagedTile]] | None:
        try:
            own = [
                StagedTile(_hollow(t.tile), t.pixels.copy(), None if t.valid is None else t.valid.copy())
                for t in arrived
            ]
        except MemoryError:
            device.release()
            return None
        return [*copies, own]

    def _say(self, identity: Any, tiles: int, size: int, name: str) -> None:
        if identity not in self._said:
            self._said.add(identity)
            _LOG.info("%s: %d tiles (%.2f GiB) stay on the device between E-steps", name, tiles, size / 2**30)


def _hollow(tile: Tile) -> Tile:
    """The tile without its pixels: the host needs only their summaries."""
    return _shadow(tile, level=tile.level, peak=tile.peak, total=tile.total)


def _below(tile: Tile, offset: float) -> Tile:
    """The tile with the summaries of its pixels minus the offset; the pixels themselves are on the device."""
    return _shadow(tile, **tile.brightness.less(offset)) if offset else tile


def _shadow(tile: Tile, **summaries: float) -> Tile:
    shadow = replace(tile, values=np.broadcast_to(np.zeros((), tile.values.dtype), tile.values.shape))
    vars(shadow).update(summaries, brightness=tile.brightness)
    return shadow
