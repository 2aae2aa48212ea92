"""Training images from arrays, npz, npy, idx(.gz), Zarr, or the built-in glyphs."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtdcore._base.guarded import archive, check_declared, gunzipped, opened, read_regular
from mtdcore.errors import InputError, MtdError, StorageError

Images = NDArray[np.float32]
GLYPH_COUNT = 20_000

#: Bytes of the header of an IDX file, and largest size of an IDX file in bytes.
_HEADER, _MOST = 16, 64 << 30


def load_images(source: str | Path | np.ndarray, *, key: str | None = None, seed: int = 0) -> Images:
    """Images as (N, L, L) float32; integer pixels are divided by the largest value of their dtype.

    Args:
        source: an (N, L, L) array, the path of a .npz, .npy, .zarr or IDX (.idx3-ubyte, .idx, optionally .gz)
            file, or "glyphs" / "glyphs:COUNT" for the procedural glyphs of :mod:`mtdcore.synthetic.glyphs`.
        key: name of the array inside an .npz file; None: "train_images", or the only (N, L, L) array.
        seed: seed of the glyphs.

    Raises:
        InputError: the content is not a stack of square finite images.
        StorageError: the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        return _checked(source, "the array")
    name = str(source)
    if name == "glyphs" or name.startswith("glyphs:"):
        return _glyphs(name, seed)
    path = Path(source)
    try:
        return _checked(_read(path, key), name)
    except MtdError:
        raise
    except gzip.BadGzipFile as error:  # an OSError
        raise InputError(f"{path}: the images cannot be decoded: {error}.") from error
    except OSError as error:
        raise StorageError(f"{path}: the images cannot be read: {error}.") from error
    except Exception as error:  # NumPy, zipfile and zlib share no exception type
        raise InputError(f"{path}: the images cannot be decoded: {error}.") from error


def data_hash(images: Images) -> str:
    """SHA-256 of shape and pixels, the same for two trainings on the same images."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for block in np.array_split(images, max(1, images.shape[0] // 1024)):
        digest.update(np.ascontiguousarray(block, dtype="<f4").tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str | None) -> np.ndarray:
    match path.suffix.lower():
        case ".npz":
            return _read_npz(path, key)
        case ".npy":
            opened(path).close()
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        case ".gz":
            return _parse_idx(_unpacked(path), path)
        case ".zarr":
            from mtdcore.data.zarr.stored import StoredArray

            return StoredArray.open(path).whole()
    return _parse_idx(read_regular(path, _MOST), path)


def _unpacked(path: Path) -> bytes:
    """The content of a gzipped IDX file: the bytes that its header declares, and one more if the file is longer."""
    head = gunzipped(path, _HEADER)
    if len(head) < _HEADER:
        return head
    declared = _HEADER + math.prod(struct.unpack(">3I", head[4:]))
    check_declared(path, declared, path.stat().st_size)
    return gunzipped(path, declared + 1)


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    with archive(path) as found:
        if key is None:
            stacks = [name for name in found.names if len(found.shape(name)) == 3]
            if "train_images" not in stacks and len(stacks) != 1:
                raise InputError(
                    f"{path}: expected one (N, L, L) array; the file holds {found.names}: name one with key."
                )
            key = "train_images" if "train_images" in stacks else stacks[0]
        if key not in found.names:
            raise InputError(f"{path}: expected an array {key!r}; the file holds {found.names}.")
        return found[key]


def _parse_idx(blob: bytes, path: Path) -> np.ndarray:
    """The IDX format of the MNIST files: magic 0x00000803, three big-endian sizes, unsigned bytes."""
    if blob[:4] != b"\x00\x00\x08\x03" or len(blob) < _HEADER:
        raise InputError(
            f"{path}: expected an IDX file of unsigned bytes in three dimensions (magic 00000803)."
        )
    shape = struct.unpack(">3I", blob[4:_HEADER])
    if len(blob) != _HEADER + math.prod(shape):
        raise InputError(
            f"{path}: expected {math.prod(shape)} pixels for {shape}; got {len(blob) - _HEADER}."
        )
    return np.frombuffer(blob, np.uint8, offset=_HEADER).reshape(shape)


def _glyphs(name: str, seed: int) -> Images:
    from mtdcore.synthetic.glyphs import glyphs

    count = name.partition(":")[2] or str(GLYPH_COUNT)
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"expected glyphs or glyphs:COUNT with a positive count; got {name!r}.")
    return _checked(np.asarray(glyphs(int(count), seed=seed)), name)


def _checked(array: np.ndarray, name: str) -> Images:
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise InputError(f"{name}: expected square images as an (N, L, L) array; got shape {array.shape}.")
    if array.dtype.kind not in "uif":
        raise InputError(f"{name}: expected real pixels; got dtype {array.dtype}.")
    scale = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    images = np.ascontiguousarray(array, dtype=np.float32) / np.float32(scale)
    if not np.isfinite(images).all():
        raise InputError(f"{name}: expected finite pixels; some are NaN or infinite.")
    return images
