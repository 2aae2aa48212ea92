"""The backend contract: a few coarse operations. How correlations are computed is up to the backend."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias

import numpy as np

from ..._base.typing import Array
from ...data.tiles import Tile
from ...model.likelihood import Likelihood, WindowLikelihood
from ..sums import TemplateSums
from .library import ALL

#: Power of the amplitude of a copy whose posterior mean multiplies its weight.
Moment: TypeAlias = Literal[0, 1, 2]


class Backend(Protocol):
    """Scores tiles against templates and sums their statistics."""

    @property
    def name(self) -> str:
        """The name: "reference", "cpu", "cuda:0", ..., as :func:`mtdcore.get_backend` takes it."""
        ...

    @property
    def xp(self) -> Array:
        """The array library that ``asarray`` returns and ``accumulate`` expects."""
        ...

    @property
    def precision(self) -> str:
        """The precision, "float32" or "float64": dtype of the correlations; sums are always float64."""
        ...

    @property
    def threads(self) -> int:
        """Number of tiles that :mod:`mtdcore.estep.local` may process at once."""
        ...

    def alone(self) -> Backend:
        """The same backend on one thread."""
        ...

    def asarray(self, array: Array) -> Array:
        """A host array as a float64 array of this backend's library; its own arrays in float64.

        Raises:
            ParameterError: an array of a third library, which is never converted silently.
        """
        ...

    def to_host(self, array: Array) -> np.ndarray:
        """An array of this backend as a NumPy array."""
        ...

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """Side of the tiles, in pixels read, that suit the device; tiles of any size are accepted.

        The E-step keeps the likelihood's own cut if its tiles are larger: 0 leaves the cut to the likelihood. The side depends on the
        likelihood and the device, never on threads or other load.
        """
        ...

    @property
    def tiles_together(self) -> int:
        """Least number of tiles of one call of :meth:`accumulate`: larger if a call has a fixed cost.

        It determines the order of sums, and therefore depends on the kind of device only.
        """
        ...

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> TemplateSums:
        """Sum of the statistics of the tiles, added in the order given.

        Args:
            tiles: host tiles of ``likelihood.geometry``, enlarged or not.
            templates: (T, L, L) floating-point array of this backend's library, class by class.
            likelihood: bound to the measurement (:meth:`bind`).

        Returns:
            Sums whose arrays belong to this backend's library; zeros for no tiles. The same bits for any
            number of threads.

        Raises:
            ParameterError: templates of another library or shape.
        """
        ...

    def posterior(
        self, tile: Tile, templates: Array, likelihood: Likelihood, moment: Moment = 0
    ) -> np.ndarray:
        """Posterior weights of one tile, on the host.

        Args:
            tile: as for :meth:`accumulate`.
            templates: as for :meth:`accumulate`.
            likelihood: as for :meth:`accumulate`.
            moment: 1 or 2: each weight times the posterior mean of this power of the amplitude, given a copy there
                (:class:`mtdcore.model.likelihood.amplitudes.Amplitudes`).

        Returns:
            Patch model: (patch rows, patch columns, T, 2L, 2L), shifts l as in docs/model.md 3.
            Window model: (T, owned rows, owned columns), one weight per template and corner.

        Raises:
            ParameterError: templates of another library or shape.
        """
        ...

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """Log of sum_k (lam / K) exp(Lambda(x, k)) at every corner x of the pixels of a tile, on the host.

        See docs/model.md 7. The sum is over the given templates. If these are a part of all templates, the prior
        (``lam / K``, ``template_bias``) is still that of all, so that ``logaddexp`` adds the log-odds of the parts.

        Args:
            tile: as for :meth:`accumulate`.
            templates: (t, L, L) array of this backend's library.
            likelihood: of all templates, bound to the measurement.
            part: which t of ``likelihood.templates`` these are: neighbours, in order.

        Returns:
            (P, Q) floating point, also at the corners of the halo, before corners compete.

        Raises:
            ParameterError: not the window model, or templates of another library or shape.
        """
        ...

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> TemplateSums:
        """The second half of :meth:`accumulate` for one tile: sums of the posterior ``exp(log a_k(x) - log_norm(x))``.

        Thousands of templates are scored in parts::

            odds = reduce(np.logaddexp, (backend.log_odds(tile, made(p), likelihood, p) for p in parts))
            norm = competition.log_norm(odds, tile, likelihood)
            sums = [backend.project(tile, made(p), likelihood, norm, p) for p in parts]

        Args:
            tile: as for :meth:`accumulate`.
            templates: (t, L, L) array of this backend's library.
            likelihood: of all templates, bound to the measurement.
            log_norm: (owned rows, owned columns) floating-point NumPy array, log(1 + S) of all templates at the corners
                that the tile owns (:func:`.competition.log_norm`).
            part: which t of ``likelihood.templates`` these are: neighbours, in order.

        Returns:
            Sums of the t templates: backprojection, coverage and expected count of these, which add up over the parts.
            Evidence, energy, sites and pixels are those of the tile, the same in every part: count
            them once.

        Raises:
            ParameterError: not the window model, or templates or ``log_norm`` of another library or shape.
        """
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make the device of this backend the current one: the array library computes on it within the block."""
        ...

    def synchronize(self) -> None:
        """Wait until all work of the device is done."""
        ...
