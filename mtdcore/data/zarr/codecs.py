"""Decoding one chunk: the output of each codec is bound to the size of the chunk, so that no content can request more memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from google_crc32c import value as crc32c
from numcodecs import blosc, lz4, zstd

from .guard import COMPRESSORS, ChunkDamaged

blosc.use_threads = False  # as zarr sets it: chunks are decoded by one thread each, also after a fork

#: Bytes of a checksum.
_CRC = 4


def decode(raw: bytes | bytearray, codecs: Sequence[str], size: int, *, checksums: bool) -> bytes | bytearray:
    """The pixels of a chunk as bytes.

    Args:
        raw: the chunk as it is stored.
        codecs: see :class:`Layout`.
        size: bytes of its pixels.
        checksums: whether to compare its checksums; not needed after its digest was compared.

    Raises:
        ChunkDamaged: a checksum, or the size of the pixels, is wrong, or a codec fails.
    """
    sizes = [size]  # after each codec; 0 after a compressor, whose output has any size
    for name in codecs:
        sizes.append(sizes[-1] + _CRC if name == "crc32c" else 0)
    for name, expected in zip(reversed(codecs), reversed(sizes[:-1]), strict=True):
        if name in COMPRESSORS:
            raw = _decompress(name, raw, expected)
        else:
            raw, stored = raw[:-_CRC], raw[-_CRC:]
            if checksums and int(crc32c(raw)) != int.from_bytes(stored, "little"):
                raise ChunkDamaged("its crc32c checksum is that of other content")
    if len(raw) != size:
        raise ChunkDamaged(f"it holds {len(raw)} bytes of pixels instead of {size}")
    return raw


def check_size(compressor: str, raw: bytes | bytearray, expected: int) -> None:
    """Raise ChunkDamaged unless the header of compressed bytes declares an unpacked size of ``expected`` bytes.

    gzip and zlib declare no size, Zstandard not always; they pass.
    """
    found: int | None = None
    try:
        match compressor:
            case "blosc":
                found, block, compressed = struct.unpack_from("<III", raw, 4)
                if compressed != len(raw) or not 0 < block <= max(found, 1):
                    raise ChunkDamaged("its Blosc header does not describe it")
            case "zstd":
                found = _zstd_size(raw)
            case "lz4":
                (found,) = struct.unpack_from("<I", raw)
    except (struct.error, IndexError) as error:
        raise ChunkDamaged(f"{compressor}: {error}") from error
    if found not in (None, expected):
        raise ChunkDamaged(f"it holds {found} bytes of pixels and checksum instead of {expected}")


def _decompress(compressor: str, raw: bytes | bytearray, expected: int) -> bytes | bytearray:
    check_size(compressor, raw, expected)
    try:
        if compressor in ("gzip", "zlib"):
            stream = zlib.decompressobj(47)  # either of them
            found = stream.decompress(raw, expected + 1)
            if len(found) != expected or not stream.eof:
                raise ChunkDamaged(f"{compressor}: it does not end after {expected} bytes")
            return found
        out = bytearray(expected)  # nothing is written beyond it
        {"blosc": blosc, "lz4": lz4, "zstd": zstd}[compressor].decompress(raw, out)
        return out
    except (zlib.error, ValueError, RuntimeError) as error:
        raise ChunkDamaged(f"{compressor}: {error}") from error


def _zstd_size(raw: bytes | bytearray) -> int | None:
    """Content size in the header of a Zstandard frame (RFC 8878, 3.1.1.1); None: a streamed frame without one."""
    if raw[:4] != b"\x28\xb5\x2f\xfd":
        raise ChunkDamaged("it is no Zstandard frame")
    descriptor = raw[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    if not width:
        return None
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(raw[start : start + width], "little") + (256 if width == 2 else 0)
