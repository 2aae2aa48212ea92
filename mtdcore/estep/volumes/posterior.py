"""The posterior of a tile: places of copies, competition of the corners, and sums over corners with posterior mass.

A few coarse, band-limited views find the *places*; all views are scored there (docs/model.md 14, and
:mod:`mtdcore.estep.local` for in-plane rotations), with sub-pixel shifts if requested. If the posterior is not sharp, all views
are scored at every corner, on whole pixels.

All arrays of a tile, from its pixels to its sums, stay on the device of the backend; the host receives the indices of the used corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..._base.numerics.conversion import on_host
from ..._base.typing import Array
from ...data.tiles import Tile
from ...model.likelihood import WindowLikelihood
from ..backends import Backend
from ..backends.array.backend import ArrayBackend, arrays_of
from ..backends.collect import owned_energy
from ..backends.competition import log_partition
from ..backends.matrix import Basis, Features, Portions, Scores
from ..ledger import entry
from ..local import find_places
from .statistics import NUMBERS, BasisSums
from .templates import PROFILE, WHOLE, Templates, Transfer

#: Largest share of places among the corners of a tile, and of its copies outside of places, for a local search.
_LARGEST_SHARE, _NEGLECTED = 0.10, 0.01

#: Log-probability of a copy below which a corner is scored on whole pixels only, if no sub-pixel shift can raise it above.
_HARDLY = math.log(1e-3)

#: All corners of a tile.
_EVERY = slice(None), slice(None)

#: Share of the posterior mass of a tile that is left out of the sums: that of its weakest corners.
_WEAK = 2e-3

#: Share of corners up to which features are computed from single windows.
_FEW = 0.08

#: Log-odds of a copy at an excluded corner.
_NEVER = -1.0e30


@dataclass(frozen=True, eq=False)
class Shown:
    """The templates as a micrograph shows them.

    Attributes:
        likelihood: of the micrograph, bound.
        scores: of the views, and of the coarse ones if there are any.
        offsets: sub-pixel offsets of the views at a place.
        lost: largest loss in nats of a copy between pixels that is scored on whole pixels.
        transfer: transfer function of the micrograph; None: 1 everywhere.
        weight: weight of its statistics, ``sigma^2 / sigma_m^2``; None: micrographs are alike.
    """

    likelihood: WindowLikelihood
    scores: list[Scores]
    offsets: tuple[tuple[float, float], ...]
    lost: float
    transfer: Transfer | None = None
    weight: float | None = None


class Posteriors:
    """The posterior of every tile, with the templates of its micrograph; tiles in the order of micrographs are cheapest.

    A transfer is a factor for each function of the basis, as in a periodic box.

    Args:
        likelihood: bound to the measurement.
        templates: of the views, and of the coarse ones if there are any.
        backend: scores them; its device must be the current one wherever posteriors are made and used (:meth:`Backend.active`).
    """

    def __init__(self, likelihood: WindowLikelihood, templates: list[Templates], backend: Backend) -> None:
        self._likelihood, self._templates, self._arrays = likelihood, templates, arrays_of(backend)
        self._bases = [one.basis for one in templates]
        self._last: tuple[int, Shown] | None = None

    def __call__(self, tile: Tile) -> TilePosterior:
        """The posterior of a tile."""
        last = self._last
        if last is None or (self._likelihood.micrographs is not None and last[0] != tile.micrograph):
            last = self._last = (tile.micrograph, self._shown(tile.micrograph))
        return TilePosterior(tile, last[1], self._bases, self._arrays)

    def nothing(self) -> BasisSums:
        """The sums of no tile."""
        count, optics = len(self._templates[0].coefficients), self._likelihood.micrographs
        copies = np.zeros(count if optics is None or optics.transfer is None else (count, PROFILE))
        return BasisSums(np.zeros((count, self._bases[0].size)), copies, np.zeros(len(NUMBERS)))

    def _shown(self, micrograph: int) -> Shown:
        optics, alone = self._likelihood.micrographs, self._likelihood.of_micrograph(micrograph)
        through: list[Transfer | None] = [None] * len(self._bases)
        if optics is not None and optics.transfer is not None:
            profile = optics.transfer[micrograph]
            through = [Transfer.of(profile, basis) for basis in self._bases]
        scores = [
            one.scores(alone, 1.0 if transfer is None else transfer.factors, self._arrays)
            for one, transfer in zip(self._templates, through, strict=True)
        ]
        weight = None if optics is None else float(optics.weights[micrograph])
        fine, factors = self._templates[0], 1.0 if through[0] is None else through[0].factors
        return Shown(alone, scores, fine.offsets, fine.lost(alone, factors), through[0], weight)


class TilePosterior:
    """One tile: places of copies, competition of the corners, and sums over corners with posterior mass.

    Args:
        tile: of :func:`volume_cut`.
        shown: the templates of its micrograph.
        bases: of the views, and of the coarse ones if there are any.
        arrays: library, device and precision of the scores.
    """

    def __init__(self, tile: Tile, shown: Shown, bases: list[Basis], arrays: ArrayBackend) -> None:
        likelihood, scores = shown.likelihood, shown.scores
        self.tile, self.likelihood, self._shown = tile, likelihood, shown
        self._arrays, self._xp, self.scores = arrays, arrays.xp, scores[0]
        xp, values = self._xp, np.asarray(tile.values)
        self.features = Features(values, bases[0], arrays)
        self._may = _whole_windows(tile, bases[0].box_size)
        self._offsets: tuple[tuple[float, float], ...] = WHOLE
        places, log_odds = None, None
        if len(scores) > 1:
            log_odds = self._everywhere(Features(values, bases[1], arrays), scores[1])
            places = find_places(log_odds, likelihood, _EVERY, _LARGEST_SHARE, _NEGLECTED)
            if places is not None:
                chosen = on_host(places) & self._may
                log_odds = self._rescored(log_odds, chosen, WHOLE)
                if len(shown.offsets) > 1:
                    self._offsets = shown.offsets
                    likely = log_odds - log_partition(log_odds, likelihood) > _HARDLY - shown.lost
                    log_odds = self._rescored(log_odds, chosen & on_host(likely), shown.offsets)
        self.local = places is not None
        if log_odds is None or places is None:
            log_odds = self._everywhere(self.features, self.scores)
        self.log_odds = log_odds
        self.log_norm = log_partition(log_odds, likelihood)
        counted = np.zeros(log_odds.shape, bool)
        counted[tile.owned] = True
        counts = arrays.moved(counted, "bool") if places is None else arrays.moved(counted, "bool") & places
        mass = xp.exp(log_odds - self.log_norm)
        self.mass = xp.where(counts, mass, xp.zeros_like(mass))

    def kept(self) -> np.ndarray:
        """Owned corners, in row-major order, that hold nearly all of the posterior mass; on the host."""
        xp, mass = self._xp, self._flat(self.mass)
        order = xp.argsort(mass, stable=True)
        below = xp.cumulative_sum(xp.take(mass, order)) < _WEAK * xp.sum(mass)
        weak = max(int(xp.count_nonzero(below)), int(xp.count_nonzero(mass == 0.0)))
        return on_host(xp.sort(order[weak:])) if weak < math.prod(mass.shape) else np.empty(0, np.int64)

    def blocks(self, corners: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[float, float], Array]]:
        """(corners, an offset, their features at it), for chunks of the corners, at one offset after the other."""
        for chosen, features in self._whole(corners):
            for offset in self._offsets:
                yield chosen, offset, self.features.moved(features, offset)

    def best(self, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For (n,) corners the most probable template, (n,); its offset, (n, 2) pixels down and to the right; its mean amplitude, (n,)."""
        features = self.features.at(corners)
        each = [self.scores.best(self.features.moved(features, offset)) for offset in self._offsets]
        views, scores, amplitudes = (np.stack(one) for one in zip(*each, strict=True))
        chosen = scores.argmax(axis=0), np.arange(len(corners))
        return views[chosen], np.array(self._offsets)[chosen[0]], amplitudes[chosen]

    def matched(self, corners: np.ndarray, views: np.ndarray, offset: tuple[float, float]) -> np.ndarray:
        """(n,) float64 ``<F, y> / sigma^2`` of (n,) templates at this offset from (n,) corners."""
        return self.scores.matched(self.features.moved(self.features.at(corners), offset), views)

    def _whole(self, corners: np.ndarray) -> Iterator[tuple[np.ndarray, Array]]:
        """(corners, their features on whole pixels), for chunks of the corners."""
        if self.local or len(corners) <= _FEW * math.prod(self.mass.shape):
            yield from ((chunk, self.features.at(chunk)) for chunk in self._chunks(corners))
            return
        for cut, block in self.features.blocks():
            first, last = np.searchsorted(corners, [cut.start, cut.stop])
            if first < last:
                chosen = corners[first:last]
                yield chosen, self._xp.take(block, self._arrays.moved(chosen - cut.start, "int64"), axis=1)

    def explained(self) -> np.ndarray:
        """(h, w) float64 posterior mean of the copies at the owned corners, in the pixels of the tile."""
        found, columns = np.zeros(np.shape(self.tile.values)), self.log_odds.shape[1]
        side = self.features.basis.box_size
        for corners, (down, right), features in self.blocks(self.kept()):
            shown = self.features.moved(self.scores.expected(features, self._norm(corners)), (-down, -right))
            images = self.features.basis.images(on_host(shown).T)
            for (row, column), image in zip(zip(*divmod(corners, columns), strict=True), images, strict=True):
                found[row : row + side, column : column + side] += image
        return found

    def sums(self) -> BasisSums:
        """Sums over the corners of :meth:`kept`."""
        wide_there, copies_there = self.scores.nothing()
        for corners, _, features in self.blocks(self.kept()):
            more, here = self.scores.project(features, self._norm(corners))
            wide_there, copies_there = wide_there + more, copies_there + here
        wide, (count, strength, copies) = on_host(wide_there), on_host(copies_there)
        tile, likelihood, transfer = self.tile, self.likelihood, self._shown.transfer
        gain = float(self._xp.sum(self.log_norm[tile.owned])) - self._blank()
        energy, pixels = owned_energy(tile)
        sites = math.prod(s.stop - s.start for s in tile.owned)
        found, weight, ledger = float(np.sum(count)), 1.0, None
        if self._shown.weight is not None:
            weight = self._shown.weight
            left = energy - self.scores.explained(wide_there, copies_there[2, :])
            ledger = entry(tile.micrograph, sites, pixels, left, found)
        numbers = [
            gain / likelihood.neighbourhood,
            weight * energy,
            found,
            sites,
            pixels,
            sites if self.local else 0,
            weight * tile.total,
            weight * float(np.sum(strength)) * (1.0 if transfer is None else transfer.constant),
            float(np.sum(strength)),
            float(np.sum(copies)),
            weight * pixels,
        ]
        wide, copies = weight * wide, weight * copies
        if transfer is not None:
            wide, copies = wide * transfer.factors, copies[:, None] * transfer.squares
        return BasisSums(wide, copies, np.array(numbers, np.float64), ledger)

    def _everywhere(self, features: Features, scores: Scores) -> Array:
        """(P, Q) float64 log-odds at every corner."""
        xp = self._xp
        found = xp.concat([scores.log_odds(block) for _, block in features.blocks()])
        return self._where_whole(xp.reshape(xp.astype(found, xp.float64), features.shape))

    def _rescored(
        self, log_odds: Array, chosen: np.ndarray, offsets: tuple[tuple[float, float], ...]
    ) -> Array:
        """Log-odds; at the (P, Q) bool ``chosen`` corners replaced by those of all views at the offsets."""
        xp, corners = self._xp, np.flatnonzero(chosen)
        if not len(corners):
            return log_odds
        chunks = [self._anywhere(self.features.at(chunk), offsets) for chunk in self._chunks(corners)]
        there = self._arrays.moved(chosen, "bool")
        rank = xp.cumulative_sum(xp.astype(self._flat(there), xp.int64))
        found = xp.astype(xp.concat([xp.zeros_like(chunks[0][:1]), *chunks]), xp.float64)
        return xp.where(there, xp.reshape(xp.take(found, rank), log_odds.shape), log_odds)

    def _anywhere(self, features: Array, offsets: tuple[tuple[float, float], ...]) -> Array:
        """(n,) log-odds of corners with these features: the mean of the odds at the offsets."""
        xp = self._xp
        each = xp.stack([self.scores.log_odds(self.features.moved(features, o)) for o in offsets])
        peak = xp.max(each, axis=0)
        return peak + xp.log(xp.mean(xp.exp(each - peak), axis=0))

    def _where_whole(self, log_odds: Array) -> Array:
        """Log-odds at whole windows; no copy elsewhere."""
        if self._may.all():
            return log_odds
        never = self._xp.full_like(log_odds, _NEVER)
        return self._xp.where(self._arrays.moved(self._may, "bool"), log_odds, never)

    def _norm(self, corners: np.ndarray) -> Array:
        """(n,) log(1 + S) at corners, given by host indices, times the number of offsets that share its prior odds."""
        found = self._xp.take(self._flat(self.log_norm), self._arrays.moved(corners, "int64"))
        return found + math.log(len(self._offsets))

    def _flat(self, image: Array) -> Array:
        return self._xp.reshape(image, (-1,))

    def _chunks(self, corners: np.ndarray) -> Iterator[np.ndarray]:
        size = Portions.of(self._arrays).windows
        return (corners[start : start + size] for start in range(0, len(corners), size))

    def _blank(self) -> float:
        """Nats: sum of log(1 + S_0) over the owned corners, S_0 the competition when every Lambda is 0."""
        if self._may.all():
            return self.likelihood.blank(self.tile)
        empty = self._where_whole(self._xp.full_like(self.log_odds, self.likelihood.log_activity))
        return float(self._xp.sum(log_partition(empty, self.likelihood)[self.tile.owned]))


def _whole_windows(tile: Tile, side: int) -> np.ndarray:
    """(P, Q) bool: windows without an invalid pixel."""
    rows, columns = (n - side + 1 for n in tile.values.shape)
    if tile.valid is None:
        return np.ones((rows, columns), bool)
    sums = np.pad(np.cumsum(np.cumsum(~np.asarray(tile.valid), axis=0), axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(inside == 0)
