"""OME-Zarr 0.5: what `mtd import` writes, and images of other programs."""

import json

import numpy as np
import pytest
import zarr

import mtdcore
from mtdcore.data.tiles import TileGeometry
from mtdcore.data.zarr.ome import ome_pixel_size
from mtdcore.data.zarr.store import creating
from mtdcore.errors import InputError

PIXELS = np.random.default_rng(0).normal(size=(2, 30, 40)).astype(np.float32)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "m.zarr"
    with creating(path, PIXELS.shape, PIXELS.dtype, {"mtdcore": {"a": 1}}, pixel_size=1.7, ome=True) as (
        array,
        _,
    ):
        array[:] = PIXELS
    return path


def first_tile(path):
    geometry = mtdcore.data.tiles.TileGeometry(side=100, unit=1, halo=0, reach=0)
    return next(iter(mtdcore.open_measurement(path).tiles(geometry))).values


def test_an_image_is_a_group_that_zarr_and_mtdcore_open(image):
    group = zarr.open_group(str(image), mode="r")
    multiscale = group.attrs["ome"]["multiscales"][0]
    assert group.attrs["ome"]["version"] == "0.5"
    assert np.array_equal(group[multiscale["datasets"][0]["path"]][:], PIXELS)
    assert [axis["name"] for axis in multiscale["axes"]] == ["micrograph", "y", "x"]
    assert multiscale["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 1.7, 1.7]}
    ]
    assert mtdcore.open_measurement(image).shape == PIXELS.shape
    assert np.array_equal(first_tile(image), PIXELS[0])
    assert ome_pixel_size(image) == 1.7


def test_a_damaged_chunk_of_an_image_is_named(image):
    chunk = image / "0/c/0/0/0"
    chunk.write_bytes(b"x" + chunk.read_bytes()[1:])
    with pytest.raises(InputError, match="bad chunk"):
        first_tile(image)


def test_an_image_in_format_2_with_nanometres(tmp_path):
    """OME-Zarr 0.4: attributes of a Zarr 2 group, no key ``ome``."""
    group = zarr.create_group(str(tmp_path / "old.zarr"), zarr_format=2)
    group.create_array("full", data=PIXELS)
    unit = {"type": "space", "unit": "nanometer"}
    group.attrs["multiscales"] = [
        {
            "axes": [{"name": "z", **unit}, {"name": "y", **unit}, {"name": "x", **unit}],
            "datasets": [
                {"path": "full", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5]}]}
            ],
        }
    ]
    assert np.array_equal(first_tile(tmp_path / "old.zarr"), PIXELS[0])
    assert ome_pixel_size(tmp_path / "old.zarr") == 5.0


@pytest.mark.parametrize("path", ["..", ".", "/etc", 7, None])
def test_metadata_that_point_elsewhere_are_refused(image, path):
    file = image / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["datasets"] = [{"path": path}]
    file.write_text(json.dumps(metadata))
    with pytest.raises(InputError):
        mtdcore.open_measurement(image)


def test_an_image_without_a_pixel_size_has_none(tmp_path):
    with creating(tmp_path / "m.zarr", PIXELS.shape, PIXELS.dtype, {}, ome=True) as (array, _):
        array[:] = PIXELS
    assert ome_pixel_size(tmp_path / "m.zarr") is None
    assert ome_pixel_size(tmp_path) is None


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", [(1, 1, 3, 40, 50), (3, 1, 1, 40, 50), (1, 3, 40, 50), (1, 1, 1, 40, 50)])
def test_axes_of_length_one_are_left_out(tmp_path, shape, version):
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    chunks = (*(2 if n > 1 else 1 for n in shape[:-2]), 16, 32)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=shape, dtype="f4", chunks=chunks, zarr_format=version
    )
    array[...] = pixels
    measurement = mtdcore.open_measurement(tmp_path / "a.zarr")
    assert measurement.shape == (max(shape[:-2]), 40, 50)
    tiles = measurement.tiles(TileGeometry(side=64, unit=1, halo=0, reach=0))
    assert np.array_equal([tile.values for tile in tiles], pixels.reshape(-1, 40, 50))


def test_two_axes_that_could_be_micrographs_are_refused(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(2, 3, 40, 50), dtype="f4", chunks=(1, 1, 40, 50))[
        ...
    ] = 1
    with pytest.raises(InputError, match="one axis before the last two"):
        mtdcore.open_measurement(tmp_path / "a.zarr")


def test_chunks_in_folders_that_the_metadata_do_not_mention(tmp_path):
    """As some writers of format 2 leave it: no key ``dimension_separator``."""
    pixels = np.random.default_rng(0).normal(size=(2, 40, 50)).astype(np.float32)
    for compressors in (None, "auto"):
        path = tmp_path / f"{compressors}.zarr"
        keys = {"name": "v2", "separator": "/"}
        options = {"zarr_format": 2, "chunk_key_encoding": keys, "compressors": compressors}
        zarr.create_array(str(path), shape=pixels.shape, dtype="f4", chunks=(1, 16, 32), **options)[...] = (
            pixels
        )
        metadata = json.loads((path / ".zarray").read_text())
        del metadata["dimension_separator"]
        (path / ".zarray").write_text(json.dumps(metadata))
        measurement = mtdcore.open_measurement(path)
        tiles = measurement.tiles(TileGeometry(side=64, unit=1, halo=0, reach=0))
        assert np.array_equal([tile.values for tile in tiles], pixels)
        (path / "1/0/1").unlink()
        assert [chunk.key for chunk in mtdcore.open_measurement(path).find_bad_chunks()] == ["1/0/1"]
