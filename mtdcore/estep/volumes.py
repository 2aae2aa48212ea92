"""The E-step of volumes: thousands of views by matrix products, scored in full only where copies may be.

A few coarse, band-limited views find the *places*; all views are scored there (docs/model.md 14, and
:mod:`mtdcore.estep.backends.local` for in-plane rotations). Where the posterior is not sharp, all views are scored at every corner.
Sums of one E-step are kept in the basis of its templates and taken back to the volume once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from .._base.numerics.conversion import on_host
from .._base.summing import map_sum
from .._base.typing import Array
from ..data import Measurement
from ..data.tiles import Tile, TileGeometry
from ..errors import ParameterError
from ..model.likelihood import WindowLikelihood
from ..model.volumes.projections import Projections
from ..model.volumes.toeplitz import Toeplitz
from .backends.collect import owned_energy
from .backends.competition import log_partition
from .backends.matrix import Basis, Features, Scores
from .local import find_places

#: A tile is searched locally when places are at most this share of its corners, and hold all but this share of its copies.
_LARGEST_SHARE, _NEGLECTED = 0.10, 0.01

#: All corners of a tile.
_EVERY = slice(None), slice(None)

#: Share of the posterior mass of a tile, in its weakest corners, that enters no sum.
_WEAK = 2e-3

#: Share of corners up to which their features are made one by one.
_FEW = 0.08

#: Side of the tiles in pixels read.
_TILE_PIXELS = 1024

#: Frequencies that the squares of a transfer are kept at: between two of them, oscillating CTFs are nearly straight.
_PROFILE = 257

#: Log-odds of a corner where no copy can be.
_NEVER = -1.0e30


@dataclass(frozen=True, eq=False)
class VolumeStatistics:
    """What an E-step found, in target space: independent of the views, additive over tiles and parts.

    Attributes:
        right: (L, L, L) float64, ``sum_t A_t^T b_t``.
        normal: ``sum_t c_t A_t^T A_t``.
        log_likelihood: nats of evidence against "no copies" (docs/model.md 7).
        energy: sum of the squared valid pixels.
        expected_count: posterior expected number of copies.
        sites: corners that tiles own.
        pixels: valid pixels that ``energy`` sums over.
        local: corners of those tiles that were searched locally.
        total: sum of the valid pixels.
        bright: copies, each times what its micrograph lets through of frequency 0.
    """

    right: np.ndarray
    normal: Toeplitz
    log_likelihood: float
    energy: float
    expected_count: float
    sites: float
    pixels: float
    local: float
    total: float
    bright: float

    @property
    def numbers(self) -> list[float]:
        """The sums that are numbers, in order."""
        return [getattr(self, name) for name in _NUMBERS]

    def __add__(self, other: VolumeStatistics) -> VolumeStatistics:
        numbers = (a + b for a, b in zip(self.numbers, other.numbers, strict=True))
        return VolumeStatistics(self.right + other.right, self.normal + other.normal, *numbers)

    def residual_energy(self, volume: np.ndarray) -> float:
        """Expected squared residual of the measurement given a volume, summed over the valid pixels."""
        return self.energy + float(np.vdot(volume, self.normal(volume) - 2.0 * self.right))


_NUMBERS = tuple(f.name for f in fields(VolumeStatistics))[2:]


def check_alike(likelihood: WindowLikelihood) -> None:
    """Raise ParameterError where copies differ in amplitude, or micrographs in noise, which scores of thousands of views do not know."""
    if likelihood.amplitudes is not None:
        raise ParameterError(
            f"copies of a volume have one amplitude; got a likelihood with amplitude_std {likelihood.amplitude_std}: give one with 0."
        )
    optics = likelihood.micrographs
    if optics is not None and (np.ptp(optics.noise_ratio) > 1e-9 or np.ptp(optics.count_share) > 1e-9):
        raise ParameterError(
            "micrographs of a volume differ in their transfer alone; got other noise levels or counts: give equal ones."
        )


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of some tiles: (T, r) posterior-weighted features, (T,) copies, or (T, R) with their squared transfers, and the numbers of the
    statistics.
    """

    wide: np.ndarray
    copies: np.ndarray
    numbers: np.ndarray

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.wide + other.wide, self.copies + other.copies, self.numbers + other.numbers)


@dataclass(frozen=True, eq=False)
class Search:
    """Views of one E-step with their templates.

    Attributes:
        views: all that are scored.
        coarse: fewer, that find the places; None: all are scored everywhere.
    """

    views: Projections
    coarse: Projections | None = None


