"""Local search over angles: coarse angles say where copies are, all angles are scored there (window model).

The E-step of a tile at K angles costs K correlations of the whole tile, although nearly all corners can be ruled out
with a few angles as soon as the target resembles the particle. So the posterior at ``coarse`` angles is computed
everywhere. The corners that hold all but a small share of it, and those next to them, are the *places*. There, windows are cut
out and scored against all K templates, which is one matrix product; another one is the back-projection. The exclusion
between copies is that of docs/model.md 7. This is the adaptive oversampling of the field (Scheres, *RELION:
implementation of a Bayesian approach to cryo-EM structure determination*, 2012, section 2.3).

Where the posterior is not sharp (too many places, or too much of it elsewhere) the tile is left to the E-step at K
angles. Each tile decides for itself, from its pixels alone, so results do not depend on threads or executors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from array_api_compat import device
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import maximum_filter

from ..._base.typing import Array
from ...data.tiles import Tile
from ...errors import ParameterError
from ...model.likelihood import Likelihood, WindowLikelihood
from ..statistics import Statistics
from .base import Backend
from .collect import window_sums
from .competition import log_partition
from .cpu.backend import CpuBackend
from .library import ALL
from .ordered import ordered

#: Corners of less coarse posterior mass than this, summed over angles, are no places of copies.
_MASS = 1e-4

#: Largest expected number of copies left out of a tile, per copy found in it or per tile.
_NEGLECTED = 1e-3

#: Around a corner found with a coarse angle, places reach this far: the right angle may suit a neighbour.
_REACH = 1

#: Largest share of places among the corners: above, correlations of the whole tile are cheaper.
_LARGEST_SHARE = 0.02


@dataclass(frozen=True)
class LocalSearch:
    """A backend that scores most corners at few angles; see :class:`Backend` for the contract.

    It stands in for another backend, whose array library and precision it has; patches are left to it altogether.

    Attributes:
        inner: the backend that correlates whole tiles.
        coarse: number of angles that find the places. A copy half a coarse angle off should still correlate well.
    """

    inner: Backend
    coarse: int

    @property
    def name(self) -> str:
        """Name of the inner backend."""
        return self.inner.name

    @property
    def xp(self) -> Array:
        """Array library of the inner backend."""
        return self.inner.xp

    @property
    def precision(self) -> str:
        """Precision of the inner backend; windows are scored in float64."""
        return self.inner.precision

    def asarray(self, array: Array) -> Array:
        """See :meth:`Backend.asarray`."""
        return self.inner.asarray(array)

    def to_host(self, array: Array) -> np.ndarray:
        """See :meth:`Backend.to_host`."""
        return self.inner.to_host(array)

    def synchronize(self) -> None:
        """See :meth:`Backend.synchronize`."""
        self.inner.synchronize()

    def tile_pixels(self, likelihood: Likelihood) -> int:
        """See :meth:`Backend.tile_pixels`."""
        return self.inner.tile_pixels(likelihood)

    def posterior(self, tile: Tile, templates: Array, likelihood: Likelihood) -> np.ndarray:
        """At every corner and all angles, see :meth:`Backend.posterior`."""
        return self.inner.posterior(tile, templates, likelihood)

    def accumulate(self, tiles: Iterable[Tile], templates: Array, likelihood: Likelihood) -> Statistics:
        """Sum of the statistics of the tiles, each by local search if it can; see :meth:`Backend.accumulate`."""
        if not isinstance(likelihood, WindowLikelihood) or self.coarse >= likelihood.rotations:
            return self.inner.accumulate(tiles, templates, likelihood)
        total = self.inner.accumulate((), templates, likelihood)
        threads, alone = 1, self
        if isinstance(self.inner, CpuBackend):  # threads share out the tiles, not also the work on each
            threads, alone = self.inner.threads, replace(self, inner=self.inner.with_threads(1))
        work = partial(alone._statistics, turned=templates, likelihood=likelihood)
        for part in ordered(work, tiles, threads):
            total = total + part
        return total

    def log_odds(
        self, tile: Tile, templates: Array, likelihood: WindowLikelihood, part: slice = ALL
    ) -> np.ndarray:
        """At all angles, see :meth:`Backend.log_odds`."""
        return self.inner.log_odds(tile, templates, likelihood, part)

    def project(
        self,
        tile: Tile,
        templates: Array,
        likelihood: WindowLikelihood,
        log_norm: np.ndarray,
        part: slice = ALL,
    ) -> Statistics:
        """At every corner, see :meth:`Backend.project`."""
        return self.inner.project(tile, templates, likelihood, log_norm, part)

    def _statistics(self, tile: Tile, turned: Array, likelihood: WindowLikelihood) -> Statistics:
        angles = np.rint(np.arange(self.coarse) * likelihood.rotations / self.coarse).astype(int)
        chosen = np.add.outer(np.arange(likelihood.classes) * likelihood.rotations, angles).ravel()
        where = self.xp.asarray(chosen, device=device(turned))
        templates = self.xp.take(turned, where, axis=0)
        coarse = replace(likelihood, rotations=self.coarse)
        log_odds = self.inner.log_odds(tile, templates, coarse).astype(np.float64)
        places = find_places(log_odds, tile, likelihood)
        if places is None:
            return self.inner.accumulate([tile], turned, likelihood)
        return local_statistics(tile, log_odds, places, turned, likelihood, self.inner)


def search_with(
    backend: Backend, coarse: int | Literal["auto"] | None, rotations: int, box_size: int
) -> Backend:
    """The backend, with local search where that is asked for and can save anything.

    Args:
        backend: correlates whole tiles.
        coarse: number of angles that find the places; "auto": neighbours differ by four pixels at the edge of the box;
            None: no local search.
        rotations: number K of angles.
        box_size: side L.

    Raises:
        ParameterError: ``coarse`` is not positive.
    """
    if coarse == "auto":
        coarse = 4 * math.ceil(math.pi * box_size / 16)
        return LocalSearch(backend, coarse) if 2 * coarse <= rotations else backend
    if coarse is None:
        return backend
    if coarse < 1:
        raise ParameterError(f'coarse_rotations must be a positive number, "auto" or None; got {coarse}.')
    return LocalSearch(backend, coarse)


def find_places(log_odds: np.ndarray, tile: Tile, likelihood: WindowLikelihood) -> np.ndarray | None:
    """Corners that hold all but a small share of the posterior, and their neighbours.

    Args:
        log_odds: (P, Q) float64, of a copy at each corner of the pixels of the tile, before they compete.
        tile: the tile.
        likelihood: bound to the measurement.

    Returns:
        (P, Q) bool; None if the posterior is not sharp.
    """
    mass = np.exp(log_odds - log_partition(log_odds, likelihood))
    places = maximum_filter(mass > _MASS, size=2 * _REACH + 1, mode="constant")
    owned, found = mass[tile.owned], places[tile.owned]
    sharp = owned[~found].sum() <= _NEGLECTED * max(1.0, owned.sum())
    return places if sharp and places.sum() <= _LARGEST_SHARE * places.size else None


def local_statistics(
    tile: Tile,
    log_odds: np.ndarray,
    places: np.ndarray,
    turned: Array,
    likelihood: WindowLikelihood,
    backend: Backend,
) -> Statistics:
    """Statistics of a tile with copies at the places only, at all angles.

    Args:
        tile: of ``likelihood.geometry``, enlarged or not.
        log_odds: (P, Q) float64, of a copy at each corner of the pixels of the tile; right enough elsewhere, they are
            replaced at the places.
        places: (P, Q) bool, n of them true.
        turned: (C K, L, L) templates of the backend's library.
        likelihood: bound to the measurement.
        backend: gives the array library.
    """
    xp, side = backend.xp, likelihood.box_size + 2 * likelihood.margin
    windows = _Windows.cut(tile, places, likelihood, backend)
    at_angles = windows.log_odds(turned, likelihood, backend)
    peak = xp.max(at_angles, axis=1)
    at_places = peak + xp.log(xp.sum(xp.exp(at_angles - peak[:, None]), axis=1))
    log_odds = log_odds.copy()
    log_odds[places] = backend.to_host(at_places)
    log_norm = log_partition(log_odds, likelihood)
    owned = np.zeros_like(places)
    owned[tile.owned] = True
    # places that another tile owns have competed, and count there
    shrink = np.where(owned[places], -log_norm[places], -np.inf)
    weights = xp.matrix_transpose(xp.exp(at_angles + backend.asarray(shrink)[:, None]))
    mass = xp.sum(weights, axis=1)
    frame = (likelihood.templates, side, side)
    covered = (
        xp.broadcast_to(mass[:, None], (mass.shape[0], side**2))
        if windows.valid is None
        else weights @ windows.valid
    )
    return window_sums(
        tile,
        likelihood,
        float(log_norm[tile.owned].sum()),
        xp.reshape(weights @ windows.pixels, frame),
        xp.reshape(covered, frame) + 0.0,
        float(xp.sum(mass)),
    )


@dataclass(frozen=True)
class _Windows:
    """Frames (box and margin, B x B) of the windows at n places.

    Attributes:
        pixels: (n, B * B) float64 of the backend's library, 0 where not valid.
        valid: (n, B * B) float64, 1 where valid and 0 elsewhere; None: valid everywhere.
    """

    pixels: Array
    valid: Array | None

    @classmethod
    def cut(cls, tile: Tile, places: np.ndarray, likelihood: WindowLikelihood, backend: Backend) -> _Windows:
        """Cut them out of a tile, with zeros beyond it."""
        margin = likelihood.margin
        side = likelihood.box_size + 2 * margin

        def frames(values: np.ndarray) -> Array:
            every = sliding_window_view(np.pad(values, margin), (side, side))
            return backend.asarray(every[places].reshape(-1, side**2))

        if tile.valid is None and margin == 0:
            return cls(frames(tile.values), None)
        valid = np.ones(tile.values.shape, bool) if tile.valid is None else tile.valid
        return cls(frames(tile.values), frames(valid))

    def log_odds(self, turned: Array, likelihood: WindowLikelihood, backend: Backend) -> Array:
        """(n, C K) log (lam / K) + Lambda(x, k), one matrix product (two where pixels are missing)."""
        xp, length, margin = backend.xp, likelihood.box_size, likelihood.margin
        side, inner = length + 2 * margin, slice(margin, margin + length)

        def boxes(frames: Array) -> Array:
            return xp.reshape(xp.reshape(frames, (-1, side, side))[:, inner, inner], (-1, length**2))

        templates = xp.matrix_transpose(xp.reshape(turned, (-1, length**2)))
        energy = xp.sum(templates**2, axis=0) if self.valid is None else boxes(self.valid) @ templates**2
        log_prior = likelihood.template_bias + likelihood.log_activity - math.log(likelihood.templates)
        gain = boxes(self.pixels) @ templates - 0.5 * energy
        return gain / likelihood.noise_std**2 + backend.asarray(log_prior)
