"""Compressed chunks: what mtdcore writes, and which headers it believes."""

import struct

import numpy as np
import pytest

from mtdcore.data import open_measurement
from mtdcore.data.tiles import TileGeometry
from mtdcore.data.zarr.codecs import check_size
from mtdcore.data.zarr.guard import ChunkDamaged
from mtdcore.data.zarr.store import creating

SIZE = 4096


def header(block, size=SIZE, compressed=16):
    """The 16 bytes of a Blosc chunk: versions, flags, size of a number, then three lengths."""
    return struct.pack("<BBBBIII", 2, 1, 0x21, 4, size, block, compressed)


@pytest.mark.parametrize("block", [1, SIZE - 1, SIZE])
def test_blocks_up_to_the_chunk_are_believed(block):
    check_size("blosc", header(block), SIZE)


@pytest.mark.parametrize("block", [0, SIZE + 1, 2**32 - 1])
def test_a_block_of_nothing_or_beyond_the_chunk_is_damage(block):
    with pytest.raises(ChunkDamaged, match="Blosc header"):
        check_size("blosc", header(block), SIZE)


@pytest.mark.parametrize("compressed", [15, 17])
def test_a_chunk_of_another_length_than_it_says_is_damage(compressed):
    with pytest.raises(ChunkDamaged, match="Blosc header"):
        check_size("blosc", header(SIZE, compressed=compressed), SIZE)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16"])
def test_written_chunks_are_shuffled_by_the_size_of_their_numbers(tmp_path, dtype):
    """Blosc brings equal bytes of neighbouring numbers together, which is what compresses them."""
    pixels = np.random.default_rng(0).integers(0, 9, size=(1, 300, 200)).astype(dtype)
    path = tmp_path / "m.zarr"
    with creating(path, pixels.shape, pixels.dtype, {}, "lz4") as (array, _):
        array[:] = pixels
    raw = (path / "c" / "0" / "0" / "0").read_bytes()
    _, _, flags, width, size, block, compressed = struct.unpack_from("<BBBBIII", raw)
    assert width == pixels.dtype.itemsize
    assert flags & 1  # bytes are shuffled
    assert size == 256 * 200 * pixels.dtype.itemsize
    assert 0 < block <= size
    assert compressed == len(raw) - 4  # and a checksum
    assert compressed < size / 2
    (tile,) = open_measurement(path).tiles(TileGeometry(side=300, unit=1, halo=0, reach=0))
    assert np.array_equal(tile.values, pixels[0])
