"""A prior that is asked on the device of a backend, whatever holds the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._base.typing import Array
from ...model.priors import Prior, is_flat
from .base import Backend


@dataclass(frozen=True, eq=False)
class _Placed:
    """Host arrays go to the device and answers come back; a network follows the arrays that it is given and would else move to and fro."""

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
        """What else the prior says: its centre, its units."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.prior, name)


def placed(prior: Prior, backend: Backend) -> Prior:
    """The prior, asked on the device of a backend; the same object where that is the host, or where the prior is flat."""
    on_host = isinstance(backend.asarray(np.zeros(1)), np.ndarray)
    return prior if on_host or is_flat(prior) else _Placed(prior, backend)
