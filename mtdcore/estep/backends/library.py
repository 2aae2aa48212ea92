"""Arrays of the library of a backend: inputs are checked, and never converted silently."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Self, cast

import numpy as np
from array_api_compat import is_array_api_obj

from ..._base.typing import Array
from ...data.tiles import Tile
from ...errors import ParameterError
from ...model.likelihood import Likelihood, WindowLikelihood

#: All templates of a likelihood: the default of ``part``.
ALL = slice(None)


#: Least number of tiles of one call, if a call has no fixed cost.
FEW_TILES = 8


class HostArrays:
    """Common base of backends of NumPy arrays; see :class:`Backend` for the contract."""

    if TYPE_CHECKING:

        @property
        def xp(self) -> Array:
            """NumPy."""

    else:
        xp = np

    tiles_together = FEW_TILES

    def asarray(self, array: Array) -> np.ndarray:
        """A float64 NumPy array; see :meth:`Backend.asarray`."""
        return host(array)

    def to_host(self, array: Array) -> np.ndarray:
        """The array itself."""
        return np.asarray(array)

    def active(self) -> AbstractContextManager[None]:
        """An empty context."""
        return nullcontext()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    @property
    def threads(self) -> int:
        """One, unless a subclass says otherwise."""
        return 1

    def alone(self) -> Self:
        """Itself."""
        return self


def host(array: Array) -> np.ndarray:
    """A float64 NumPy array of a host array.

    Raises:
        ParameterError: an array of another library than NumPy.
    """
    if is_array_api_obj(array) and not isinstance(array, np.ndarray | np.generic):
        raise ParameterError(
            f"expected a NumPy array, or one of the backend's own library; got {_named(array)}: convert it, or choose the "
            "backend of its library."
        )
    return np.asarray(array, dtype=np.float64)


def check_settings(precision: str, max_memory: int = 1) -> None:
    """Raise ParameterError unless the precision is float32 or float64, and ``max_memory`` is positive."""
    if precision not in ("float32", "float64"):
        raise ParameterError(f'precision must be "float32" or "float64"; got {precision!r}.')
    if max_memory < 1:
        raise ParameterError(f"max_memory must be a positive number of bytes; got {max_memory}.")


def checked(templates: Array, likelihood: Likelihood, xp: Array, part: slice = ALL) -> Array:
    """The templates, if they have the shape of ``part`` and are of the library ``xp``.

    Args:
        templates: should be a (t, L, L) array of ``xp``.
        likelihood: of all templates.
        xp: the array library.
        part: the t templates among those of the likelihood.

    Raises:
        ParameterError: an array of another library, another shape, or a part that leaves some templates out.
    """
    if not isinstance(templates, type(xp.zeros(()))):
        raise ParameterError(
            f"templates should be an array of {xp.__name__} (backend.asarray makes one); got {_named(templates)}."
        )
    if part.step not in (None, 1):
        raise ParameterError(f"part should be a slice of neighbouring templates; got step {part.step}.")
    count = len(range(*part.indices(likelihood.templates)))
    expected = (count, *likelihood.views.box_shape)
    if tuple(templates.shape) != expected or count == 0:
        raise ParameterError(
            f"templates should have shape {expected}, those of one box each; got {tuple(templates.shape)}."
        )
    return templates


def checked_norm(log_norm: np.ndarray, tile: Tile) -> np.ndarray:
    """The ``log_norm`` of :meth:`Backend.project`, if it is a NumPy array of the owned corners.

    Raises:
        ParameterError: it is not.
    """
    expected = tuple(s.stop - s.start for s in tile.owned)
    if not isinstance(log_norm, np.ndarray) or log_norm.shape != expected:
        shape = tuple(getattr(log_norm, "shape", ()))
        raise ParameterError(
            f"log_norm should be a NumPy array of shape {expected}, the corners that the tile owns; got "
            f"{_named(log_norm)} of shape {shape}."
        )
    return log_norm


def window_model(likelihood: Likelihood) -> WindowLikelihood:
    """The likelihood, if it is a window likelihood.

    Raises:
        ParameterError: it is not.
    """
    if not likelihood.localises:
        raise ParameterError(
            f"only the window model scores its templates in parts; got {type(likelihood).__name__}: give all templates "
            "of the patch model to accumulate."
        )
    return cast(WindowLikelihood, likelihood)


def _named(array: object) -> str:
    """Name of a type with its library."""
    return f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
