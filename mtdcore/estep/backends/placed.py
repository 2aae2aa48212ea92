"""A prior evaluated on the device of a backend, for images of any library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._base.typing import Array
from ...model.priors import Prior, is_flat
from .base import Backend


@dataclass(frozen=True, eq=False)
class _Placed:
    """Copies host arrays to the device and scores back; a network follows its inputs, and would otherwise move between devices."""

    prior: Prior
    backend: Backend

    def score(self, images: Array, noise_std: float) -> Array:
        """See :meth:`Prior.score`."""
        if not isinstance(images, np.ndarray):
            return self.prior.score(images, noise_std)
        with self.backend.active():
            answer = self.backend.to_host(self.prior.score(self.backend.asarray(images), noise_std))
        return answer.astype(images.dtype, copy=False)

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the prior: its centre, its units."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.prior, name)


def placed(prior: Prior, backend: Backend) -> Prior:
    """The prior, evaluated on the device of a backend; the same object if the device is the host or the prior is flat."""
    on_host = isinstance(backend.asarray(np.zeros(1)), np.ndarray)
    return prior if on_host or is_flat(prior) else _Placed(prior, backend)
