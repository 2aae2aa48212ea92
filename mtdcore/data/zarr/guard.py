"""Checks of a Zarr array before any of it is decoded: no content of a folder may run code, reach outside of the folder, or
make the reader allocate more than its chunks can hold.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...errors import InputError, MtdError, StorageError

#: Codecs that only transform bytes. Others (pickle, JSON, code of installed plug-ins) are never loaded.
COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4")
_CODECS = ("bytes", "transpose", "crc32c", "sharding_indexed", *COMPRESSORS[:3])

#: The file beside the chunks that holds their digests, see :mod:`mtdcore.data.zarr.digests`.
DIGESTS = "digests.npz"

MAX_METADATA_BYTES, _MAX_CHUNK_BYTES = 16 << 20, 1 << 30

#: Largest number of chunks and of pixels along one axis: a micrograph of 10^12 pixels.
_MAX_CHUNKS, _MAX_SIDE = 1 << 24, 1 << 24

Index: TypeAlias = tuple[int, ...]

_V2_DTYPE = re.compile(r"[<>|]([iu][1248]|f[248])")


class ChunkMissing(Exception):
    """The chunk is not in the store."""


class ChunkDamaged(Exception):
    """The chunk is in the store and cannot be decoded (checksum, truncation)."""


@dataclass(frozen=True)
class Layout:
    """The metadata of an array: chunks, encoding and names of its pixels.

    Attributes:
        shape: of the array.
        chunks: sides of a chunk (of a sharded array: of an inner chunk).
        dtype: of the stored pixels, with their byte order.
        codecs: names of the bytes-to-bytes codecs in the order of encoding.
        axes: axes of a chunk in the order in which its pixels are stored.
        attributes: of the user and of mtdcore (format 3).
        separator: between the numbers of a chunk in its name.
        prefix: of the name of a chunk, before its numbers.
        shards: sides of a shard, which is stored as one file; None: each chunk is one file.
        index_first: whether the index of a shard comes before its chunks.
    """

    shape: Index
    chunks: Index
    dtype: np.dtype
    codecs: tuple[str, ...]
    axes: Index
    attributes: Mapping[str, Any]
    separator: str
    prefix: tuple[str, ...] = ()
    shards: Index | None = None
    index_first: bool = False

    @property
    def size(self) -> int:
        """Bytes of the pixels of one chunk."""
        return math.prod(self.chunks) * self.dtype.itemsize

    @property
    def grid(self) -> Index:
        """Number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    @property
    def per_shard(self) -> Index:
        """Chunks along each axis of one stored file."""
        return tuple(s // c for s, c in zip(self.shards or self.chunks, self.chunks, strict=True))

    def name(self, index: Index) -> str:
        """Name, relative to the array, of the file that holds chunk ``index``."""
        place = (str(i // n) for i, n in zip(index, self.per_shard, strict=True))
        return self.separator.join([*self.prefix, *place])


def read_layout(root: Path) -> Layout:
    """Check the metadata of the array in a folder against what mtdcore decodes.

    Raises:
        InputError: no array, an unsupported codec, or an invalid shape, chunk or dtype.
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
    except MtdError:
        raise
    except Exception as error:  # malformed metadata make the parsers raise anything
        raise InputError(
            f"{root} should be the folder of a Zarr array (format 2 or 3); its {name} is damaged: "
            f"{type(error).__name__}: {error}."
        ) from error


def read_inside(root: Path, name: str, most: int, at: tuple[int, int] | None = None) -> bytes:
    """A regular file of a folder; links that lead out of it, pipes and devices are refused.

    Args:
        root: the folder.
        name: of the file, relative to it.
        most: largest size that is accepted, bytes.
        at: offset (negative: from the end) and number of bytes; None: all.

    Raises:
        ChunkMissing: there is no such file.
        ChunkDamaged: it is refused.
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


def _version_3(root: Path, metadata: Mapping[str, Any]) -> Layout:
    if metadata["node_type"] != "array":
        raise InputError(f"{root} should be the folder of a Zarr array; it is a {metadata['node_type']!r}.")
    if metadata.get("storage_transformers"):
        _refuse(root, "storage transformers", metadata["storage_transformers"])
    grid, keys = metadata["chunk_grid"], metadata["chunk_key_encoding"]
    if grid["name"] != "regular" or keys["name"] not in ("default", "v2"):
        _refuse(root, "chunk grid or chunk names", [grid["name"], keys["name"]])
    prefix = ("c",) if keys["name"] == "default" else ()
    separator = keys.get("configuration", {}).get("separator", "/" if prefix else ".")
    more: dict[str, Any] = {"separator": separator, "prefix": prefix}
    kind, codecs = metadata["data_type"], metadata["codecs"]
    if not isinstance(kind, str) or not re.fullmatch(r"u?int(8|16|32|64)|float(16|32|64)", kind):
        _refuse(root, "data type (integer or real pixels are needed)", kind)
    chunks = grid["configuration"]["chunk_shape"]
    _check_shape(root, metadata["shape"], chunks)
    names = [_codec_name(root, codec) for codec in codecs]
    if "sharding_indexed" in names:
        inner, shards = codecs[0]["configuration"], chunks
        chunks, codecs = inner["chunk_shape"], inner["codecs"]
        _check_shape(root, shards, chunks)
        index = [(_codec_name(root, codec), _big(codec)) for codec in inner["index_codecs"]]
        outer, names = names, [_codec_name(root, codec) for codec in codecs]
        if len(outer) > 1 or "sharding_indexed" in names or index != [("bytes", False), ("crc32c", False)]:
            raise InputError(
                f"{root} uses shards inside shards, or a shard index not stored as bytes + crc32c; only the common "
                "layout can be checked for missing chunks, so rewrite the array with default sharding."
            )
        if any(s % c for s, c in zip(shards, chunks, strict=True)):
            _refuse(root, "shards that are no whole number of chunks", [shards, chunks])
        more |= {"shards": tuple(shards), "index_first": inner.get("index_location") == "start"}
    axes = list(range(len(chunks)))
    for codec in codecs[: names.index("bytes")]:
        axes = [axes[i] for i in codec["configuration"]["order"]]
    if sorted(axes) != list(range(len(chunks))) or {"bytes", "transpose"} & set(
        names[names.index("bytes") + 1 :]
    ):
        _refuse(root, "order of axes or codecs", codecs)
    dtype = np.dtype(kind).newbyteorder(">" if _big(codecs[names.index("bytes")]) else "<")
    binary = names[names.index("bytes") + 1 :]
    return _layout(root, metadata, chunks, dtype, binary, axes, **more)


def _version_2(root: Path, metadata: Mapping[str, Any]) -> Layout:
    compressor, dtype, shape = metadata["compressor"], metadata["dtype"], metadata["shape"]
    name = None if compressor is None else compressor["id"]
    if name is not None and name not in COMPRESSORS:
        _refuse(root, "compressor", name)
    if metadata.get("filters"):
        _refuse(root, "filters", metadata["filters"])
    if not isinstance(dtype, str) or not _V2_DTYPE.fullmatch(dtype):
        _refuse(root, "dtype (integer or real pixels are needed)", dtype)
    axes = list(range(len(shape)))[:: -1 if metadata["order"] == "F" else 1]
    # Some writers put chunks into folders, ``0/1``, without declaring it.
    silent = "/" if len(shape) > 1 and (root / "0").is_dir() else "."
    separator = metadata.get("dimension_separator", silent)
    _check_shape(root, shape, metadata["chunks"])
    binary = [] if name is None else [name]
    return _layout(root, metadata, metadata["chunks"], np.dtype(dtype), binary, axes, separator=separator)


def _layout(
    root: Path,
    metadata: Mapping[str, Any],
    chunks: list[int],
    dtype: np.dtype,
    codecs: list[str],
    axes: list[int],
    **more: Any,
) -> Layout:
    if more["separator"] not in ("/", "."):
        _refuse(root, "separator of chunk names", more["separator"])
    if sum(name in COMPRESSORS for name in codecs) > 1:
        _refuse(root, "several compressors", codecs)
    attributes = dict(metadata.get("attributes", {}))
    found = Layout(
        tuple(metadata["shape"]), tuple(chunks), dtype, tuple(codecs), tuple(axes), attributes, **more
    )
    if found.size > _MAX_CHUNK_BYTES:
        _refuse(root, f"chunks of {found.size} bytes (at most {_MAX_CHUNK_BYTES} make sense)", chunks)
    return found


def _big(codec: Any) -> bool:
    """Whether a codec stores the most significant byte first."""
    return not isinstance(codec, str) and codec.get("configuration", {}).get("endian", "little") == "big"


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
