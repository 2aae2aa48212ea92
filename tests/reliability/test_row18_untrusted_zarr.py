"""Zarr folders made to do harm (row 18): refused before a chunk is decoded, or the chunk is, before it is decompressed."""

import gzip
import json
import os
import struct
import time

import numpy as np
import pytest
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

from mtdcore.data import open_measurement
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import InputError, MtdError, StorageError

WHOLE = TileGeometry(side=64, unit=1, halo=0, reach=0)
BLOSC, ZSTD = BloscCodec(cname="lz4", typesize=4), ZstdCodec(level=1)
PIXELS = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)


def write(path, compressors=(), zarr_format=3, **options):
    stored = zarr.create_array(
        str(path),
        shape=PIXELS.shape,
        dtype="f4",
        chunks=options.pop("chunks", (1, 16, 16)),
        compressors=compressors,
        zarr_format=zarr_format,
        config={"write_empty_chunks": True},
        **options,
    )
    stored[:] = PIXELS
    return path


def read(path):
    return np.stack([tile.values for tile in open_measurement(path).tiles(WHOLE)])


@pytest.fixture
def array(tmp_path):
    return write(tmp_path / "m.zarr", (ZSTD,))


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def decode(*_, **__):
        raise AssertionError("a chunk was decoded")

    monkeypatch.setattr("mtdcore.data.zarr.stored.decode", decode)


def changed(path, name, *changes):
    metadata = json.loads((path / name).read_text())
    for keys, value in changes:
        inner = metadata
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
    (path / name).write_text(json.dumps(metadata))


V3 = {
    "pickling codec": (["codecs", 1, "name"], "numcodecs.pickle"),
    "codec of a plug-in": (["codecs", 0, "name"], "my_package.codec"),
    "no codec at all": (["codecs"], []),
    "codecs that are no list": (["codecs"], 5),
    "codec that is no object": (["codecs", 1], 7),
    "object dtype": (["data_type"], "string"),
    "structured dtype": (["data_type"], {"name": "structured", "configuration": {}}),
    "storage transformer": (["storage_transformers"], [{"name": "indirection"}]),
    "grid of another kind": (["chunk_grid", "name"], "rectilinear"),
    "names of another kind": (["chunk_key_encoding", "name"], "fanout"),
    "separator that climbs": (["chunk_key_encoding", "configuration", "separator"], "/../"),
    "huge shape": (["shape"], [2, 10**9, 10**9]),
    "negative shape": (["shape"], [2, -32, 32]),
    "fractional shape": (["shape"], [2, 32.5, 32]),
    "no axes": (["shape"], []),
    "other axes": (["shape"], [32, 32]),
    "many chunks": (["chunk_grid", "configuration", "chunk_shape"], [1, 1, 1]),
    "huge chunk": (["chunk_grid", "configuration", "chunk_shape"], [1, 1 << 20, 1 << 20]),
    "empty chunk": (["chunk_grid", "configuration", "chunk_shape"], [1, 0, 16]),
}


@pytest.mark.parametrize("case", V3)
def test_metadata_of_format_3(array, nothing_is_decoded, case):
    changed(array, "zarr.json", V3[case])
    if case == "many chunks":
        changed(array, "zarr.json", (["shape"], [2, 10**6, 10**6]))
    with pytest.raises(InputError):
        open_measurement(array)


V2 = {
    "pickle filter": (["filters"], [{"id": "pickle", "protocol": 5}]),
    "json filter": (["filters"], [{"id": "json2"}]),
    "pickle compressor": (["compressor"], {"id": "pickle"}),
    "unknown compressor": (["compressor"], {"id": "evil"}),
    "objects": (["dtype"], "|O"),
    "strings": (["dtype"], "<U8"),
    "fields": (["dtype"], [["a", "<f4"]]),
    "complex": (["dtype"], "<c8"),
    "separator": (["dimension_separator"], "/../../"),
    "shape": (["shape"], [2, 2**62, 2**62]),
    "chunks": (["chunks"], [2, 2**40, 2**40]),
}


