"""Tiles that stay on the device from one E-step to the next, as long as they fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....data.tiles import Tile
from .device import Device
from .staging import Group, StagedTile, grouped, staged

_LOG = logging.getLogger("mtdcore.cuda")

#: Share of the memory of the card that tiles may keep.
_SHARE = 0.2

_Key = Callable[[Tile], tuple[str, Any]]


@dataclass(frozen=True)
class _Kept:
    """The groups of one pass over some tiles, with the key of every tile: which way it went."""

    groups: list[tuple[Group, list[StagedTile]]]
    keys: list[Any]
    bytes: int


class Resident:
    """Pixels on the device by the identity of the tiles they came from (:class:`mtdcore.data.measurement.Tiles`)."""

    def __init__(self) -> None:
        self._kept: dict[Any, _Kept] = {}
        self._said: set[Any] = set()

    def clear(self) -> None:
        """Forget all: the memory is needed."""
        self._kept.clear()

    def groups(
        self, device: Device, tiles: Iterable[Tile], key: _Key
    ) -> Iterator[tuple[Group, list[StagedTile]]]:
        """Like :func:`staged` of :func:`grouped` tiles, from the device where they are there."""
        identity = getattr(tiles, "identity", None)
        kept = self._kept.get(identity)
        if kept is not None:
            if kept.keys == [key(tile) for group, _ in kept.groups for tile in group.tiles]:
                yield from kept.groups
                return
            del self._kept[identity]  # in another precision now
        copies: list[tuple[Group, list[StagedTile]]] | None = None if identity is None else []
        keys: list[Any] = []
        size = 0
        for group, sent in staged(device, grouped(tiles, key)):
            if copies is not None:
                keys += [key(tile) for tile in group.tiles]
                size += sum(t.pixels.nbytes + (0 if t.valid is None else t.valid.nbytes) for t in sent)
                copies = (
                    self._copied(device, group, sent, copies) if self._fits(device, identity, size) else None
                )
            yield group, sent
        if copies:
            self._kept[identity] = _Kept(copies, keys, size)
            self._say(identity, len(keys), size, device.name)

    def _fits(self, device: Device, identity: Any, size: int) -> bool:
        """Whether so many bytes more may stay; tiles of other measurements make room."""
        room = _SHARE * device.total_bytes() - size
        if sum(kept.bytes for kept in self._kept.values()) > room:
            for other in [i for i in self._kept if i[0] != identity[0]]:
                del self._kept[other]
        return sum(kept.bytes for kept in self._kept.values()) <= room

    def _copied(
        self,
        device: Device,
        group: Group,
        sent: list[StagedTile],
        copies: list[tuple[Group, list[StagedTile]]],
    ) -> list[tuple[Group, list[StagedTile]]] | None:
        try:
            own = [
                StagedTile(_hollow(t.tile), t.pixels.copy(), None if t.valid is None else t.valid.copy())
                for t in sent
            ]
        except MemoryError:
            device.release()
            return None
        return [*copies, (replace(group, tiles=[t.tile for t in own]), own)]

    def _say(self, identity: Any, tiles: int, size: int, name: str) -> None:
        if identity not in self._said:
            self._said.add(identity)
            _LOG.info("%s: %d tiles (%.2f GiB) stay on the device between E-steps", name, tiles, size / 2**30)


def _hollow(tile: Tile) -> Tile:
    """The tile without its pixels: their level, peak and total are all that the host still asks for."""
    shadow = replace(tile, values=np.broadcast_to(np.zeros((), tile.values.dtype), tile.values.shape))
    vars(shadow).update(level=tile.level, peak=tile.peak, total=tile.total)
    return shadow
