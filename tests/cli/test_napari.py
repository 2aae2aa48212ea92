"""What napari is given: no napari is needed, only the tuples and the manifest that its documentation asks for."""

import importlib
import re
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

import mtdcore as mtd
from mtdcli.viewers.napari import Stack, get_reader


@pytest.fixture
def run_dir(mtd, measurement, tmp_path):
    mtd("recover", measurement, "-o", tmp_path / "run", "--box-size", 12, "--iterations", 30)
    return tmp_path / "run"


def test_a_run_is_shown_over_its_micrographs(run_dir, measurement):
    layers = {
        attributes["name"]: (data, attributes, kind)
        for data, attributes, kind in get_reader(str(run_dir))(str(run_dir))
    }
    assert list(layers) == ["measurement", "estimate", "aligned average", "copies"]
    stack, look, kind = layers["measurement"]
    assert (kind, stack.shape, stack.ndim, look["multiscale"]) == ("image", (1, 90, 100), 3, False)
    assert np.array_equal(np.asarray(stack[0]), np.asarray(mtd.open_measurement(measurement)))
    assert look["contrast_limits"][0] < look["contrast_limits"][1]
    assert np.array_equal(layers["estimate"][0], np.load(run_dir / "estimate.npy"))
    # above the micrographs, side by side
    assert layers["estimate"][1]["translate"] == (-20, 0)
    assert layers["aligned average"][1]["translate"] == (-20, 20)
    places, look, kind = layers["copies"]
    rows = (run_dir / "detections.csv").read_text().splitlines()
    assert kind == "points"
    assert places.shape == (len(rows) - 1, 3)
    assert {"probability", "angle_degrees", "class"} <= set(look["features"])
    assert all(len(column) == len(places) for column in look["features"].values())
    first = rows[1].split(",")
    assert places[0].tolist() == [float(first[0]), float(first[1]) + 5.5, float(first[2]) + 5.5]


def test_without_its_micrographs_the_rest_is_shown_and_that_is_said(run_dir, measurement):
    measurement.rename(measurement.with_name("moved.zarr"))
    with pytest.warns(UserWarning, match="are not shown"):
        layers = get_reader([str(run_dir)])(str(run_dir))
    assert [attributes["name"] for _, attributes, _ in layers] == ["estimate", "aligned average", "copies"]


def test_classes_lie_side_by_side(mtd, measurement, tmp_path):
    mtd("recover", measurement, "-o", tmp_path / "two", "--box-size", 12, "--iterations", 4, "--classes", 2)
    layers = get_reader(str(tmp_path / "two"))(str(tmp_path / "two"))
    assert layers[1][0].shape == (12, 24)


def test_a_measurement_is_a_stack(measurement):
    ((stack, look, kind),) = get_reader(str(measurement))(str(measurement))
    assert (kind, look["name"], len(stack)) == ("image", "measurement", 1)


def test_a_volume_is_an_image_of_three_axes(tmp_path):
    maps = pytest.importorskip("mtdcore.model.volumes.maps")
    pytest.importorskip("mrcfile")
    volume = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    maps.write_map(tmp_path / "volume.mrc", volume, 2.0)
    (tmp_path / "run.json").write_text("{}")
    ((shown, look, kind),) = get_reader(str(tmp_path))(str(tmp_path))
    assert kind == "image"
    assert look["name"].endswith("volume")
    assert np.allclose(shown, volume)


def test_what_is_not_ours_is_left_to_others(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"")
    others = [str(tmp_path), str(tmp_path / "picture.png"), str(tmp_path / "gone"), [], [str(tmp_path)] * 2]
    assert [get_reader(path) for path in others] == [None] * 5


def test_micrographs_are_read_one_by_one():
    pixels = np.arange(3 * 5 * 7, dtype=np.float32).reshape(3, 5, 7)
    pixels[1, 2, 3] = np.nan
    stack = Stack(mtd.open_measurement(pixels))
    for key in (
        1,
        (1,),
        (1, slice(1, 4)),
        (-1, slice(None), 2),
        slice(1, 3),
        ([0, 2], 1),
        (..., 4),
        np.int64(2),
    ):
        assert np.array_equal(stack[key], pixels[key], equal_nan=True), key
    assert np.array_equal(np.asarray(stack), pixels, equal_nan=True)
    with pytest.raises(IndexError):
        stack[3]


def test_the_manifest_names_what_is_there():
    """Read as text: no YAML is needed for it anywhere else."""
    (entry,) = entry_points(group="napari.manifest", name="mtdcore")
    package, _, name = entry.value.partition(":")
    text = (Path(importlib.import_module(package).__file__).parent / name).read_text()
    assert text.startswith("name: mtdcore\n")
    module, _, function = re.search(r"python_name: (.*)", text)[1].partition(":")
    assert getattr(importlib.import_module(module), function) is get_reader
    npe2 = pytest.importorskip("npe2")
    npe2.PluginManifest.from_distribution("mtdcore").validate_imports()
