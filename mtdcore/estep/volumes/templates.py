"""The views of one E-step, their templates in a basis of the band, and the transfer of a micrograph in this basis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...model.likelihood import WindowLikelihood
from ...model.volumes.projections import Projections
from ..backends.array.backend import ArrayBackend
from ..backends.matrix import Basis, Scores

#: Offsets scored at a corner, in pixels down and to the right of it: without and with sub-pixel shifts.
WHOLE = ((0.0, 0.0),)
HALVES = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5))

#: Number of frequencies at which squared transfers are kept: between two of them, oscillating CTFs are nearly linear.
PROFILE = 257


@dataclass(frozen=True, eq=False)
class Search:
    """Views of one E-step with their templates.

    Attributes:
        views: all scored views.
        coarse: fewer views, which find the places; None: all views are scored everywhere.
        subpixel: whether sub-pixel shifts are scored at places.
    """

    views: Projections
    coarse: Projections | None = None
    subpixel: bool = False


@dataclass(frozen=True, eq=False)
class Templates:
    """Templates of one set of views in a basis of their band.

    Attributes:
        basis: the basis.
        coefficients: (T, r) float64.
        offsets: sub-pixel offsets of copies at a place, (down, right) in pixels.
    """

    basis: Basis
    coefficients: np.ndarray
    offsets: tuple[tuple[float, float], ...] = WHOLE

    @classmethod
    def of(cls, views: Projections, volume: np.ndarray, subpixel: bool = False) -> Templates:
        """The templates of the projections of a volume."""
        basis = Basis(views.box_size, views.band)
        coefficients = basis.coefficients(np.asarray(views.apply(volume)))
        return cls(basis, coefficients, HALVES if subpixel else WHOLE)

    def scores(
        self, likelihood: WindowLikelihood, factors: np.ndarray | float, arrays: ArrayBackend
    ) -> Scores:
        """Scores of the templates, their coefficients multiplied by (r,) factors."""
        log_prior = likelihood.log_activity - math.log(len(self.coefficients))
        return Scores(
            self.coefficients * factors, likelihood.noise_std, log_prior, arrays, likelihood.amplitudes
        )

    def lost(self, likelihood: WindowLikelihood, factors: np.ndarray | float) -> float:
        """Largest loss in nats, ``||F - S F||^2 / 2 sigma^2``, of a copy at the farthest offset S that is scored at its corner."""
        if len(self.offsets) == 1:
            return 0.0
        shown, (own, its, other) = self.coefficients * factors, self.basis.between(max(self.offsets))
        apart = np.square((1.0 - own) * shown - its * shown[:, other]).sum(axis=1)
        return float(apart.max()) / (2.0 * likelihood.noise_std**2)


def templates_of(volume: np.ndarray, search: Search) -> list[Templates]:
    """The templates of a search, the fine ones first."""
    fine = Templates.of(search.views, volume, search.subpixel)
    return [fine] if search.coarse is None else [fine, Templates.of(search.coarse, volume)]


@dataclass(frozen=True, eq=False)
class Transfer:
    """The transfer function of one micrograph in the basis of the templates.

    Attributes:
        factors: (r,) transfer of each function of the basis.
        squares: (R,) squared transfer at frequencies evenly spaced from 0 to 1/2 cycles per pixel.
        constant: transfer of frequency 0.
    """

    factors: np.ndarray
    squares: np.ndarray
    constant: float

    @classmethod
    def of(cls, profile: np.ndarray, basis: Basis) -> Transfer:
        """The transfer of (R,) factors as in :attr:`mtdcore.Micrographs.transfer`."""
        at, fine = np.linspace(0.0, 0.5, len(profile)), np.linspace(0.0, 0.5, PROFILE)
        squares = np.square(np.interp(fine, at, profile))
        return cls(np.interp(basis.lengths, at, profile), squares, float(profile[0]))