def volume_e_step(
    measurement: Measurement,
    volume: np.ndarray,
    likelihood: WindowLikelihood,
    search: Search,
    executor: Executor | None = None,
    xp: Any = np,
) -> VolumeStatistics:
    """Score every view at every corner and sum up what the M-step needs.

    Corners whose window holds an invalid pixel hold no copy.

    Args:
        measurement: the pixels, or a part of them.
        volume: (L, L, L) current estimate.
        likelihood: noise level, count, separation and the transfers of the micrographs; bound to the measurement here.
        search: the views.
        executor: runs parts of the measurement elsewhere, with the same bits.
        xp: array library that scores.

    Raises:
        ParameterError: a volume or a likelihood of another box than the views, copies that differ in amplitude, or micrographs that
            differ in more than their transfer.
    """
    views = search.views
    if volume.shape != views.target_shape or likelihood.box_size != views.box_size:
        raise ParameterError(
            f"volume, likelihood and views should have one box; got {volume.shape}, {likelihood.box_size} and {views!r}."
        )
    check_alike(likelihood)
    bound = likelihood.bind(measurement.shape)
    cut, templates = volume_cut(bound), templates_of(volume, search)
    work = partial(_part, cut=cut, likelihood=bound, templates=templates, xp=xp)
    parts = measurement.split(max(1, measurement.tile_count(cut)))
    total = map_sum(work, parts, executor)
    right = views.adjoint(templates[0].basis.images(total.wide))
    return VolumeStatistics(right, views.normal(total.copies), *total.numbers.tolist())


def left_over(
    measurement: Measurement, volume: np.ndarray, likelihood: WindowLikelihood, search: Search, tiles: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the copies leave of some tiles, spread over the measurement: float64 pixels that owned corners alone reach, and which are valid.

    Args:
        measurement: the pixels.
        volume: (L, L, L) current estimate.
        likelihood: noise level, count and separation.
        search: the views.
        tiles: largest number of tiles.
    """
    bound = with_views(likelihood, search.views).bind(measurement.shape)
    cut, posterior = volume_cut(bound), Posteriors(bound, templates_of(volume, search))
    for part in measurement.split(min(measurement.tile_count(cut), tiles)):
        for tile in islice(part.tiles(cut), 1):
            rest = tile.values - posterior(tile).explained()
            reached = tuple(slice(s.start + bound.box_size - 1, s.stop) for s in tile.owned)
            valid = np.ones(rest.shape, bool) if tile.valid is None else np.asarray(tile.valid)
            yield rest[reached], valid[reached]


def templates_of(volume: np.ndarray, search: Search) -> list[Templates]:
    """The templates of a search, the fine ones first."""
    return [Templates.of(views, volume) for views in (search.views, search.coarse) if views is not None]


def volume_cut(likelihood: WindowLikelihood) -> TileGeometry:
    """The cut of a measurement into tiles."""
    return likelihood.geometry.enlarged(_TILE_PIXELS)


@dataclass(frozen=True, eq=False)
class Templates:
    """Templates of one set of views in a basis of their band.

    Attributes:
        basis: that they lie in.
        coefficients: (T, r) float64.
    """

    basis: Basis
    coefficients: np.ndarray

    @classmethod
    def of(cls, views: Projections, volume: np.ndarray) -> Templates:
        """Projections of a volume."""
        basis = Basis(views.box_size, views.band)
        return cls(basis, basis.coefficients(np.asarray(views.apply(volume))))

    def scores(self, likelihood: WindowLikelihood, factors: np.ndarray | float, xp: Any) -> Scores:
        """Scores of the templates, times (r,) factors."""
        log_prior = likelihood.log_activity - math.log(len(self.coefficients))
        return Scores(self.coefficients * factors, likelihood.noise_std, log_prior, xp)


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

    def nothing(self) -> _Sums:
        """The sums of no tile."""
        fine = self._templates[0]
        count = len(fine.coefficients)
        copies = np.zeros(count if self._transfers is None else (count, _PROFILE))
        return _Sums(np.zeros((count, fine.basis.size)), copies, np.zeros(len(_NUMBERS)))

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


@dataclass(frozen=True, eq=False)
class Transfer:
    """What one micrograph lets through of the templates.

    Attributes:
        factors: (r,) of each function of their basis.
        squares: (R,) at frequencies evenly spaced from 0 to 1/2 cycles per pixel.
        constant: of frequency 0.
    """

    factors: np.ndarray
    squares: np.ndarray
    constant: float

    @classmethod
    def of(cls, profile: np.ndarray, basis: Basis) -> Transfer:
        """Of (R,) factors as in :attr:`mtdcore.Micrographs.transfer`."""
        at, fine = np.linspace(0.0, 0.5, len(profile)), np.linspace(0.0, 0.5, _PROFILE)
        squares = np.square(np.interp(fine, at, profile))
        return cls(np.interp(basis.lengths, at, profile), squares, float(profile[0]))


def _part(
    measurement: Measurement,
    cut: TileGeometry,
    likelihood: WindowLikelihood,
    templates: list[Templates],
    xp: Any,
) -> _Sums:
    posterior = Posteriors(likelihood, templates, xp)
    total = posterior.nothing()
    for tile in measurement.tiles(cut):
        total = total + posterior(tile).sums()
    return total


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

    def sums(self) -> _Sums:
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
        return _Sums(wide, copies, np.array(numbers, np.float64))

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


def with_views(likelihood: WindowLikelihood, views: Projections) -> WindowLikelihood:
    """The same model with the views of one E-step."""
    return replace(likelihood, views=views)
