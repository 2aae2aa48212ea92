"""What is checked about a Zarr array before any of it is decoded: nothing in a folder may run code, reach outside it, or
make the reader allocate more than its chunks can hold. Needs no zarr.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, StorageError

#: Codecs that only rearrange bytes. Others (pickle, JSON, code of installed plug-ins) are never loaded.
COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4")
_CODECS = ("bytes", "transpose", "crc32c", "sharding_indexed", *COMPRESSORS[:3])

#: The file beside the chunks that holds their digests, see :mod:`mtdcore.data.zarr.digests`.
DIGESTS = "digests.npz"

MAX_METADATA_BYTES, _MAX_CHUNK_BYTES = 16 << 20, 1 << 30

#: Largest number of chunks and of pixels along one axis: a micrograph of 10^12 pixels.
_MAX_CHUNKS, _MAX_SIDE = 1 << 24, 1 << 24

#: More than any codec adds to a chunk that it cannot compress.
_OVERHEAD = 1 << 16

_V2_DTYPE = re.compile(r"[<>|]([iu][1248]|f[248])")


class ChunkMissing(Exception):
    """The chunk is not in the store."""


class ChunkDamaged(Exception):
    """The chunk is in the store and cannot be decoded (checksum, truncation)."""


@dataclass(frozen=True)
class Encoding:
    """How the chunks of an array become bytes.

    Attributes:
        size: bytes of one decoded chunk (of a sharded array: of an inner chunk).
        codecs: names of the bytes-to-bytes codecs in the order of encoding.
        plain: dtype of chunks that are their pixels in C order and at most a crc32c, as mtdcore writes them without
            compression; None: zarr has to decode them.
        digest_file: name of the file of digests that the attributes announce; None: there is none.
        nested: whether chunks lie in folders, ``0/1``, although the metadata of format 2 do not say so, as some writers leave it.
    """

    size: int
    codecs: tuple[str, ...]
    plain: np.dtype | None
    digest_file: str | None
    nested: bool = False

    @property
    def largest(self) -> int:
        """More bytes than an honest chunk has on disk."""
        return 2 * self.size + _OVERHEAD

    def check(self, raw: bytes) -> None:
        """Raise ChunkDamaged unless these bytes say that they decode to one chunk, before they are decoded."""
        expected, compressor = self.size, None
        for name in self.codecs:
            if name in COMPRESSORS:
                compressor = name
            elif compressor is None:
                expected += 4
            else:
                raw = raw[:-4]
        found = len(raw) if compressor is None else _decoded_size(compressor, raw, expected)
        if found != expected:
            raise ChunkDamaged(f"it holds {found} bytes of pixels and checksum instead of {expected}")


def read_encoding(root: Path) -> Encoding:
    """Check the metadata of the array in a folder against what mtdcore decodes.

    Raises:
        InputError: no array, a codec that is not on the list, or a shape, chunk or dtype that makes no sense.
        StorageError: the metadata cannot be read.
    """
    parsers = {"zarr.json": _version_3, ".zarray": _version_2}
    name = next((name for name in parsers if (root / name).exists()), None)
    if name is None:
        raise InputError(
            f"{root} should be the folder of a Zarr array (format 2 or 3); it has no zarr.json or .zarray."
        )
    try:
        metadata = json.loads(read_inside(root, name, MAX_METADATA_BYTES))
        return parsers[name](root, metadata)
    except (InputError, StorageError):
        raise
    except (
        ChunkDamaged,
        ChunkMissing,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:  # what the parsers meet in metadata of another shape
        raise InputError(
            f"{root} should be the folder of a Zarr array (format 2 or 3); its {name} is damaged: "
            f"{type(error).__name__}: {error}."
        ) from error


def read_inside(root: Path, name: str, most: int, at: tuple[int, int] | None = None) -> bytes:
    """A regular file of a folder; links that lead out of it, pipes and devices are refused.

    Args:
        root: the folder.
        name: of the file, relative to it.
        most: largest size that is believed.
        at: offset (negative: from the end) and number of bytes; None: all.

    Raises:
        ChunkMissing, ChunkDamaged: see there.
        StorageError: the operating system failed to read.
    """
    path = root / name
    try:
        if not os.path.realpath(path).startswith(os.path.realpath(root) + os.sep):
            raise ChunkDamaged("it is a link that leads out of the array")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ChunkDamaged("it is no regular file")
            offset, wanted = at or (0, found.st_size)
            if (found.st_size if at is None else wanted) > most:
                raise ChunkDamaged(f"it has {found.st_size} bytes where at most {most} make sense")
            if offset:
                file.seek(max(0, found.st_size + offset) if offset < 0 else offset)
            return file.read(wanted)
    except (FileNotFoundError, NotADirectoryError):
        raise ChunkMissing from None
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error}.") from error


def _version_3(root: Path, metadata: Mapping[str, Any]) -> Encoding:
    if metadata["node_type"] != "array":
        raise InputError(f"{root} should be the folder of a Zarr array; it is a {metadata['node_type']!r}.")
    if metadata.get("storage_transformers"):
        _refuse(root, "storage transformers", metadata["storage_transformers"])
    grid, keys = metadata["chunk_grid"], metadata["chunk_key_encoding"]
    if grid["name"] != "regular" or keys["name"] not in ("default", "v2"):
        _refuse(root, "chunk grid or chunk names", [grid["name"], keys["name"]])
    if keys.get("configuration", {}).get("separator", "/") not in ("/", "."):
        _refuse(root, "separator of chunk names", keys["configuration"])
    kind = metadata["data_type"]
    if not isinstance(kind, str) or not re.fullmatch(r"u?int(8|16|32|64)|float(16|32|64)", kind):
        _refuse(root, "data type (integer or real pixels are needed)", kind)
    chunks, codecs = grid["configuration"]["chunk_shape"], metadata["codecs"]
    names = [_codec_name(root, codec) for codec in codecs]
    _check_shape(root, metadata["shape"], chunks)
    if "sharding_indexed" in names:
        inner = codecs[0]["configuration"]
        _check_shape(root, chunks, inner["chunk_shape"])
        for codec in inner["index_codecs"]:
            _codec_name(root, codec)
        chunks, names = inner["chunk_shape"], [_codec_name(root, codec) for codec in inner["codecs"]]
    digests = metadata.get("attributes", {}).get("digests")
    dtype, plain = np.dtype(kind), None
    if names in (["bytes"], ["bytes", "crc32c"]) and len(names) == len(codecs):
        big = codecs[0].get("configuration", {}).get("endian") == "big"
        plain = dtype.newbyteorder(">" if big else "<")
    return _encoding(root, chunks, dtype, names, plain, digests if digests == DIGESTS else None)


def _version_2(root: Path, metadata: Mapping[str, Any]) -> Encoding:
    compressor = metadata["compressor"]
    name = None if compressor is None else compressor["id"]
    if name is not None and name not in COMPRESSORS:
        _refuse(root, "compressor", name)
    if metadata.get("filters"):
        _refuse(root, "filters", metadata["filters"])
    if metadata.get("dimension_separator", ".") not in ("/", "."):
        _refuse(root, "separator of chunk names", metadata["dimension_separator"])
    if not isinstance(metadata["dtype"], str) or not _V2_DTYPE.fullmatch(metadata["dtype"]):
        _refuse(root, "dtype (integer or real pixels are needed)", metadata["dtype"])
    _check_shape(root, metadata["shape"], metadata["chunks"])
    found = _encoding(
        root, metadata["chunks"], np.dtype(metadata["dtype"]), [] if name is None else [name], None, None
    )
    silent = "dimension_separator" not in metadata and len(metadata["shape"]) > 1
    return replace(found, nested=silent and (root / "0").is_dir())


def _encoding(
    root: Path,
    chunks: Sequence[int],
    dtype: np.dtype,
    names: Sequence[str],
    plain: np.dtype | None,
    digests: str | None,
) -> Encoding:
    size = math.prod(chunks) * dtype.itemsize
    if size > _MAX_CHUNK_BYTES:
        _refuse(root, f"chunks of {size} bytes (at most {_MAX_CHUNK_BYTES} make sense)", list(chunks))
    binary = tuple(name for name in names if name == "crc32c" or name in COMPRESSORS)
    if sum(name in COMPRESSORS for name in binary) > 1:
        _refuse(root, "several compressors", list(names))
    return Encoding(size, binary, plain, digests)


def _codec_name(root: Path, codec: Any) -> str:
    name = codec if isinstance(codec, str) else codec["name"]
    if name not in _CODECS:
        _refuse(root, f"codec outside of {', '.join(_CODECS)}", name)
    return str(name)


def _check_shape(root: Path, shape: Any, chunks: Any) -> None:
    for sides, least in ((shape, 0), (chunks, 1)):
        if not isinstance(sides, list) or not all(type(n) is int and least <= n <= _MAX_SIDE for n in sides):
            _refuse(root, "shape or chunk shape", sides)
    if len(shape) != len(chunks) or not 1 <= len(shape) <= 8:
        _refuse(root, "shape and chunk shape", [shape, chunks])
    if math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) > _MAX_CHUNKS:
        _refuse(root, f"shape of more than {_MAX_CHUNKS} chunks", shape)


def _refuse(root: Path, what: str, found: object) -> None:
    raise InputError(
        f"{root} should hold a plain array of numbers; it is refused for its {what}: {str(found)[:200]}."
    )


def _decoded_size(compressor: str, raw: bytes, expected: int) -> int:
    """Bytes that compressed bytes say they become; more than ``expected`` may be cut short at ``expected + 1``."""
    try:
        match compressor:
            case "blosc":
                size, block, compressed = struct.unpack_from("<III", raw, 4)
                if compressed != len(raw) or not 0 < block <= max(size, 1):
                    raise ChunkDamaged("its Blosc header does not describe it")
                return int(size)
            case "zstd":
                return _zstd_size(raw)
            case "lz4":
                return int(struct.unpack_from("<I", raw)[0])
        return len(zlib.decompressobj(47).decompress(raw, expected + 1))  # 47: gzip or zlib
    except (struct.error, IndexError, zlib.error) as error:
        raise ChunkDamaged(f"{compressor}: {error}") from error


def _zstd_size(raw: bytes) -> int:
    """Content size in the header of a Zstandard frame (RFC 8878, 3.1.1.1)."""
    if raw[:4] != b"\x28\xb5\x2f\xfd":
        raise ChunkDamaged("it is no Zstandard frame")
    descriptor = raw[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    if not width:
        raise ChunkDamaged("its Zstandard frame does not say its size, which could be anything")
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(raw[start : start + width], "little") + (256 if width == 2 else 0)
