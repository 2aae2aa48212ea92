"""Zarr measurements: nothing missing or damaged is read as pixels, each chunk is decoded about once."""

import os
import subprocess
import sys

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from mtdcore.data import open_measurement
from mtdcore.data.tiles import TileGeometry
from mtdcore.data.zarr.measurement import ZarrMeasurement
from mtdcore.data.zarr.stored import StoredArray
from mtdcore.errors import InputError, StorageError

WINDOWS = TileGeometry(side=24, unit=1, halo=5, reach=3)
SHAPE = (2, 64, 80)
CHUNKS = (1, 16, 16)
SHARDS = (1, 32, 48)


def write(path, sharded=False, shape=SHAPE, **options):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    options = {
        "chunks": CHUNKS,
        "compressors": (Crc32cCodec(),),
        "shards": SHARDS if sharded else None,
    } | options
    stored = zarr.create_array(
        str(path), shape=shape, dtype="f4", config={"write_empty_chunks": True}, **options
    )
    stored[:] = array
    return array


def read(measurement):
    """The whole measurement back from its tiles, NaN where invalid."""
    out = np.full(measurement.shape, np.nan, measurement.dtype)
    for tile in measurement.tiles(WINDOWS):
        values = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
        out[tile.micrograph][tile.region.read] = values
    return out


def damage(path, how):
    content = path.read_bytes()
    if how == "removed":
        path.unlink()
    elif how == "flipped":
        path.write_bytes(content[:100] + bytes([content[100] ^ 4]) + content[101:])
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "zeroed":
        path.write_bytes(content[:64] + bytes(512) + content[576:])


