import gc
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtdbridge.priors import dlpack
from mtdbridge.priors.dlpack import (
    ZeroCopyError,
    copy_from_torch,
    copy_to_torch,
    from_torch,
    normalise,
    to_torch,
)


def pointer(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 3)])
def test_sharing_is_the_same_memory_on_both_sides(dtype, shape):
    array = np.zeros(shape, dtype)
    tensor = to_torch(array)
    assert tensor.data_ptr() == pointer(array)
    tensor += 1
    assert (array == 1).all()
    array += 1
    assert (tensor == 2).all()
    back = from_torch(tensor, array)
    assert pointer(back) == pointer(array)
    assert back.dtype == array.dtype
    back += 1
    assert (tensor == 3).all()


def test_transposed_views_are_shared_as_they_are():
    array = np.arange(12.0).reshape(3, 4)
    tensor = to_torch(array.T)
    assert tensor.data_ptr() == pointer(array)
    assert tensor.shape == (4, 3)
    assert tensor[3, 2] == array[2, 3]
    np.testing.assert_array_equal(from_torch(tensor, array), array.T)


def test_memory_outlives_either_side():
    array = np.arange(1000.0)
    alive = weakref.ref(array)
    tensor = to_torch(array)
    del array
    gc.collect()
    assert alive() is not None
    assert tensor.sum() == 499500
    del tensor
    gc.collect()
    assert alive() is None

    tensor = torch.arange(1000.0)
    view = from_torch(tensor, np.empty(0))
    address = tensor.data_ptr()
    del tensor
    gc.collect()
    assert pointer(view) == address
    assert view.sum() == 499500


def foreign_order():
    return np.ones((2, 3)).astype(np.dtype(np.float64).newbyteorder())


def read_only():
    array = np.ones((2, 3))
    array.flags.writeable = False
    return array


REFUSED = {
    "negative strides": lambda: np.ones((2, 3))[:, ::-1],
    "read-only": read_only,
    "byte order": foreign_order,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_shared_is_refused_and_normalised(reason):
    array = REFUSED[reason]()
    with pytest.raises(ZeroCopyError, match=reason):
        to_torch(array)
    normal = normalise(array)
    np.testing.assert_array_equal(normal, array)
    tensor = to_torch(normal)
    tensor += 1
    assert (array == 1).all()  # a read-only array is never written through
    assert (to_torch(normalise(array)) == 1).all()


def test_normalise_copies_only_if_it_has_to():
    array = np.ones((4, 5), np.float32)
    assert normalise(array) is array
    strided = array[:, ::2]
    assert normalise(strided).flags.c_contiguous
    assert not np.shares_memory(normalise(strided), array)


def test_broadcast_arrays_are_not_shared():
    array = np.broadcast_to(np.float32(2), (3, 4))
    with pytest.raises(ZeroCopyError, match="read-only"):
        to_torch(array)
    assert to_torch(normalise(array)).shape == (3, 4)


def test_dtype_and_device_mismatches_raise():
    array = np.ones(3, np.float32)
    assert to_torch(array, dtype=torch.float32, device="cpu").dtype == torch.float32
    with pytest.raises(ZeroCopyError, match=r"torch\.float64.*float32"):
        to_torch(array, dtype=torch.float64)
    with pytest.raises(ZeroCopyError, match=r"cuda.*cpu"):
        to_torch(array, device="cuda")
    with pytest.raises(ZeroCopyError, match="copy_to_torch"):
        to_torch(np.array(["a"]))
    with pytest.raises(ZeroCopyError, match="copy_to_torch"):
        to_torch([1.0, 2.0])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.ones(3, dtype=torch.complex64).conj(),
    ],
    ids=["bfloat16", "meta", "sparse", "conjugated"],
)
def test_tensors_that_numpy_cannot_share_raise(tensor):
    with pytest.raises(ZeroCopyError, match="copy_from_torch"):
        from_torch(tensor, np.empty(0))


def test_gradient_history_is_ignored():
    tensor = torch.ones(3, requires_grad=True)
    assert pointer(from_torch(tensor * 1, np.empty(0))) != 0
    assert pointer(from_torch(tensor, np.empty(0))) == tensor.data_ptr()


def test_the_copying_functions_copy():
    array = np.ones((2, 2))[:, ::-1]
    tensor = copy_to_torch(array, dtype=torch.float32)
    tensor += 1
    assert (array == 1).all()
    assert tensor.dtype == torch.float32
    plain = np.ones(3)
    assert copy_to_torch(plain).data_ptr() != pointer(plain)
    back = copy_from_torch(tensor, array)
    back += 1
    assert (tensor == 2).all()
    assert copy_from_torch(torch.ones(2, dtype=torch.bfloat16), array).dtype == np.float32


def test_other_array_libraries_share_too():
    tensor = torch.ones(3)
    same = to_torch(tensor)
    assert same.data_ptr() == tensor.data_ptr()
    assert from_torch(tensor, tensor).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (1, 2), (2, 2)])
def test_cupy_makes_room_once_when_torch_has_none(monkeypatch, failures, tries):
    freed, tried = [], []
    pool = SimpleNamespace(free_all_blocks=lambda: freed.append(len(tried)))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(get_default_memory_pool=lambda: pool))
    monkeypatch.setattr(dlpack, "is_cupy_array", lambda array: array == "cupy")

    def work():
        tried.append(1)
        if len(tried) <= failures:
            raise torch.OutOfMemoryError
        return "done"

    if failures < 2:
        assert dlpack.with_room(work, "cupy") == "done"
    else:
        with pytest.raises(torch.OutOfMemoryError):
            dlpack.with_room(work, "cupy")
    assert len(tried) == tries
    assert freed == [1] * (tries - 1)


def test_no_room_on_the_host_is_final():
    def work():
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        dlpack.with_room(work, np.zeros(1))
