"""Every kind of measurement keeps the contract; then masks, dtypes, layouts, opening and reading ahead."""

import pickle
import threading

import numpy as np
import pytest
from scipy import ndimage

from mtdcore.data import ArrayMeasurement, open_measurement
from mtdcore.data.derived import filtered
from mtdcore.data.measurement import Tiles
from mtdcore.data.prefetch import prefetched
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import InputError, ParameterError, StorageError
from mtdcore.testing import MeasurementConformance

PATCHES = TileGeometry(side=20, unit=4, halo=0, reach=0)
WINDOWS = TileGeometry(side=24, unit=1, halo=5, reach=3)
SHAPES = [(2, 61, 50), (1, 24, 97), (3, 1, 40), (1, 3, 3)]


def pixels(shape=(2, 61, 50), dtype=np.float32, bad=()):
    rng = np.random.default_rng(sum(shape))
    array = (rng.normal(size=shape) * 40).astype(dtype)
    for i, value in enumerate(bad):
        array.flat[rng.integers(array.size)] = value
        array[0, i] = value
    return array


def expected_tiles(array, geometry, mask=None):
    """The contract in plain loops."""
    for m in range(len(array)):
        for region in geometry.regions(array.shape[1:]):
            values = np.array(
                array[m][region.read], dtype=np.result_type(array.dtype, np.float32).newbyteorder("=")
            )
            valid = np.isfinite(values)
            if mask is not None:
                valid &= np.broadcast_to(mask, array.shape)[m][region.read]
            yield m, region, np.where(valid, values, 0), valid


def check_tiles(measurement, array, geometry, mask=None):
    found = list(measurement.tiles(geometry))
    assert len(found) == measurement.tile_count(geometry)
    for tile, (m, region, values, valid) in zip(found, expected_tiles(array, geometry, mask), strict=True):
        assert (tile.micrograph, tile.region, tile.micrograph_shape) == (m, region, array.shape[1:])
        assert np.array_equal(tile.values, values)
        assert tile.values.dtype == measurement.dtype
        assert tile.values.flags.c_contiguous
        assert tile.values.flags.writeable
        assert tile.values.dtype.isnative
        if tile.valid is None:
            assert valid.all()
        else:
            assert not valid.all()
            assert np.array_equal(tile.valid, valid)


def as_array(array, folder):
    return array


def as_npy(array, folder):
    np.save(folder / "m.npy", array)
    return folder / "m.npy"


def as_zarr(array, folder, **options):
    import zarr

    path = folder / "m.zarr"
    options = {"chunks": (1, 16, 24), "compressors": None} | options
    stored = zarr.create_array(
        str(path), shape=array.shape, dtype=array.dtype, config={"write_empty_chunks": True}, **options
    )
    stored[:] = array
    return path


def as_zarr2(array, folder):
    return as_zarr(array, folder, zarr_format=2)


def as_tall_chunks(array, folder):
    return as_zarr(array, folder, chunks=(2, 7, 500), compressors="auto")


def as_shards(array, folder):
    return as_zarr(array, folder, chunks=(1, 16, 8), shards=(2, 32, 24), compressors="auto")


KINDS = [as_array, as_npy, as_zarr, as_zarr2, as_tall_chunks, as_shards]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def source_of(request, tmp_path):
    return lambda array: request.param(array, tmp_path)


class TestContract(MeasurementConformance):
    @pytest.fixture(autouse=True)
    def _source(self, source_of):
        self.source_of = source_of

    def make_measurement(self, array):
        return open_measurement(self.source_of(array))


@pytest.mark.parametrize("geometry", [PATCHES, WINDOWS], ids=["patches", "windows"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiles_are_the_pixels(source_of, shape, geometry):
    array = pixels(shape)
    measurement = open_measurement(source_of(array))
    assert measurement.shape == shape
    check_tiles(measurement, array, geometry)
    check_tiles(measurement, array, geometry)


def test_one_micrograph_may_come_without_a_stack_axis(tmp_path):
    array = pixels((1, 61, 50))
    for source in (array[0], as_npy(array[0], tmp_path), as_zarr(array[0], tmp_path, chunks=(16, 24))):
        measurement = open_measurement(source)
        assert measurement.shape == (1, 61, 50)
        check_tiles(measurement, array, WINDOWS)


def test_invalid_pixels_are_marked_and_zeroed(source_of):
    array = pixels(bad=(np.nan, np.inf, -np.inf))
    keep = array.copy()
    mask = np.random.default_rng(1).random(array.shape) > 0.1
    source = source_of(array)
    check_tiles(open_measurement(source), array, WINDOWS)
    check_tiles(open_measurement(source, mask), array, WINDOWS, mask)
    check_tiles(open_measurement(source, mask[0]), array, WINDOWS, mask[0])
    assert np.array_equal(array, keep, equal_nan=True)


def test_at_least_one_part():
    with pytest.raises(ParameterError, match="at least 1 part"):
        open_measurement(pixels()).split(0)


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.__name__)
def test_what_lives_on_disk_is_small_to_send(kind, tmp_path):
    measurement = open_measurement(kind(pixels((2, 100, 150)), tmp_path))
    list(measurement.tiles(WINDOWS))
    assert len(pickle.dumps(measurement)) < 2000


def test_a_pass_may_be_left_early(source_of):
    measurement = open_measurement(source_of(pixels()))
    before = threading.active_count()
    for _ in range(5):
        tiles = measurement.tiles(WINDOWS)
        next(tiles)
        tiles.close()
    assert not [t for t in threading.enumerate() if t.name == "mtdcore-prefetch"]
    assert threading.active_count() <= before + 8  # zarr keeps a few threads of its own
    assert next(measurement.tiles(WINDOWS)).micrograph == 0


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f2", "f4", "f8", ">i2", ">f4", ">f8", "g"])
def test_every_real_dtype(dtype):
    array = pixels(dtype=np.dtype(dtype).newbyteorder("=")).astype(dtype)
    measurement = ArrayMeasurement(array)
    narrow = dtype.strip(">") in ("u1", "i2", "u2", "f2", "f4")
    assert measurement.dtype == (np.float32 if narrow else np.float64)
    check_tiles(measurement, array if dtype != "g" else array.astype(np.float64), WINDOWS)


def test_every_layout(tmp_path):
    array = pixels()
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    read_only = array.copy()
    read_only.flags.writeable = False
    mapped = np.memmap(tmp_path / "raw", dtype=array.dtype, mode="w+", shape=array.shape)
    mapped[:] = array
    wide = np.repeat(array, 2, axis=2)
    backwards = array[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    layouts = [np.asfortranarray(array), read_only, mapped, wide[:, :, ::2], backwards, tmp_path / "f.npy"]
    for layout in layouts:
        check_tiles(open_measurement(layout), array, WINDOWS)


def test_an_array_is_not_copied():
    array = pixels()
    measurement = open_measurement(array)
    assert np.shares_memory(measurement.array, array)
    next(measurement.tiles(WINDOWS)).values[:] = 7
    assert np.array_equal(array, pixels())


@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 2, 60), (1, 0, 5), (0, 9, 9)])
def test_too_small_for_a_site_means_no_tiles(shape):
    measurement = open_measurement(np.zeros(shape, np.float32))
    assert list(measurement.tiles(WINDOWS)) == []
    assert measurement.tile_count(WINDOWS) == 0


