"""A stack that grows, and wide Gaussian means by transforms."""

import numpy as np
import pytest
from scipy import ndimage

from mtdcore import open_measurement
from mtdcore.data.preparation import background
from mtdcore.data.zarr.growing import GrowingStack
from mtdcore.data.zarr.store import creating
from mtdcore.errors import InputError


@pytest.fixture
def grown(tmp_path):
    path, stack = tmp_path / "a.zarr", np.random.default_rng(0).normal(size=(3, 300, 1100)).astype(np.float32)
    with creating(path, (1, 300, 1100), np.dtype(np.float32), {"mtdcore": {}}, ome=True):
        pass
    growing = GrowingStack(path)
    return path, stack, growing, np.stack([growing.put(i, image) for i, image in enumerate(stack)])


def test_readers_see_what_was_published(grown):
    path, stack, growing, digests = grown
    growing.publish(digests[:2])
    assert np.array_equal(np.asarray(open_measurement(path)), stack[:2])
    growing.publish(digests)
    assert np.array_equal(np.asarray(open_measurement(path)), stack)
    assert open_measurement(path).find_bad_chunks() == []


def test_a_micrograph_that_is_not_the_one_that_counts_is_noticed(grown):
    path, stack, growing, digests = grown
    growing.publish(digests)
    growing.put(1, stack[0])
    with pytest.raises(InputError, match="bad chunk"):
        np.asarray(open_measurement(path))


@pytest.mark.parametrize(("shape", "width"), [((120, 90), 15.0), ((33, 400), 30.0), ((20, 20), 40.0)])
def test_wide_means_are_those_of_the_direct_sum(shape, width):
    image = np.random.default_rng(1).normal(size=shape) + np.linspace(0.0, 50.0, shape[1])
    direct = ndimage.gaussian_filter(image, width, mode="reflect", truncate=3.0)
    assert background._smoothed(image, width) == pytest.approx(direct, abs=1e-10)
    assert background._smoothed(image.astype(np.float32), width) == pytest.approx(direct, abs=1e-3)
