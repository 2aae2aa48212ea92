"""The backend contract: a few coarse operations; how the correlations are done is the backend's secret."""

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
        """The name: "reference", "cpu", "cuda:0", ...; :func:`mtdcore.get_backend` finds it again by this name."""
        ...

    @property
    def xp(self) -> Array:
        """The array library that ``asarray`` returns and ``accumulate`` expects."""
        ...

    @property
    def precision(self) -> str:
        """The precision, "float32" or "float64": dtype of the correlations; sums are float64 always."""
        ...

    @property
    def threads(self) -> int:
        """Tiles that :mod:`mtdcore.estep.local` may work on at once."""
        ...

    def alone(self) -> Backend:
        """The same backend on one thread."""
        ...

    def asarray(self, array: Array) -> Array:
        """A host array as a float64 array of this backend's library; its own arrays in float64.

        Raises:
            ParameterError: an array of a third library: nothing is converted in silence.
        """
        ...

    def to_host(self, array: Array) -> np.ndarray:
        """An array of this backend as a NumPy array."""
        ...

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """Side of the tiles, in pixels read, that suit the device; tiles of any size are accepted.

        The E-step keeps the likelihood's own cut where that is larger, so 0 leaves the cut to it. Depends on the likelihood
        and the device, never on threads or on what else runs.
        """
        ...

    @property
    def tiles_together(self) -> int:
        """Least number of tiles of one call of :meth:`accumulate`: more where a call has work of its own, whatever the number of tiles.

        The order of sums follows from it, so it depends on the kind of device alone.
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
            templates: likewise.
            likelihood: likewise.
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

        See docs/model.md 7. The sum is over the templates given. Where these are a part of all of them, the prior
        (``lam / K``, ``template_bias``) is still that of all, so the log-odds of the parts add up by ``logaddexp``.

        Args:
            tile: as for :meth:`accumulate`.
            templates: (t, L, L) array of this backend's library.
            likelihood: of all templates, bound to the measurement.
            part: which t of ``likelihood.templates`` these are: neighbours, in order.

        Returns:
            (P, Q) floating point: corners of the halo too, none of them in competition with others yet.

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
            Sums of the t templates: backprojection, coverage and expected count are theirs and those of the parts
            make up those of all. Evidence, energy, sites and pixels are those of the tile, the same in every part: count
            them once.

        Raises:
            ParameterError: not the window model, or templates or ``log_norm`` of another library or shape.
        """
        ...

    def active(self) -> AbstractContextManager[None]:
        """Makes the device of this backend the current one: what the array library does in the block happens there."""
        ...

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""
        ...
