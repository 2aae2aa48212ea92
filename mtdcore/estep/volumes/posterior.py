"""The posterior of a tile: where copies may be, how the corners compete, and the sums over those that matter.

A few coarse, band-limited views find the *places*; all views are scored there (docs/model.md 14, and
:mod:`mtdcore.estep.local` for in-plane rotations). Where the posterior is not sharp, all views are scored at every corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._base.numerics.conversion import on_host
from ..._base.typing import Array
from ...data.tiles import Tile
from ...model.likelihood import WindowLikelihood
from ..backends.collect import owned_energy
from ..backends.competition import log_partition
from ..backends.matrix import Basis, Features, Scores
from ..local import find_places
from .statistics import NUMBERS, BasisSums
from .templates import PROFILE, Templates, Transfer

#: A tile is searched locally when places are at most this share of its corners, and hold all but this share of its copies.
_LARGEST_SHARE, _NEGLECTED = 0.10, 0.01

#: All corners of a tile.
_EVERY = slice(None), slice(None)

#: Share of the posterior mass of a tile, in its weakest corners, that enters no sum.
_WEAK = 2e-3

#: Share of corners up to which their features are made one by one.
_FEW = 0.08

#: Log-odds of a corner where no copy can be.
_NEVER = -1.0e30


class Posteriors:
    """The posterior of every tile, with the templates as its micrograph shows them; tiles in order of micrographs are cheapest.

    A transfer is a factor for each function of the basis: the box is taken as periodic.

    Args:
        likelihood: bound to the measurement.
        templates: of the views, and of the coarse ones if there are any.
        xp: array library that scores.
    """

    def __init__(self, likelihood: WindowLikelihood, templates: list[Templates], xp: Any = np) -> None:
        self._likelihood, self._templates, self._xp = likelihood, templates, xp
        optics = likelihood.micrographs
        self._transfers = None if optics is None else optics.transfer
        self._seen: tuple[int, Transfer | None, list[Scores]] | None = None

    def __call__(self, tile: Tile) -> TilePosterior:
        """That of a tile."""
        seen = self._seen
        if seen is None or (self._transfers is not None and seen[0] != tile.micrograph):
            seen = self._seen = (tile.micrograph, *self._through(tile.micrograph))
        bases = [one.basis for one in self._templates]
        return TilePosterior(tile, self._likelihood, bases, seen[2], self._xp, seen[1])

    def nothing(self) -> BasisSums:
        """The sums of no tile."""
        fine = self._templates[0]
        count = len(fine.coefficients)
        copies = np.zeros(count if self._transfers is None else (count, PROFILE))
        return BasisSums(np.zeros((count, fine.basis.size)), copies, np.zeros(len(NUMBERS)))

    def _through(self, micrograph: int) -> tuple[Transfer | None, list[Scores]]:
        if self._transfers is None:
            return None, [one.scores(self._likelihood, 1.0, self._xp) for one in self._templates]
        profile = self._transfers[micrograph]
        through = [Transfer.of(profile, one.basis) for one in self._templates]
        scores = [
            one.scores(self._likelihood, transfer.factors, self._xp)
            for one, transfer in zip(self._templates, through, strict=True)
        ]
        return through[0], scores


class TilePosterior:
    """One tile: where copies may be, how the corners compete, and the sums over those that matter.

    Args:
        tile: of :func:`volume_cut`.
        likelihood: bound to the measurement.
        bases: of the views, and of the coarse ones if there are any.
        scores: likewise.
        xp: array library that scores.
        transfer: what the micrograph lets through; None: everything.
    """

    def __init__(
        self,
        tile: Tile,
        likelihood: WindowLikelihood,
        bases: list[Basis],
        scores: list[Scores],
        xp: Any,
        transfer: Transfer | None = None,
    ) -> None:
        self.tile, self.likelihood, self.xp, self.transfer = tile, likelihood, xp, transfer
        self.scores = scores[0]
        values = np.asarray(tile.values)
        self.features = Features(values, bases[0], xp)
        self._may = _whole_windows(tile, bases[0].box_size)
        places, log_odds = None, None
        if len(scores) > 1:
            log_odds = self._everywhere(Features(values, bases[1], xp), scores[1])
            places = find_places(log_odds, likelihood, _EVERY, _LARGEST_SHARE, _NEGLECTED)
            if places is not None:
                corners = np.flatnonzero(places & self._may)
                for chunk in _chunks(corners):
                    found = self.scores.log_odds(self.features.at(chunk))
                    log_odds.ravel()[chunk] = on_host(found)
        self.local = places is not None
        if log_odds is None or places is None:
            log_odds = self._everywhere(self.features, self.scores)
        self.log_odds = log_odds
        self.log_norm = log_partition(log_odds, likelihood)
        owned = np.zeros(log_odds.shape, bool)
        owned[tile.owned] = True
        self.mass = np.where(owned, np.exp(log_odds - self.log_norm), 0.0)
        if places is not None:
            self.mass[~places] = 0.0

    def kept(self) -> np.ndarray:
        """Owned corners, in row-major order, that hold all but a small share of the posterior mass."""
        mass = self.mass.ravel()
        order = np.argsort(mass, kind="stable")
        weak = np.searchsorted(np.cumsum(mass[order]), _WEAK * mass.sum())
        return np.sort(order[weak:][mass[order[weak:]] > 0.0])

    def blocks(self, corners: np.ndarray) -> Iterator[tuple[np.ndarray, Array]]:
        """(corners, their features) of the corners, some at a time."""
        if self.local or len(corners) <= _FEW * self.mass.size:
            yield from ((chunk, self.features.at(chunk)) for chunk in _chunks(corners))
            return
        for cut, block in self.features.blocks():
            first, last = np.searchsorted(corners, [cut.start, cut.stop])
            if first < last:
                chosen = corners[first:last]
                yield chosen, self.xp.take(block, self.xp.asarray(chosen - cut.start), axis=1)

    def explained(self) -> np.ndarray:
        """(h, w) float64: what the copies at the owned corners are expected to show of the tile."""
        found, columns = np.zeros(np.shape(self.tile.values)), self.log_odds.shape[1]
        norm, side = self.log_norm.ravel(), self.features.basis.box_size
        for corners, features in self.blocks(self.kept()):
            shown = on_host(self.scores.expected(features, self.xp.asarray(norm[corners])))
            images = self.features.basis.images(shown.T)
            for (row, column), image in zip(zip(*divmod(corners, columns), strict=True), images, strict=True):
                found[row : row + side, column : column + side] += image
        return found

    def sums(self) -> BasisSums:
        """Sums over the corners that matter."""
        wide = np.zeros((self.scores.count, self.features.basis.size))
        copies, norm = np.zeros(self.scores.count), self.log_norm.ravel()
        for corners, features in self.blocks(self.kept()):
            more, mass = self.scores.project(features, self.xp.asarray(norm[corners]))
            wide, copies = wide + on_host(more, np.float64), copies + on_host(mass, np.float64)
        tile, likelihood = self.tile, self.likelihood
        gain = float(self.log_norm[tile.owned].sum()) - self._blank()
        energy, pixels = owned_energy(tile)
        sites = self.mass[tile.owned].size
        numbers = [
            gain / likelihood.neighbourhood,
            energy,
            float(np.sum(copies)),
            sites,
            pixels,
            sites if self.local else 0,
            tile.total,
            float(np.sum(copies)) * (1.0 if self.transfer is None else self.transfer.constant),
        ]
        if self.transfer is not None:
            wide, copies = wide * self.transfer.factors, copies[:, None] * self.transfer.squares
        return BasisSums(wide, copies, np.array(numbers, np.float64))

    def _everywhere(self, features: Features, scores: Scores) -> np.ndarray:
        """(P, Q) float64 log-odds at every corner."""
        found = np.empty(features.shape[0] * features.shape[1])
        for cut, block in features.blocks():
            found[cut] = on_host(scores.log_odds(block))
        return np.where(self._may, found.reshape(features.shape), _NEVER)

    def _blank(self) -> float:
        """Nats: sum of log(1 + S_0) over the owned corners, S_0 the competition when every Lambda is 0."""
        if self._may.all():
            return self.likelihood.blank(self.tile)
        empty = np.where(self._may, self.likelihood.log_activity, _NEVER)
        return float(log_partition(empty, self.likelihood)[self.tile.owned].sum())


def _whole_windows(tile: Tile, side: int) -> np.ndarray:
    """(P, Q) bool: windows without an invalid pixel."""
    rows, columns = (n - side + 1 for n in tile.values.shape)
    if tile.valid is None:
        return np.ones((rows, columns), bool)
    sums = np.pad(np.cumsum(np.cumsum(~np.asarray(tile.valid), axis=0), axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(inside == 0)


def _chunks(corners: np.ndarray, size: int = 2048) -> Iterator[np.ndarray]:
    return (corners[start : start + size] for start in range(0, len(corners), size))
