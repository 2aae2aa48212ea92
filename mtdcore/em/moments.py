"""A recovery that begins, or ends, with the moments of the measurement (docs/model.md 16)."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .._base.typing import plain
from ..data import Measurement
from ..errors import ParameterError
from ..estep.backends import Backend
from ..model.filters.optics import Micrographs
from ..model.priors import Prior
from ..model.views import Views
from ..moments.fit import MomentFit, fit_moments
from ..moments.measure import measure_moments
from .starts import Start

#: How a target is found.
Method: TypeAlias = Literal["em", "moments"]


def asks_for_moments(method: Method, initial: ArrayLike | Start | None) -> bool:
    """Whether a run needs the moments of its measurement.

    Raises:
        ParameterError: no such method, or a start that it does not have.
    """
    if method not in ("em", "moments"):
        raise ParameterError(f'method must be "em" or "moments"; got {method!r}.')
    word = isinstance(initial, str)
    if method == "moments" and word:
        raise ParameterError(
            f"the method of moments has random starts of its own, or an image to start from; got initial={initial!r}: leave it out."
        )
    return method == "moments" or (word and initial == "moments")


def check_alike(micrographs: Micrographs | Literal["each"] | None) -> None:
    """Raise ParameterError where micrographs are told apart: their moments are pooled."""
    if micrographs is not None:
        raise ParameterError(
            "moments take micrographs to be alike, in noise, density and transfer: leave out micrographs (--micrographs alike), or recover by EM "
            "from another start."
        )


def from_moments(
    source: Measurement,
    views: Views,
    prior: Prior,
    initial: ArrayLike | Start | None,
    starts: int | None,
    seed: int,
    backend: Backend,
    executor: Executor | None,
) -> MomentFit:
    """The fit to the moments of a measurement; arguments as in :func:`mtdcore.recover`."""
    moments = measure_moments(source, plain(*views.box_shape), backend=backend, executor=executor)
    image = None if initial is None or isinstance(initial, str) else np.asarray(initial, np.float64)
    return fit_moments(moments, views, prior, initial=image, starts=starts, seed=seed)