@pytest.mark.parametrize("case", V2)
def test_metadata_of_format_2(tmp_path, nothing_is_decoded, case):
    path = write(tmp_path / "m.zarr", zarr_format=2)
    changed(path, ".zarray", V2[case])
    with pytest.raises(InputError):
        open_measurement(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"zarr_format": 3}',
        b'{"a": ' * 50_000,
        b"\xff\xfe",
        b"1e999",
    ],
    ids=range(9),
)
@pytest.mark.parametrize("name", ["zarr.json", ".zarray"])
def test_metadata_that_are_none(array, nothing_is_decoded, name, content):
    (array / "zarr.json").unlink()
    (array / name).write_bytes(content)
    with pytest.raises(InputError):
        open_measurement(array)


def test_metadata_too_large_to_be_any(array):
    with open(array / "zarr.json", "ab") as file:
        file.truncate(1 << 33)
    with pytest.raises(InputError, match="make sense"):
        open_measurement(array)


def pointing_at(target, place):
    place.unlink()
    place.symlink_to(target)


@pytest.mark.parametrize(
    "where", ["file outside", "device", "endless device", "folder", "itself", "pipe", "huge file"]
)
def test_names_that_lead_elsewhere(array, tmp_path, where):
    chunk = array / "c" / "0" / "0" / "0"
    (tmp_path / "secret").write_bytes(chunk.read_bytes())
    match where:
        case "file outside":
            pointing_at(tmp_path / "secret", chunk)
        case "device":
            pointing_at("/dev/null", chunk)
        case "endless device":
            pointing_at("/dev/zero", chunk)
        case "folder":
            pointing_at(array, chunk)
        case "itself":
            pointing_at(chunk, chunk)
        case "pipe":
            chunk.unlink()
            os.mkfifo(chunk)
        case "huge file":
            os.truncate(chunk, 1 << 40)
    started = time.monotonic()
    with pytest.raises(MtdError, match="c/0/0/0") as caught:
        read(array)
    assert isinstance(caught.value, StorageError) or "1 bad chunk" in str(caught.value)
    assert time.monotonic() - started < 5


def test_metadata_that_are_a_link_or_a_pipe(array, tmp_path):
    metadata = array / "zarr.json"
    (tmp_path / "elsewhere.json").write_bytes(metadata.read_bytes())
    pointing_at(tmp_path / "elsewhere.json", metadata)
    with pytest.raises(InputError, match="leads out"):
        open_measurement(array)
    metadata.unlink()
    os.mkfifo(metadata)
    with pytest.raises(InputError, match="no regular file"):
        open_measurement(array)


def test_a_whole_array_may_be_a_link(array, tmp_path):
    (tmp_path / "link.zarr").symlink_to(array)
    assert np.array_equal(read(tmp_path / "link.zarr"), PIXELS)


def blosc_header(**fields):
    values = {
        "version": 2,
        "versionlz": 1,
        "flags": 0x21,
        "typesize": 4,
        "nbytes": 1024,
        "blocksize": 1024,
    } | fields
    return lambda content: (
        struct.pack("<BBBBIII", *values.values() if "cbytes" in values else (*values.values(), len(content)))
        + content[16:]
    )


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
CHUNKS = {
    "blosc bomb": (BLOSC, blosc_header(nbytes=2**31 - 1)),
    "blosc length": (BLOSC, blosc_header(cbytes=2**31 - 1)),
    "blosc blocks": (BLOSC, blosc_header(blocksize=0)),
    "blosc block": (BLOSC, blosc_header(blocksize=2**31 - 1)),
    "blosc cut": (BLOSC, lambda content: content[:15]),
    "zstd bomb": (ZSTD, lambda content: ZSTD_MAGIC + b"\xe0" + struct.pack("<Q", 1 << 40) + content[8:]),
    "zstd of unknown size": (ZSTD, lambda content: ZSTD_MAGIC + b"\x00\x58" + content[8:]),
    "zstd of something else": (ZSTD, lambda content: b"MZ" + content[2:]),
    "gzip bomb": (GzipCodec(), lambda content: gzip.compress(bytes(100 << 20))),
    "gzip of something else": (GzipCodec(), lambda content: b"PK\x03\x04" + content),
    "too long": (None, lambda content: content + b"more"),
    "too short": (None, lambda content: content[:-1]),
}


