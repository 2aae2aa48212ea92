"""Host tiles to the device through two pinned buffers: the next group is copied while the current one is processed.

Pixels are copied as stored; the device subtracts the offset and converts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...._base.typing import Array
from ....data.tiles import Tile
from .device import Device, Event

#: Bytes between the starts of two arrays in a buffer.
_ALIGNMENT = 256

#: Threads that fill a buffer: a single core is slower than the bus.
_COPY_THREADS = 4

#: Number of pixels at which a group is complete.
_GROUP_PIXELS = 1 << 24


@dataclass(frozen=True)
class StagedTile:
    """One tile on the device.

    Attributes:
        tile: the host tile.
        pixels: (h, w), invalid pixels 0; of the dtype of the tile after :func:`sent`, in the precision of the group after :func:`shown`.
        valid: (h, w) uint8, or None when every pixel is valid.
    """

    tile: Tile
    pixels: Array
    valid: Array | None


@dataclass(frozen=True)
class Group:
    """Tiles that are processed together, in one precision ("float32" or "float64")."""

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
    """A pinned buffer, its twin on the device, and the events after which they may be overwritten."""

    def __init__(self) -> None:
        self.host = np.empty(0, np.uint8)
        self.twin: Array = None
        self.uploaded: Event | None = None  # the host buffer may be written again
        self.consumed: Event | None = None  # the twin may be overwritten


def staged(device: Device, groups: Iterable[Group]) -> Iterator[tuple[Group, list[StagedTile]]]:
    """Each group with its tiles on the device, in its precision; they stay valid until the next one is asked for."""
    return ((group, shown(device, tiles, group.precision)) for group, tiles in sent(device, groups))


def shown(device: Device, tiles: list[StagedTile], precision: str, offset: float = 0.0) -> list[StagedTile]:
    """Tiles minus the offset, which is subtracted in float64 as on the host, converted to ``precision``."""
    return [replace(tile, pixels=_less(device.xp, tile, np.dtype(precision), offset)) for tile in tiles]


def _less(xp: Any, tile: StagedTile, dtype: np.dtype, offset: float) -> Array:
    stored = tile.pixels
    if offset:
        # rounded to the dtype of the tile first, as on the host
        stored = (stored.astype(np.float64) - offset).astype(stored.dtype)
        if tile.valid is not None:
            stored *= tile.valid
    return stored.astype(dtype, copy=False)


def sent(device: Device, groups: Iterable[Group]) -> Iterator[tuple[Group, list[StagedTile]]]:
    """Each group with its tiles on the device as they are stored; they stay valid until the next one is asked for."""
    slots = (_Slot(), _Slot())
    waiting: tuple[_Slot, Group, list[StagedTile]] | None = None
    with ThreadPoolExecutor(_COPY_THREADS) as copiers:
        for number, group in enumerate(groups):
            slot = slots[number % 2]
            under_way = slot, group, _send(device, slot, group, copiers)
            if waiting is not None:
                yield from _handed_over(device, *waiting)
            waiting = under_way
        if waiting is not None:
            yield from _handed_over(device, *waiting)


def _handed_over(
    device: Device, slot: _Slot, group: Group, tiles: list[StagedTile]
) -> Iterator[tuple[Group, list[StagedTile]]]:
    assert slot.uploaded is not None
    device.wait(slot.uploaded)
    yield group, tiles
    slot.consumed = device.record()


def _send(device: Device, slot: _Slot, group: Group, copiers: Executor) -> list[StagedTile]:
    dtype = group.tiles[0].values.dtype  # one dtype for the whole measurement
    places, size = _layout(group.tiles, dtype)
    if slot.uploaded is not None:
        slot.uploaded.synchronize()
    if slot.host.size < size:
        slot.host, slot.twin = device.pinned(size), device.xp.empty(size, dtype=np.uint8)
        slot.consumed = device.record()  # the new memory may still be in use by earlier work
    spread = copiers.map if len(group.tiles) > 1 else map
    list(spread(lambda tile, cut: _fill(slot.host, tile, dtype, *cut), group.tiles, places))
    slot.uploaded = device.upload(slot.host[:size], slot.twin[:size], slot.consumed)
    return [_on_device(slot.twin, tile, dtype, *cut) for tile, cut in zip(group.tiles, places, strict=True)]


def _layout(tiles: list[Tile], dtype: np.dtype) -> tuple[list[tuple[slice, slice]], int]:
    """Slices of the buffer for pixels and validity of each tile, and the total size in bytes."""
    places, end = [], 0
    for tile in tiles:
        pixels = slice(end, end + tile.values.size * dtype.itemsize)
        start = -(-pixels.stop // _ALIGNMENT) * _ALIGNMENT
        valid = slice(start, start + (0 if tile.valid is None else tile.values.size))
        end = -(-valid.stop // _ALIGNMENT) * _ALIGNMENT
        places.append((pixels, valid))
    return places, end


def _fill(buffer: np.ndarray, tile: Tile, dtype: np.dtype, pixels: slice, valid: slice) -> None:
    image = buffer[pixels].view(dtype).reshape(tile.values.shape)
    image[...] = tile.values
    if tile.valid is not None:
        image[~tile.valid] = 0
        buffer[valid].reshape(image.shape)[...] = tile.valid


def _on_device(buffer: Array, tile: Tile, dtype: np.dtype, pixels: slice, valid: slice) -> StagedTile:
    shape = tile.values.shape
    mask = None if tile.valid is None else buffer[valid].reshape(shape)
    return StagedTile(tile, buffer[pixels].view(dtype).reshape(shape), mask)
