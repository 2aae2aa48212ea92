"""OME-Zarr 0.5: what `mtd import` writes, and images of other programs."""

import json

import numpy as np
import pytest
import zarr

import mtdcore
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
    chunk = next(file for file in (image / "0" / "c").rglob("*") if file.is_file())
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
