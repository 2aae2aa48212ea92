"""Local search over views: a coarse set of views finds the places of copies, all views are scored there (window model).

The E-step of a tile at K angles costs K correlations of the whole tile, although a few angles rule out nearly all corners
once the target resembles the particle. The posterior at ``coarse`` angles is therefore computed
everywhere. The corners that hold nearly all of the posterior mass, and their neighbours, are the *places*. Windows at the places are
cut out and scored against all K templates, by one matrix product; another product is the back-projection. The exclusion
between copies is that of docs/model.md 7. The method is known as adaptive oversampling (Scheres, *RELION:
implementation of a Bayesian approach to cryo-EM structure determination*, 2012, section 2.3).

If the posterior is not sharp (too many places, or too much mass elsewhere), the tile gets the full E-step at K
angles, on whole pixels; sub-pixel shifts are scored only at places. The decision for a tile depends on its pixels only, so
results do not depend on threads or executors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import cast

import numpy as np
from array_api_compat import array_namespace, device
from numpy.lib.stride_tricks import sliding_window_view

from .._base.numerics.fourier import radial_filter
from .._base.typing import Array
from ..data.tiles import Tile
from ..model.likelihood import Likelihood, WindowLikelihood
from ..model.poses import Poses, on_whole_pixels
from ..model.views import Views
from .backends import Backend
from .backends.collect import window_sums
from .backends.competition import log_partition
from .backends.ordered import ordered
from .sums import TemplateSums

#: Coarse posterior mass of a corner, summed over angles, above which it is a place.
_MASS = 1e-4

#: Largest expected number of copies outside of the places of a tile, per copy found in it, or per tile if less than one is found.
_NEGLECTED = 1e-3

#: The same if copies differ in amplitude: noise then resembles faint copies everywhere, none of them at a certain place. With
#: the limit _NEGLECTED hardly any tile was sharp, and copies between pixels stayed on whole pixels.
_FAINT = 0.05

#: Distance up to which neighbours of a corner found with coarse angles are places: the correct angle may score higher there.
_REACH = 1

#: Largest share of places among the corners; above it, correlations of the whole tile are cheaper.
_LARGEST_SHARE = 0.02


@dataclass(frozen=True)
class Search:
    """The templates of an E-step, and a coarse set of them that finds the places of copies.

    Attributes:
        backend: scores them.
        templates: (T, L, L) of the backend's library.
        few: (t, L, L) templates of the coarse views; None: all views are scored everywhere.
        coarse: the coarse views, of the kind of ``likelihood.views``; None if ``few`` is None.
        whole: (n,) int64 indices of the templates on whole pixels, which are scored in tiles without places.
        complete: whether the coarse views are all views on whole pixels.
    """

    backend: Backend
    templates: Array
    few: Array | None = None
    coarse: Views | None = None
    whole: np.ndarray | None = None
    complete: bool = False

    @classmethod
    def of(cls, backend: Backend, target: Array, likelihood: Likelihood, coarse: int | None) -> Search:
        """The search for a target; without a coarse set if it would save nothing, or the likelihood does not localise copies."""
        views = likelihood.shown
        templates = views.apply(target)
        if coarse is None or not likelihood.localises or coarse * views.classes >= views.count:
            return cls(backend, templates)
        whole = Poses.of(views).whole
        if coarse * views.classes >= len(whole):
            few = _taken(templates, whole)
            return cls(backend, templates, few, on_whole_pixels(likelihood.views), whole, complete=True)
        around, named = views.coarse(coarse), likelihood.views.coarse(coarse)
        if around is None or named is None:
            return cls(backend, templates)
        return cls(backend, templates, around.apply(target), named, whole)

    def through(self, transfer: np.ndarray | None) -> Search:
        """The search with templates through a transfer, (R,), of a micrograph."""
        if transfer is None:
            return self
        few = None if self.few is None else radial_filter(self.few, transfer)
        return replace(self, templates=radial_filter(self.templates, transfer), few=few)

    def sums(self, tiles: Iterable[Tile], likelihood: Likelihood) -> TemplateSums:
        """Sums of some tiles, each by local search if its posterior is sharp."""
        if self.few is None:
            return self.backend.accumulate(tiles, self.templates, likelihood)
        total = self.backend.accumulate((), self.templates, likelihood)
        alone = replace(self, backend=self.backend.alone())  # threads share the tiles, not the work on each
        for part in ordered(partial(alone._locally, likelihood=likelihood), tiles, self.backend.threads):
            total = total + part
        return total

    def _locally(self, tile: Tile, likelihood: Likelihood) -> TemplateSums:
        likelihood = cast(WindowLikelihood, likelihood)  # it localises, see Search.of
        coarse = replace(likelihood, views=cast(Views, self.coarse))
        log_odds = self.backend.log_odds(tile, self.few, coarse).astype(np.float64)
        log_norm = log_partition(log_odds, likelihood)
        places = _places(log_odds, log_norm, likelihood, tile)
        if places is not None:
            return local_sums(tile, log_odds, places, self.templates, likelihood, self.backend)
        if self.complete:  # scored already
            return self._spread(self.backend.project(tile, self.few, coarse, log_norm[tile.owned]))
        return self._on_whole_pixels(tile, likelihood)

    def weights(self, tile: Tile, likelihood: WindowLikelihood) -> tuple[np.ndarray, np.ndarray] | None:
        """Posterior of the owned corners of a tile, times amplitudes and times their squares, zero outside of places; None: no places.

        Returns:
            Two (T, owned rows, owned columns) float64 arrays; one and the same if all amplitudes are 1.
        """
        if self.few is None or self.coarse is None:
            return None
        coarse = replace(likelihood, views=self.coarse)
        log_odds = self.backend.log_odds(tile, self.few, coarse).astype(np.float64)
        log_norm = log_partition(log_odds, likelihood)
        places = _places(log_odds, log_norm, likelihood, tile)
        if places is None:
            return None
        found = _AtPlaces.of(tile, log_odds, places, self.templates, likelihood, self.backend)

        def spread(weights: Array) -> np.ndarray:
            every = np.zeros((likelihood.templates, *places.shape))
            every[:, places] = self.backend.to_host(weights)
            return every[(slice(None), *tile.owned)]

        first = spread(found.first)
        return first, first if found.second is found.first else spread(found.second)

    def _on_whole_pixels(self, tile: Tile, likelihood: WindowLikelihood) -> TemplateSums:
        """Sums of a tile over the templates on whole pixels; zero for all other templates."""
        whole = cast(np.ndarray, self.whole)
        if len(whole) == likelihood.templates:
            return self.backend.accumulate([tile], self.templates, likelihood)
        model = replace(likelihood, views=on_whole_pixels(likelihood.views))
        return self._spread(self.backend.accumulate([tile], _taken(self.templates, whole), model))

    def _spread(self, sums: TemplateSums) -> TemplateSums:
        """Sums over the templates on whole pixels as sums over all templates."""
        xp, whole = self.backend.xp, cast(np.ndarray, self.whole)
        chosen = self.backend.asarray(np.eye(self.templates.shape[0])[:, whole])

        def spread(frames: Array) -> Array:
            flat = xp.reshape(frames, (len(whole), -1))
            return xp.reshape(chosen @ flat, (chosen.shape[0], *frames.shape[1:]))

        return sums.moved(spread)


def _taken(templates: Array, chosen: np.ndarray) -> Array:
    """Some of the templates, by number."""
    xp = array_namespace(templates)
    return xp.take(templates, xp.asarray(chosen, device=device(templates)), axis=0)


def _places(
    log_odds: np.ndarray, log_norm: np.ndarray, likelihood: WindowLikelihood, tile: Tile
) -> np.ndarray | None:
    """See :func:`find_places`."""
    neglected = _NEGLECTED if likelihood.amplitudes is None else _FAINT
    return find_places(log_odds, likelihood, tile.owned, _LARGEST_SHARE, neglected, log_norm)


def find_places(
    log_odds: Array,
    likelihood: WindowLikelihood,
    counted: tuple[slice, slice],
    largest_share: float,
    neglected: float,
    log_norm: Array | None = None,
) -> Array | None:
    """Corners that hold nearly all of the posterior mass, and their neighbours.

    Args:
        log_odds: (P, Q) float64, log-odds of a copy at each corner of the pixels of a tile, before corners compete.
        likelihood: bound to the measurement.
        counted: corners whose copies count.
        largest_share: share of places among all corners above which the posterior is not sharp.
        neglected: expected copies outside of places, per copy or per tile, above which the posterior is not sharp.
        log_norm: (P, Q) float64, :func:`log_partition` of the log-odds; None: not known yet.

    Returns:
        (P, Q) bool of the library of the log-odds; None if the posterior is not sharp.
    """
    xp = array_namespace(log_odds)
    log_mass = log_odds - (log_partition(log_odds, likelihood) if log_norm is None else log_norm)
    places = _widened(log_mass > math.log(_MASS))
    if int(xp.count_nonzero(places)) > largest_share * math.prod(log_mass.shape):
        return None
    mass, found = xp.exp(log_mass[counted]), places[counted]
    sharp = float(xp.sum(mass[~found])) <= neglected * max(1.0, float(xp.sum(mass)))
    return places if sharp else None


def _widened(corners: Array) -> Array:
    """Corners and their neighbours; (P, Q) bool both."""
    xp, (rows, columns) = array_namespace(corners), corners.shape
    wide = xp.zeros((rows + 2 * _REACH, columns + 2 * _REACH), dtype=xp.bool, device=device(corners))
    for down, right in product(range(2 * _REACH + 1), repeat=2):
        wide[down : down + rows, right : right + columns] |= corners
    return wide[_REACH:-_REACH, _REACH:-_REACH]


def local_sums(
    tile: Tile,
    log_odds: np.ndarray,
    places: np.ndarray,
    templates: Array,
    likelihood: WindowLikelihood,
    backend: Backend,
) -> TemplateSums:
    """Sums of a tile with copies at the places only, at all angles.

    Args:
        tile: of ``likelihood.geometry``, enlarged or not.
        log_odds: (P, Q) float64, log-odds of a copy at each corner of the pixels of the tile; those at places are
            replaced by exact ones.
        places: (P, Q) bool, n of them true.
        templates: (T, L, L) of the backend's library.
        likelihood: bound to the measurement.
        backend: gives the array library.
    """
    xp, pixels = backend.xp, math.prod(likelihood.frame_shape)
    found = _AtPlaces.of(tile, log_odds, places, templates, likelihood, backend)
    windows, first, second = found.windows, found.first, found.second
    mass = xp.sum(found.weights, axis=1)
    sums = None if likelihood.amplitudes is None else (float(xp.sum(first)), float(xp.sum(second)))
    frame = (likelihood.templates, *likelihood.frame_shape)
    covered = (
        xp.broadcast_to(xp.sum(second, axis=1)[:, None], (mass.shape[0], pixels))
        if windows.valid is None
        else second @ windows.valid
    )
    return window_sums(
        tile,
        likelihood,
        float(found.log_norm[tile.owned].sum()),
        xp.reshape(first @ windows.pixels, frame),
        xp.reshape(covered, frame) + 0.0,
        backend.to_host(mass),
        amplitudes=sums,
    )


@dataclass(frozen=True)
class _AtPlaces:
    """The posterior at n places.

    Attributes:
        windows: frames at the places.
        log_norm: (P, Q) float64, log(1 + S) at the corners.
        weights: (T, n) of the backend's library, 0 at places that another tile owns.
        first: weights times the posterior mean amplitude.
        second: weights times the posterior mean squared amplitude.
    """

    windows: _Windows
    log_norm: np.ndarray
    weights: Array
    first: Array
    second: Array

    @classmethod
    def of(
        cls,
        tile: Tile,
        log_odds: np.ndarray,
        places: np.ndarray,
        templates: Array,
        likelihood: WindowLikelihood,
        backend: Backend,
    ) -> _AtPlaces:
        """The posterior of all templates; arguments as in :func:`local_sums`."""
        xp, windows = backend.xp, _Windows.cut(tile, places, likelihood, backend)
        gain, energy = windows.gains(templates, likelihood, backend)
        at_angles = _log_odds(gain, energy, likelihood, backend)
        peak = xp.max(at_angles, axis=1)
        at_places = peak + xp.log(xp.sum(xp.exp(at_angles - peak[:, None]), axis=1))
        log_odds = log_odds.copy()
        log_odds[places] = backend.to_host(at_places)
        log_norm = log_partition(log_odds, likelihood)
        owned = np.zeros_like(places)
        owned[tile.owned] = True
        # places that another tile owns take part in the competition, but count in that tile
        shrink = np.where(owned[places], -log_norm[places], -np.inf)
        weights = xp.matrix_transpose(xp.exp(at_angles + backend.asarray(shrink)[:, None]))
        if likelihood.amplitudes is None:
            return cls(windows, log_norm, weights, weights, weights)
        variance = likelihood.noise_std**2
        first, second = (
            weights * xp.matrix_transpose(likelihood.amplitudes.moment(n, gain / variance, energy / variance))
            for n in (1, 2)
        )
        return cls(windows, log_norm, weights, first, second)


def _log_odds(gain: Array, energy: Array, likelihood: WindowLikelihood, backend: Backend) -> Array:
    """(n, T) log (lam / K) + Lambda(x, k); arguments as :meth:`_Windows.gains` returns them."""
    amplitudes, variance = likelihood.amplitudes, likelihood.noise_std**2
    if amplitudes is None:
        ratio = (gain - 0.5 * energy) / variance
    else:
        ratio = amplitudes.log_ratio(gain / variance, energy / variance)
    log_prior = likelihood.template_bias + likelihood.log_activity - math.log(likelihood.templates)
    return ratio + backend.asarray(log_prior)


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
        """Cut the frames out of a tile, with zeros beyond its pixels."""
        shape, around = likelihood.frame_shape, [(m, m) for m in likelihood.margins]

        def frames(values: np.ndarray) -> Array:
            every = sliding_window_view(np.pad(values, around), shape)
            return backend.asarray(every[places].reshape(-1, math.prod(shape)))

        if tile.valid is None and not any(likelihood.margins):
            return cls(frames(tile.values), None)
        valid = np.ones(tile.values.shape, bool) if tile.valid is None else tile.valid
        return cls(frames(tile.values), frames(valid))

    def gains(self, stack: Array, likelihood: WindowLikelihood, backend: Backend) -> tuple[Array, Array]:
        """``<M, A_t F>`` (n, T) and ``||A_t F||^2`` (T,), or (n, T) if pixels are invalid.

        One matrix product, or two.
        """
        xp, pixels = backend.xp, math.prod(likelihood.views.box_shape)
        inner = (slice(None), *likelihood.inner)

        def boxes(frames: Array) -> Array:
            return xp.reshape(xp.reshape(frames, (-1, *likelihood.frame_shape))[inner], (-1, pixels))

        templates = xp.matrix_transpose(xp.reshape(stack, (-1, pixels)))
        energy = xp.sum(templates**2, axis=0) if self.valid is None else boxes(self.valid) @ templates**2
        gain = boxes(self.pixels) @ templates
        return gain, energy