def test_sources_that_are_no_measurement(tmp_path):
    (tmp_path / "image.tiff").write_bytes(b"II")
    (tmp_path / "bad.npy").write_bytes(b"no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "short.npy", pixels())
    content = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-100])
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=pixels(), b=pixels())
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    (tmp_path / "folder").mkdir()
    names = ["image.tiff", "bad.npy", "empty.npy", "short.npy", "object.npy", "many.npy", "folder"]
    for source in [*(tmp_path / name for name in names), 5, [[1.0], [1.0, 2.0]]]:
        with pytest.raises(InputError):
            open_measurement(source)
    with pytest.raises(StorageError, match="does not exist"):
        open_measurement(tmp_path / "absent.zarr")
    for array in (
        np.zeros(0),
        np.zeros((1, 1, 5, 5)),
        np.zeros((5, 5), complex),
        np.zeros((5, 5), bool),
        np.zeros((5, 5), "U1"),
    ):
        with pytest.raises(InputError):
            open_measurement(array)


def test_masks_must_fit():
    array = pixels()
    for mask in (np.ones((61, 49), bool), np.ones((1, 61, 50), bool), np.ones((61, 50))):
        with pytest.raises(InputError, match="mask"):
            open_measurement(array, mask)
    measurement = open_measurement(array)
    assert open_measurement(measurement) is measurement
    with pytest.raises(InputError, match="already"):
        open_measurement(measurement, np.ones((61, 50), bool))


def test_prefetch_keeps_order_stays_close_and_passes_errors_on():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i
        raise RuntimeError("the end")

    ahead = prefetched(items(), 2)
    assert next(ahead) == 0
    threading.Event().wait(0.1)
    assert len(made) <= 5  # one consumed, two queued, one waiting for room
    assert [next(ahead) for _ in range(9)] == list(range(1, 10))
    with pytest.raises(RuntimeError, match="the end"):
        next(ahead)


KERNEL = np.outer([1, 2, 4, 2, 1], [1, 3, 5, 3, 1]) / 100.0


@pytest.mark.parametrize("geometry", [PATCHES, WINDOWS])
@pytest.mark.parametrize("shape", [(2, 61, 50), (1, 24, 97), (1, 5, 30)])
def test_a_filtered_measurement_does_not_depend_on_its_cut(geometry, shape):
    """Beyond the edges goes the mirror image; what the filter needs of neighbouring tiles is read."""
    array = pixels(shape, np.float64)
    expected = [ndimage.convolve(one, KERNEL, mode="reflect") for one in array]
    measurement = filtered(open_measurement(array), KERNEL)
    whole = list(measurement.tiles(geometry))
    assert len(whole) == measurement.tile_count(geometry)
    for tile in whole:
        assert tile.values == pytest.approx(expected[tile.micrograph][tile.region.read], abs=1e-9)
        assert tile.geometry == geometry
    parts = [tile for part in measurement.split(3) for tile in part.tiles(geometry)]
    assert all(np.array_equal(a.values, b.values) for a, b in zip(whole, parts, strict=True))
    regions = [tile.region for tile in open_measurement(array).tiles(geometry)]
    assert [tile.region for tile in whole] == regions


def test_a_filter_sees_the_surroundings_in_the_place_of_invalid_pixels():
    array = np.full((60, 60), 7.0)
    array[20:30, 10:40] = np.nan
    (tile,) = filtered(open_measurement(array), KERNEL).tiles(TileGeometry(side=64, unit=1, halo=0, reach=0))
    assert np.array_equal(tile.valid, np.isfinite(array))
    assert tile.values[tile.valid] == pytest.approx(7.0 * KERNEL.sum(), rel=1e-6)
    assert not tile.values[~tile.valid].any()


def test_a_filtered_measurement_is_known_by_source_and_filter():
    source = open_measurement(pixels())
    one, same, other = (Tiles(filtered(source, k), WINDOWS).identity for k in (KERNEL, KERNEL, 2.0 * KERNEL))
    assert one == same
    assert len({one, other, Tiles(source, WINDOWS).identity}) == 3
