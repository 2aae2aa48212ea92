import numpy as np
import pytest
from PIL import Image

from mtdcli.inputs.sources import read_image, read_images
from mtdcore.errors import DependencyError, InputError, MtdError, ParameterError, StorageError

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def write(path, array):
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, image=array)
        case ".png":
            Image.fromarray(array).save(path)
        case ".tif":
            pytest.importorskip("tifffile").imwrite(path, array, photometric="minisblack")
        case ".mrc":
            with pytest.importorskip("mrcfile").new(path) as file:
                file.set_data(array.astype(np.float32))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".tif", ".mrc"])
def test_every_format_gives_the_stored_pixels(tmp_path, suffix):
    (image,) = read_images(write(tmp_path / f"a{suffix}", PIXELS))
    assert np.array_equal(image, PIXELS[::-1] if suffix == ".tif" else PIXELS)  # see docs/conventions.md


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".mrc"])
def test_a_stack_gives_its_images_in_order(tmp_path, suffix):
    stack = np.stack([PIXELS, PIXELS + 1])
    first, second = read_images(write(tmp_path / f"a{suffix}", stack))
    assert np.array_equal(second - first, np.ones((3, 4)))


def test_sixteen_bit_png_keeps_its_depth(tmp_path):
    pixels = PIXELS.astype(np.uint16) * 5000
    (image,) = read_images(write(tmp_path / "a.png", pixels))
    assert np.array_equal(image, pixels)


def test_npz_needs_a_key_when_it_holds_several(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"frames/1": PIXELS, "frames/2": PIXELS + 1, "centres": PIXELS + 2})
    with pytest.raises(ParameterError, match=r"3 arrays.*frames/1"):
        list(read_images(path))
    with pytest.raises(ParameterError, match="matches nothing"):
        list(read_images(path, "no*"))
    assert [int(image[0, 0]) for image in read_images(path, "frames/*")] == [0, 1]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".tif", ".mrc"])
def test_damage_is_one_clear_error(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", PIXELS)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(MtdError, match=rf"a\{suffix}"):
        list(read_images(path))


@pytest.mark.parametrize(
    "array",
    [np.zeros(()), np.zeros((2, 2), complex), np.zeros((0, 3)), np.zeros((1, 2, 3, 4)), np.array([["a"]])],
)
def test_what_is_no_image_is_refused(tmp_path, array):
    with pytest.raises(InputError, match="real numbers"):
        list(read_images(write(tmp_path / "a.npy", array)))


def test_a_pickle_is_not_executed(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        list(read_images(path))


def test_unknown_and_missing_files(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"extension is '.txt'"):
        list(read_images(tmp_path / "a.txt"))
    with pytest.raises(StorageError, match="there is none"):
        list(read_images(tmp_path / "a.npy"))


def test_a_missing_reader_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mrcfile", None)
    path = tmp_path / "a.mrc"
    path.write_bytes(b"")
    with pytest.raises(DependencyError, match=r"mtdcore\[em\]"):
        list(read_images(path))


def test_read_image_wants_one_finite_image(tmp_path):
    assert read_image(write(tmp_path / "a.npy", PIXELS)).dtype == np.float64
    with pytest.raises(InputError, match="holds 2"):
        read_image(write(tmp_path / "b.npy", np.stack([PIXELS, PIXELS])))
    with pytest.raises(InputError, match="finite"):
        read_image(write(tmp_path / "c.npy", np.array([[np.nan]])))
