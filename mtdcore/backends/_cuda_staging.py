"""Host tiles to the device through two pinned buffers: the next group travels while this one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .._typing import Array
from ..likelihood import Tile
from ._cuda_device import Device, Event

#: Bytes between the starts of two arrays in a buffer.
_ALIGNMENT = 256

#: A group is closed when it holds this many pixels.
_GROUP_PIXELS = 1 << 24


@dataclass(frozen=True)
class StagedTile:
    """One tile on the device.

    Attributes:
        tile: the host tile it came from.
        pixels: (h, w) in the precision of the group, invalid pixels 0.
        valid: (h, w) uint8, or None when every pixel is valid.
    """

    tile: Tile
    pixels: Array
    valid: Array | None


@dataclass(frozen=True)
class Group:
    """Tiles that are worked on together, in one precision ("float32" or "float64")."""

    tiles: list[Tile]
    precision: str


def grouped(
    tiles: Iterable[Tile], key: Callable[[Tile], tuple[str, object]], pixels: int = _GROUP_PIXELS
) -> Iterator[Group]:
    """Consecutive tiles of one key, whose first entry is the precision, up to a number of pixels."""
    run: list[Tile] = []
    current: tuple[str, object] | None = None
    total = 0
    for tile in tiles:
        own = key(tile)
        if run and current is not None and (own != current or total + tile.values.size > pixels):
            yield Group(run, current[0])
            run, total = [], 0
        current = own
        run.append(tile)
        total += tile.values.size
    if run and current is not None:
        yield Group(run, current[0])


class _Slot:
    """A pinned buffer, its twin on the device, and who may touch them when."""

    def __init__(self) -> None:
        self.host = np.empty(0, np.uint8)
        self.twin: Array = None
        self.uploaded: Event | None = None  # the host buffer may be written again
        self.consumed: Event | None = None  # the twin may be overwritten


def staged(device: Device, groups: Iterable[Group]) -> Iterator[tuple[Group, list[StagedTile]]]:
    """Each group with its tiles on the device; they stay valid until the next one is asked for."""
    slots = (_Slot(), _Slot())
    waiting: tuple[_Slot, Group, list[StagedTile]] | None = None
    for number, group in enumerate(groups):
        slot = slots[number % 2]
        sent = slot, group, _send(device, slot, group)
        if waiting is not None:
            yield from _handed_over(device, *waiting)
        waiting = sent
    if waiting is not None:
        yield from _handed_over(device, *waiting)


def _handed_over(
    device: Device, slot: _Slot, group: Group, tiles: list[StagedTile]
) -> Iterator[tuple[Group, list[StagedTile]]]:
    assert slot.uploaded is not None
    device.wait(slot.uploaded)
    yield group, tiles
    slot.consumed = device.record()


def _send(device: Device, slot: _Slot, group: Group) -> list[StagedTile]:
    dtype = np.dtype(group.precision)
    sizes = [n for t in group.tiles for n in _parts(t, dtype)]
    starts = np.concatenate(([0], np.cumsum([-(-n // _ALIGNMENT) * _ALIGNMENT for n in sizes])))
    if slot.uploaded is not None:
        slot.uploaded.synchronize()
    if slot.host.size < starts[-1]:
        slot.host = device.pinned(int(starts[-1]))
        slot.twin = device.xp.empty(slot.host.size, dtype=np.uint8)
        slot.consumed = device.record()  # the allocator may hand out memory that earlier work still uses
    places = iter(zip(starts, sizes, strict=False))
    out = []
    for tile in group.tiles:
        shape = tile.values.shape
        cut = _range(*next(places))
        pixels = slot.host[cut].view(dtype).reshape(shape)
        pixels[...] = tile.values
        twin, mask = slot.twin[cut].view(dtype).reshape(shape), None
        if tile.valid is not None:
            cut = _range(*next(places))
            pixels[~tile.valid] = 0
            slot.host[cut].reshape(shape)[...] = tile.valid
            mask = slot.twin[cut].reshape(shape)
        out.append(StagedTile(tile, twin, mask))
    used = int(starts[-1])
    slot.uploaded = device.upload(slot.host[:used], slot.twin[:used], slot.consumed)
    return out


def _parts(tile: Tile, dtype: np.dtype) -> list[int]:
    pixels = tile.values.size * dtype.itemsize
    return [pixels] if tile.valid is None else [pixels, tile.values.size]


def _range(start: int, size: int) -> slice:
    return slice(int(start), int(start + size))