HOW = ["removed", "flipped", "truncated", "emptied", "zeroed"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("sharded", [False, True], ids=["plain", "sharded"])
def test_bad_chunks_are_named_or_masked(tmp_path, sharded, how):
    path = tmp_path / "m.zarr"
    array = write(path, sharded)
    for key in ("c/0/1/0", "c/1/0/1"):
        damage(path / key, how)
    with pytest.raises(InputError, match="bad chunk") as caught:
        read(open_measurement(path))
    assert "c/0/1/0" in str(caught.value)
    assert "c/1/0/1" in str(caught.value)
    assert ("missing" in str(caught.value)) == (how == "removed")

    measurement = open_measurement(path, skip_bad=True)
    found = read(measurement)
    bad = np.zeros(SHAPE, bool)
    for chunk in measurement.bad_chunks:
        bad[chunk.micrograph, slice(*chunk.rows), slice(*chunk.columns)] = True
        assert chunk.key in ("c/0/1/0", "c/1/0/1")
    assert bad.any()
    assert np.array_equal(found[~bad], array[~bad])
    assert np.isnan(found[bad]).all()
    assert measurement.bad_chunks == measurement.find_bad_chunks()
    if not sharded:
        assert bad.sum() == 2 * 256


@pytest.mark.parametrize("location", ["start", "end"])
def test_inner_chunks_never_written_are_missing(tmp_path, location):
    path = tmp_path / "m.zarr"
    codec = ShardingCodec(chunk_shape=CHUNKS, codecs=[BytesCodec(), Crc32cCodec()], index_location=location)
    stored = zarr.create_array(
        str(path), shape=SHAPE, dtype="f4", chunks=SHARDS, serializer=codec, compressors=None, fill_value=0
    )
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    array[1, 16:32, 32:48] = 0  # an inner chunk equal to the fill value: zarr leaves it out
    stored[:] = array
    assert (zarr.open_array(str(path))[1, 16:32, 32:48] == 0).all()
    with pytest.raises(InputError, match="rows 16:32, columns 32:48"):
        read(open_measurement(path))
    measurement = open_measurement(path, skip_bad=True)
    found = read(measurement)
    assert np.isnan(found[1, 16:32, 32:48]).all()
    assert np.isnan(found).sum() == 256
    assert [chunk.reason for chunk in measurement.bad_chunks] == ["missing"]


def test_format_2_chunks_that_are_missing(tmp_path):
    path = tmp_path / "m.zarr"
    write(path, zarr_format=2, compressors=None)
    (path / "0.3.4").unlink()
    with pytest.raises(InputError, match=r"0\.3\.4 \[micrograph 0, rows 48:64, columns 64:80\] missing"):
        read(open_measurement(path))


def test_a_chunk_lost_while_reading_is_noticed(tmp_path):
    path = tmp_path / "m.zarr"
    write(path)
    tiles = open_measurement(path).tiles(WINDOWS)
    next(tiles)
    for chunk in (path / "c" / "1").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with pytest.raises(InputError, match="missing"):
        list(tiles)


def test_an_unreadable_file_is_a_storage_error(tmp_path, monkeypatch):
    path = tmp_path / "m.zarr"
    write(path)
    original = os.open

    def fails(name, *rest, **more):
        if str(name).endswith("c/1/0/0"):
            raise OSError(5, "Input/output error")
        return original(name, *rest, **more)

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(StorageError, match=r"c/1/0/0 .* Input/output error"):
        read(open_measurement(path, skip_bad=True))


@pytest.mark.parametrize("checksum", [(), (Crc32cCodec(),)], ids=["bare", "crc32c"])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("dtype", ["float32", "int16", "float64"])
@pytest.mark.parametrize("shape", [(70, 50), (2, 33, 47)])
def test_chunks_that_need_no_decoding_are_what_zarr_reads(tmp_path, shape, dtype, endian, checksum):
    array = (100 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    options = {
        "serializer": BytesCodec(endian=endian),
        "compressors": checksum,
        "chunks": CHUNKS[-len(shape) :],
    }
    zarr.create_array(str(tmp_path / "m"), shape=shape, dtype=dtype, **options)[:] = array
    assert StoredArray.open(tmp_path / "m").layout.dtype == np.dtype(dtype).newbyteorder(endian)
    measurement = open_measurement(tmp_path / "m")
    assert np.array_equal(read(measurement).reshape(shape), array)


def test_parts_share_what_they_skipped(tmp_path):
    path = tmp_path / "m.zarr"
    write(path)
    (path / "c/1/3/4").unlink()
    whole = open_measurement(path, skip_bad=True)
    for part in whole.split(3):
        list(part.tiles(WINDOWS))
    assert [chunk.key for chunk in whole.bad_chunks] == ["c/1/3/4"]


def test_a_measurement_that_changed_shape_is_refused(tmp_path):
    path = tmp_path / "m.zarr"
    write(path)
    measurement = open_measurement(path)
    zarr.open_array(str(path), mode="r+").resize((2, 64, 64))
    with pytest.raises(InputError, match="changed from shape"):
        read(measurement)


def test_folders_that_are_no_usable_array(tmp_path):
    zarr.create_group(str(tmp_path / "group.zarr"))
    write(tmp_path / "damaged.zarr")
    (tmp_path / "damaged.zarr" / "zarr.json").write_text("{")
    for name in ("group.zarr", "damaged.zarr"):
        with pytest.raises(InputError, match="folder of a Zarr array"):
            open_measurement(tmp_path / name)
    zarr.create_array(str(tmp_path / "text.zarr"), shape=(4, 4), dtype="bool")
    with pytest.raises(InputError, match="bool"):
        open_measurement(tmp_path / "text.zarr")
    inner = ShardingCodec(chunk_shape=(1, 8, 8), codecs=[BytesCodec()])
    outer = ShardingCodec(chunk_shape=(1, 16, 16), codecs=[inner])
    zarr.create_array(
        str(tmp_path / "nested.zarr"),
        shape=(1, 32, 32),
        dtype="f4",
        chunks=(1, 32, 32),
        serializer=outer,
        compressors=None,
    )
    with pytest.raises(InputError, match="shards inside shards"):
        open_measurement(tmp_path / "nested.zarr")


@pytest.mark.parametrize("cache_chunks", [0, 6, 100])
def test_any_cache_gives_the_same_pixels(tmp_path, monkeypatch, cache_chunks):
    path = tmp_path / "m.zarr"
    array = write(path)
    reads = []
    original = StoredArray.read
    monkeypatch.setattr(StoredArray, "read", lambda self, *args: reads.append(args) or original(self, *args))
    assert np.array_equal(read(ZarrMeasurement(path, cache_bytes=cache_chunks * 1024)), array)
    if cache_chunks == 100:
        assert len(reads) == 2 * 4 * 5  # each chunk once
    else:
        assert len(reads) > 2 * 4 * 5


def test_importing_the_engine_does_not_import_zarr():
    code = "import sys, mtdcore; sys.exit('zarr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_does_not_grow_with_the_measurement(peak_memory, tmp_path):
    script = """
import sys
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.data import open_measurement
for tile in open_measurement(sys.argv[1]).tiles(WindowLikelihood(Rotations(4, 28), 1.0, 10).geometry):
    pass
"""

    def peak(height):
        path = tmp_path / f"{height}.zarr"
        stored = zarr.create_array(
            str(path), shape=(1, height, 4096), dtype="f4", chunks=(1, 256, 1024), compressors=(Crc32cCodec(),),
            config={"write_empty_chunks": True},
        )  # fmt: skip
        stored[:] = 1
        return peak_memory(script, path, env=os.environ | {"OMP_NUM_THREADS": "1"}) / 2**20

    assert peak(4096) - peak(1536) < 12  # 64 and 24 MiB of pixels


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_an_array_without_pixels_opens_as_one_in_memory_does(tmp_path, shape):
    zarr.create_array(tmp_path / "m.zarr", shape=shape, chunks=(4, 4), dtype="float32")
    assert (
        open_measurement(tmp_path / "m.zarr").shape == open_measurement(np.zeros(shape)).shape == (1, *shape)
    )
