import gzip
import struct

import numpy as np
import pytest

from mtdbridge.training.images import data_hash, load_images
from mtdcore.errors import InputError, StorageError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 5), dtype=np.uint8)
EXPECTED = PIXELS.astype(np.float32) / 255


def idx(array):
    return b"\0\0\x08\x03" + struct.pack(">3I", *array.shape) + array.tobytes()


def zarr_file(path):
    import zarr

    zarr.create_array(str(path), data=PIXELS)


WRITERS = {
    "a.npy": lambda path: np.save(path, PIXELS),
    "a.npz": lambda path: np.savez(path, train_images=PIXELS, test_images=PIXELS[:2], labels=np.arange(7)),
    "only.npz": lambda path: np.savez(path, x=PIXELS, y=np.arange(7)),
    "a.idx3-ubyte": lambda path: path.write_bytes(idx(PIXELS)),
    "a.idx.gz": lambda path: path.write_bytes(gzip.compress(idx(PIXELS))),
    "a.zarr": zarr_file,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_images(tmp_path, name):
    WRITERS[name](tmp_path / name)
    images = load_images(tmp_path / name)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, EXPECTED)


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_bad_chunk_of_a_zarr_array_is_not_read_as_zeros(tmp_path, how):
    zarr_file(tmp_path / "a.zarr")
    chunk = next(file for file in (tmp_path / "a.zarr" / "c").rglob("*") if file.is_file())
    if how == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"should be whole; chunk c/\S+ is"):
        load_images(tmp_path / "a.zarr")


def test_arrays_glyphs_and_keys(tmp_path):
    np.testing.assert_array_equal(load_images(EXPECTED.astype(np.float64)), EXPECTED)
    glyphs = load_images("glyphs:5", seed=3)
    assert glyphs.shape == (5, 28, 28)
    np.testing.assert_array_equal(glyphs, load_images("glyphs:5", seed=3))
    np.savez(tmp_path / "a.npz", one=PIXELS[:3], two=PIXELS)
    assert len(load_images(tmp_path / "a.npz", key="one")) == 3


def test_the_hash_knows_pixels_and_shape():
    assert data_hash(EXPECTED) == data_hash(EXPECTED.copy())
    assert data_hash(EXPECTED) != data_hash(EXPECTED + np.float32(1e-6))
    assert data_hash(EXPECTED.reshape(7, 5, 5)) != data_hash(
        EXPECTED.reshape(1, 7, 25)[:, :, :].reshape(7, 25, 1)
    )


BAD = {
    "not square": lambda: np.ones((3, 4, 5)),
    "two axes": lambda: np.ones((3, 4)),
    "empty": lambda: np.ones((0, 4, 4)),
    "complex": lambda: np.ones((3, 4, 4), complex),
    "NaN": lambda: np.full((3, 4, 4), np.nan),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_arrays_are_refused(name):
    with pytest.raises(InputError, match="the array: expected"):
        load_images(BAD[name]())


def test_unusable_files_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", one=PIXELS, two=PIXELS)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.idx").write_bytes(idx(PIXELS)[:-3])
    (tmp_path / "noise.npy").write_bytes(b"noise")
    (tmp_path / "noise.npz").write_bytes(b"noise")
    (tmp_path / "noise.bin").write_bytes(b"noise")
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.idx.gz").write_bytes(gzip.compress(idx(PIXELS))[:40])
    packed = bytearray(gzip.compress(idx(PIXELS)))
    packed[30:40] = bytes(10)
    (tmp_path / "flipped.idx.gz").write_bytes(packed)
    for name in (
        "cut.npz",
        "flipped.idx.gz",
        "two.npz",
        "objects.npy",
        "cut.idx",
        "noise.npy",
        "noise.npz",
        "noise.bin",
    ):
        with pytest.raises(InputError, match=name):
            load_images(tmp_path / name)
    with pytest.raises(InputError, match="expected an array 'three'"):
        load_images(tmp_path / "two.npz", key="three")
    with pytest.raises(InputError, match="glyphs:COUNT"):
        load_images("glyphs:many")
    for name in ("none.npy", "none.npz", "none.idx.gz"):
        with pytest.raises(StorageError, match=name):
            load_images(tmp_path / name)
