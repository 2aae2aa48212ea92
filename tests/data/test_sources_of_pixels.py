"""Arrays of other libraries, lists and paths as measurements, and measurements as arrays."""

import numpy as np
import pytest

from mtdcore.data import MeasurementLike, open_measurement
from mtdcore.data.binned import BinnedMeasurement
from mtdcore.data.defects import without_defects
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import InputError
from mtdcore.synthetic.simulate import simulate

PIXELS = np.random.default_rng(0).normal(size=(2, 40, 50)).astype(np.float32)
GEOMETRY = TileGeometry(side=16, unit=1, halo=3, reach=2)


def torch_tensor(folder):
    return pytest.importorskip("torch").tensor(PIXELS, requires_grad=True)


def dask_array(folder):
    return pytest.importorskip("dask.array").from_array(PIXELS, chunks=(1, 16, 32))


def zarr_array(folder):
    import zarr

    array = zarr.create_array(str(folder / "a.zarr"), shape=PIXELS.shape, dtype="f4", chunks=(1, 16, 32))
    array[...] = PIXELS
    return array


def zarr_in_memory(folder):
    import zarr

    array = zarr.create_array(zarr.storage.MemoryStore(), shape=PIXELS.shape, dtype="f4", chunks=(1, 16, 32))
    array[...] = PIXELS
    return array


def paths(folder):
    mrcfile = pytest.importorskip("mrcfile")
    for name, image in zip("ab", PIXELS, strict=True):
        mrcfile.write(folder / f"{name}.mrc", image)
    return [folder / "a.mrc", str(folder / "b.mrc")]


KINDS = {
    "list of arrays": lambda _: list(PIXELS),
    "tuple of lists": lambda _: tuple(image.tolist() for image in PIXELS),
    "nested list": lambda _: PIXELS.tolist(),
    "Path": lambda folder: (np.save(folder / "a.npy", PIXELS), folder / "a.npy")[1],
    "subclass": lambda _: PIXELS.view(np.recarray),
    "torch": torch_tensor,
    "dask": dask_array,
    "zarr": zarr_array,
    "zarr in memory": zarr_in_memory,
    "paths": paths,
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_give_the_same_tiles(tmp_path, kind):
    source: MeasurementLike = KINDS[kind](tmp_path)
    measurement = open_measurement(source)
    assert measurement.shape == PIXELS.shape
    expected = list(open_measurement(PIXELS).tiles(GEOMETRY))
    for part in (measurement.tiles(GEOMETRY), (t for p in measurement.split(3) for t in p.tiles(GEOMETRY))):
        for tile, other in zip(part, expected, strict=True):
            np.testing.assert_array_equal(tile.values, other.values)
            assert tile.valid is None
            tile.values[:] = 0  # is nobody else's
    assert np.array_equal(open_measurement(source), PIXELS)


def test_dask_and_zarr_are_read_piece_by_piece(tmp_path):
    array = dask_array(tmp_path)
    asked = []

    class Asked:
        shape, dtype, chunks = array.shape, array.dtype, array.chunks

        def __getitem__(self, index):
            asked.append(index)
            return array[index]

    list(open_measurement(Asked()).tiles(GEOMETRY))
    assert len(asked) == open_measurement(PIXELS).tile_count(GEOMETRY)
    assert all((rows.stop - rows.start) < 30 for _, rows, _ in asked)


def test_a_vanished_chunk_of_an_open_zarr_array_is_noticed(tmp_path):
    array = zarr_array(tmp_path)
    (tmp_path / "a.zarr/c/0/1/0").unlink()
    with pytest.raises(InputError, match="c/0/1/0"):
        list(open_measurement(array).tiles(GEOMETRY))


@pytest.mark.parametrize("listed", [False, True])
def test_masked_pixels_are_not_used(listed):
    mask = np.random.default_rng(1).random(PIXELS.shape) < 0.1
    masked = np.ma.masked_array(PIXELS, mask)
    source = list(masked) if listed else masked
    assert np.array_equal(open_measurement(source), np.where(mask, np.nan, PIXELS), equal_nan=True)
    rows = np.arange(40)[:, None] > 9
    both = open_measurement(source, mask=np.broadcast_to(rows, (40, 50)))
    assert np.array_equal(both, np.where(mask | ~rows, np.nan, PIXELS), equal_nan=True)
    assert np.array_equal(open_measurement(np.ma.masked_array(PIXELS)), PIXELS)


@pytest.mark.parametrize(
    "source",
    [
        None,
        3,
        {},
        b"m.zarr",
        [],
        [[1, 2], [3]],
        ["a", 1],
        object(),
        np.array(["a"]),
        [PIXELS[0], PIXELS[0, :5]],
        np.float32(3),
    ],
)
def test_what_is_no_measurement_is_one_sentence(source):
    with pytest.raises(InputError) as caught:
        open_measurement(source)
    assert "\n" not in str(caught.value)


def test_a_measurement_is_an_array_for_numpy_and_matplotlib(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    made = simulate(np.ones((4, 4)), side=48, count=2, noise_std=1.0, path=tmp_path / "m.zarr")
    image = np.asarray(made.measurement)
    assert (image.shape, image.dtype) == ((48, 48), np.float32)
    assert np.asarray(made.measurement, np.float64).dtype == np.float64
    figure, axes = plt.subplots()
    shown = axes.imshow(made.measurement)
    assert np.array_equal(shown.get_array(), image)
    plt.close(figure)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(made.measurement, copy=False)
    several = open_measurement(np.where(np.arange(50) == 7, np.nan, PIXELS))
    for view in (several, without_defects(several)):
        assert np.isnan(np.asarray(view)).sum() == 80
    assert np.asarray(BinnedMeasurement(open_measurement(PIXELS), 2)).shape == (2, 20, 25)
