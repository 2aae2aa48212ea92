"""Arrays and tensors that share memory, through the DLPack protocol.

:func:`to_torch` and :func:`from_torch` share or raise; they never copy. :func:`normalise` makes an array shareable,
copying only if it has to; :func:`copy_to_torch` and :func:`copy_from_torch` always copy. Shared memory lives as long as
the array or the tensor does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.utils.dlpack
from array_api_compat import array_namespace, is_cupy_array, is_numpy_array
from torch import Tensor

from mtdcore._base.typing import Array
from mtdcore.errors import InputError

Result = TypeVar("Result")


class ZeroCopyError(InputError):
    """Memory cannot be shared as asked; :func:`copy_to_torch` and :func:`copy_from_torch` can convert it."""


def to_torch(
    array: Array, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None
) -> Tensor:
    """The tensor that shares the memory of ``array``.

    Args:
        array: NumPy, CuPy or any array with ``__dlpack__``; positive strides, native byte order, writable.
        dtype: what the tensor must be; None: whatever the array is.
        device: where it must be; None: wherever the array is.

    Raises:
        ZeroCopyError: sharing is impossible.
    """
    obstacle = _obstacle(array)
    if obstacle is not None:
        raise ZeroCopyError(
            f"expected memory that torch can share; {obstacle}: use normalise or copy_to_torch."
        )
    try:
        tensor: Tensor = torch.utils.dlpack.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, AttributeError) as error:
        raise ZeroCopyError(
            f"torch cannot share this {type(array).__name__} ({error}): use copy_to_torch."
        ) from error
    if dtype is not None and tensor.dtype != dtype:
        raise ZeroCopyError(f"expected dtype {dtype}; the array is {tensor.dtype}: use copy_to_torch.")
    if device is not None and not _same_device(tensor.device, torch.device(device)):
        raise ZeroCopyError(
            f"expected memory on {device}; the array lies on {tensor.device}: use copy_to_torch."
        )
    return tensor


def from_torch(tensor: Tensor, like: Array) -> Array:
    """The array that shares the memory of ``tensor``.

    Args:
        tensor: strided, on a device that the library of ``like`` can address; its gradient history is ignored.
        like: any array of the wanted library; only its type counts.

    Raises:
        ZeroCopyError: sharing is impossible, for instance a CUDA tensor for NumPy.
    """
    detached = tensor.detach()
    if detached.is_conj() or detached.is_neg():
        raise ZeroCopyError(
            "a lazily conjugated or negated tensor has no memory to share: use copy_from_torch."
        )
    on_host = detached.device.type == "cpu"
    if (is_numpy_array(like) and not on_host) or (is_cupy_array(like) and on_host):
        raise ZeroCopyError(
            f"a {type(like).__module__} array cannot share memory on {detached.device}: use copy_from_torch."
        )
    if is_numpy_array(like):
        try:
            return detached.numpy()  # writable, which np.from_dlpack does not promise
        except TypeError as error:  # bfloat16, sparse
            raise ZeroCopyError(f"NumPy cannot share this tensor ({error}): use copy_from_torch.") from error
    try:
        return array_namespace(like).from_dlpack(detached)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ZeroCopyError(f"cannot share this tensor ({error}): use copy_from_torch.") from error


def normalise(array: Array) -> Array:
    """``array`` itself if it is C-contiguous and shareable, otherwise a copy of it that is; same library and values."""
    if _obstacle(array) is None and _is_contiguous(array):
        return array
    if is_numpy_array(array):
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return array_namespace(array).asarray(array, order="C", copy=True)


def copy_to_torch(
    array: Array, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None
) -> Tensor:
    """A tensor with memory of its own; arguments as in :func:`to_torch`, which here convert."""
    return to_torch(normalise(array)).to(device=device, dtype=dtype, copy=True)


def copy_from_torch(tensor: Tensor, like: Array) -> Array:
    """An array of the library of ``like`` with memory of its own, on the device of ``like``."""
    dense = tensor.detach().resolve_conj().resolve_neg()
    dense = dense.float() if dense.dtype == torch.bfloat16 else dense
    if is_numpy_array(like):
        return np.array(dense.cpu().numpy())
    return array_namespace(like).asarray(dense.cpu().numpy(), copy=True)


@contextmanager
def shared_stream(array: Array) -> Iterator[None]:
    """Within the block torch works on the current CUDA stream of CuPy, so that neither library waits for the other.

    Memory freed by either library is then reused in the order of this one stream, after the kernels that still read it.
    """
    if not is_cupy_array(array):
        yield
        return
    import cupy

    pointer = cupy.cuda.get_current_stream().ptr
    stream = torch.cuda.ExternalStream(pointer, device=array.device.id)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield


def with_room(work: Callable[[], Result], array: Array) -> Result:
    """The result of ``work``, which is tried again after CuPy's pool has released its unused blocks if torch runs out of memory.

    Args:
        work: allocates torch memory on the device of ``array``.
        array: input of ``work``; unless it is a CuPy array, the first failure is final.

    Raises:
        torch.OutOfMemoryError: the memory does not suffice after that either.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        if not is_cupy_array(array):
            raise
    # Outside the handler: the failed attempt's tensors are gone, and neither error keeps the other's alive.
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    return work()


def _obstacle(array: Array) -> str | None:
    """Why torch must not be handed this memory; checked here because torch aborts on some of it."""
    strides = getattr(array, "strides", None)
    if isinstance(strides, tuple) and any(step < 0 for step in strides):
        return "the array has negative strides"
    if is_numpy_array(array):
        if not array.flags.writeable:
            return "the array is read-only and tensors are always writable"
        if not array.dtype.isnative:
            return f"the array has the foreign byte order {array.dtype.str}"
    return None


def _is_contiguous(array: Array) -> bool:
    flags = getattr(array, "flags", None)
    return True if flags is None else bool(flags.c_contiguous)


def _same_device(found: torch.device, wanted: torch.device) -> bool:
    return found.type == wanted.type and (wanted.index is None or found.index == wanted.index)