@pytest.mark.parametrize("case", CHUNKS)
def test_crafted_chunks(tmp_path, case):
    codec, craft = CHUNKS[case]
    path = write(tmp_path / "m.zarr", () if codec is None else (codec,))
    assert np.array_equal(read(path), PIXELS)
    chunk = path / "c" / "1" / "0" / "1"
    chunk.write_bytes(craft(chunk.read_bytes()))
    with pytest.raises(InputError, match="1 bad chunk"):
        read(path)


def test_streamed_zstandard_is_read_and_held_to_the_size_of_its_chunk(tmp_path):
    """A frame that does not state its size, as TensorStore writes them: here of one raw block, or two."""

    def frame(*blocks):
        """RFC 8878: no content size, a window of 2 KiB, then blocks with their lengths in bits 3 to 23."""
        last = len(blocks) - 1
        lengths = ((len(block) << 3 | (i == last)).to_bytes(3, "little") for i, block in enumerate(blocks))
        return ZSTD_MAGIC + b"\x00\x08" + b"".join(a + b for a, b in zip(lengths, blocks, strict=True))

    path = write(tmp_path / "m.zarr", (ZSTD,))
    chunk, pixels = path / "c" / "1" / "0" / "1", PIXELS[1, :16, 16:].tobytes()
    for honest in (frame(pixels), frame(pixels[:100], pixels[100:])):
        chunk.write_bytes(honest)
        assert np.array_equal(read(path), PIXELS)
    repeated = ZSTD_MAGIC + b"\x00\x38" + (1 << 20 | 3).to_bytes(3, "little") + b"\x00"  # 128 KiB of one byte
    for other in (frame(pixels[:-4]), frame(pixels, b"more"), frame(pixels)[:-1], repeated):
        chunk.write_bytes(other)
        with pytest.raises(InputError, match="1 bad chunk"):
            read(path)


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("sharded", [False, True], ids=["plain", "sharded"])
def test_axes_in_another_order(tmp_path, order, sharded):
    path, codecs = tmp_path / "m.zarr", [TransposeCodec(order=order), BytesCodec(endian="big"), ZSTD]
    inner = ShardingCodec(chunk_shape=(1, 16, 8), codecs=codecs)
    chunks, filters, rest = (
        ((1, 16, 8), codecs[:1], codecs[1:]) if not sharded else ((1, 32, 32), None, [inner])
    )
    write(path, tuple(rest[1:]), chunks=chunks, filters=filters, serializer=rest[0])
    assert np.array_equal(read(path), PIXELS)


def test_format_2_in_the_order_of_fortran(tmp_path):
    path = write(tmp_path / "m.zarr", None, zarr_format=2, order="F", chunks=(1, 16, 8))
    assert json.loads((path / ".zarray").read_text())["order"] == "F"
    assert np.array_equal(read(path), PIXELS)


@pytest.mark.parametrize(
    "entry", [(1 << 63, 100), (0, 1 << 62), (1 << 40, 1024), (0, 4), (2**64 - 2, 2**64 - 2)], ids=str
)
def test_a_shard_index_that_points_elsewhere(tmp_path, entry):
    codec = ShardingCodec(chunk_shape=(1, 16, 16), codecs=[BytesCodec(), BLOSC])
    path = write(tmp_path / "m.zarr", None, chunks=(1, 32, 32), serializer=codec)
    assert np.array_equal(read(path), PIXELS)
    shard = path / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    from google_crc32c import value

    index = bytearray(content[-68:-4])
    index[:16] = struct.pack("<QQ", *entry)
    shard.write_bytes(bytes(content[:-68]) + bytes(index) + struct.pack("<I", value(bytes(index))))
    with pytest.raises(InputError, match="bad chunk"):
        read(path)


@pytest.mark.parametrize(
    "compressors", [(), (BLOSC,), (ZSTD,), (GzipCodec(),), (BLOSC, Crc32cCodec()), (Crc32cCodec(),)], ids=str
)
def test_what_honest_writers_make_is_read(tmp_path, compressors):
    assert np.array_equal(read(write(tmp_path / "3.zarr", compressors)), PIXELS)


def test_what_honest_writers_make_in_format_2_is_read(tmp_path):
    import numcodecs

    for number, codec in enumerate(
        [None, numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib(), numcodecs.LZ4()]
    ):
        path = write(tmp_path / f"{number}.zarr", codec, zarr_format=2)
        assert np.array_equal(read(path), PIXELS)
