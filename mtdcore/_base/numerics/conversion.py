"""Arrays on their way between the host and other libraries."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import DTypeLike

from ..typing import Array


def on_host(array: Array, dtype: DTypeLike | None = None) -> np.ndarray:
    """An array of any library as a NumPy array of its values."""
    if hasattr(array, "detach"):  # torch: perhaps on a device, perhaps with a gradient
        array = array.detach().cpu()
    elif hasattr(array, "get"):  # CuPy: the only way to the host
        array = array.get()
    return np.asarray(array, dtype)


def like(array: np.ndarray, other: Array, dtype: object = None) -> Array:
    """A host array in the library and on the device of another one; its own dtype unless another one is given."""
    return array_namespace(other).asarray(array, dtype=dtype, device=device(other))
