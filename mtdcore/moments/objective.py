"""The misfit between the moments expected from a target and those of a measurement, with its gradient (docs/model.md 16)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ParameterError
from ..model.rotations import in_plane
from ..model.views import Views
from .autocorrelations import Autocorrelations
from .orbits import Orbits, pair_orbits, triple_orbits
from .sums import Moments


@dataclass(frozen=True)
class Series:
    """Moments of one order, an entry for each of O orbits.

    Attributes:
        values: (O,) central moments of the measurement; from triples the contribution of white noise is subtracted.
        variance: (O,) of the errors of the values; inf: the moment is not fitted.
        rate: (O,) contribution of one copy to a moment, in units of its autocorrelation: one over the number of pairs or triples.
    """

    values: np.ndarray
    variance: np.ndarray
    rate: np.ndarray


class Misfit:
    """``1/2 sum (measured - expected)^2 / variance`` over the orbits of pairs and triples, nats.

    The moments expected from p well separated copies of F are ``p r S2 - m^2`` for pairs and
    ``p r S3 - m p (r S2[e] + r S2[q] + r S2[q - e]) + 2 m^3`` for triples, with S2 and S3 averaged over the views, the rate r of an orbit,
    and the mean m = p sum(F) / pixels.

    Args:
        moments: of the measurement.
        views: of the target.

    Attributes:
        noise_variance: variance of a pixel of the measurement, including the copies.
        pixels: of the measurement, valid or not.
    """

    def __init__(self, moments: Moments, views: Views) -> None:
        if views.classes > 1:
            raise ParameterError(
                f"moments tell one target from noise, not {views.classes} classes from one another: recover them by EM, or give classes=1."
            )
        if views.box_shape != moments.box_shape:
            raise ParameterError(
                f"the moments are those of a box of {moments.box_shape} pixels, and the views have one of {views.box_shape}: measure them again."
            )
        self.views, self._part, turns = views, *_sector(views)
        self._pairs: Orbits = pair_orbits(moments.box_shape, turns)
        self._triples: Orbits = triple_orbits(moments.box_shape, moments.edges, turns)
        self._autocorrelations = Autocorrelations(moments.box_shape, moments.edges)
        self._sides = self._pair_orbits_of_triples(moments)
        second = moments.second
        self.noise_variance = float(second[second.shape[0] // 2, second.shape[1] // 2])
        self.pixels = math.prod(moments.shape)
        full_pairs, full_triples = _full_counts(moments)
        self.second = _series(self._pairs, second, moments.pair_counts, full_pairs, self.noise_variance**2)
        self.third = _series(
            self._triples, moments.third, moments.triple_counts, full_triples, self.noise_variance**3
        )
        self.second.variance[self._pairs.index[second.shape[0] // 2, second.shape[1] // 2]] = math.inf

    @property
    def size(self) -> int:
        """Number of moments that are fitted."""
        return int(np.isfinite(self.second.variance).sum() + np.isfinite(self.third.variance).sum())

    @property
    def most_copies(self) -> float:
        """Number of boxes that cover the measurement, at least 1."""
        return max(self.pixels / math.prod(self.views.box_shape), 1.0)

    def amplitudes(self, image: np.ndarray) -> tuple[float, float]:
        """Factors by which the second- and third-order autocorrelations of an image fit best, each order by itself."""
        found = []
        orders = ((self._pairs, self.second), (self._triples, self.third))
        for of, (orbits, series) in zip(
            self._autocorrelations.of(self._templates(image)), orders, strict=True
        ):
            shape = series.rate * orbits.mean(of)
            weighed = shape / series.variance
            found.append(float(weighed @ series.values) / (float(weighed @ shape) or math.inf))
        return found[0], found[1]

    def mass(self, target: np.ndarray) -> float:
        """Sum of the pixels of a copy, mean over the views."""
        templates = self._templates(target)
        return float(templates.sum()) / len(templates)

    def copies_variance(self, target: np.ndarray, copies: float) -> float:
        """Contribution of the copies to the variance of a pixel."""
        templates = self._templates(target)
        mean = copies / self.pixels * self.mass(target)
        return copies / self.pixels * float(np.square(templates).sum()) / len(templates) - mean**2

    def expected(self, target: np.ndarray, copies: float) -> tuple[np.ndarray, np.ndarray]:
        """(O,) second and (O,) third expected moments by orbit, for copies of a target of shape ``views.target_shape``."""
        second, third, _, _ = self._expected(self._templates(target), copies)
        return second, third

    def __call__(self, target: np.ndarray, copies: float) -> tuple[float, np.ndarray, float]:
        """(nats, gradient in the target, slope in the number of copies)."""
        templates = self._templates(target)
        second, third, pairs, mean = self._expected(templates, copies)
        off2, off3 = second - self.second.values, third - self.third.values
        w2, w3 = off2 / self.second.variance, off3 / self.third.variance
        nats = 0.5 * float(off2 @ w2 + off3 @ w3)
        beside = pairs[self._sides].sum(axis=0)
        of_pairs = w2 - np.bincount(self._sides.ravel(), np.tile(mean * w3, 3), len(pairs))
        of_mean = -2.0 * mean * float(w2.sum()) + float(w3 @ (6.0 * mean**2 - beside))
        alone = third + mean * beside - 2.0 * mean**3  # contribution of triples inside one copy
        of_copies = (float(of_pairs @ pairs + w3 @ alone) + of_mean * mean) / copies
        slopes = self._autocorrelations.gradient(
            templates,
            self._pairs.spread(copies * self.second.rate * of_pairs),
            self._triples.spread(copies * self.third.rate * w3),
        )
        slopes += of_mean * copies / self.pixels / len(templates)
        return nats, np.asarray(self.views.adjoint(slopes, self._part)), of_copies

    def _expected(
        self, templates: np.ndarray, copies: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Moments expected from copies of these templates, the contribution of pairs inside one copy, and the mean of the measurement less its offset."""
        s2, s3 = self._autocorrelations.of(templates)
        mean = copies / self.pixels * float(templates.sum()) / len(templates)
        pairs = copies * self.second.rate * self._pairs.mean(s2)
        triples = copies * self.third.rate * self._triples.mean(s3)
        beside = pairs[self._sides].sum(axis=0)
        return pairs - mean**2, triples - mean * beside + 2.0 * mean**3, pairs, mean

    def _templates(self, target: np.ndarray) -> np.ndarray:
        return np.asarray(self.views.apply(target, self._part))

    def _pair_orbits_of_triples(self, moments: Moments) -> np.ndarray:
        """(3, O): orbits of the lags e, q and q - e of each orbit of triples."""
        height, width = moments.box_shape
        edge, down, right = np.unravel_index(self._triples.first, self._triples.index.shape)
        e = moments.edges[edge]
        q = np.stack([down - height + 1, right - width + 1], axis=-1)
        return np.stack(
            [self._pairs.index[lag[:, 0] + height - 1, lag[:, 1] + width - 1] for lag in (e, q, q - e)]
        )


def _series(
    orbits: Orbits, values: np.ndarray, counts: np.ndarray, full: np.ndarray, variance: float
) -> Series:
    """Series by orbit: means weighted by counts, and their variances for white noise in which one product has ``variance``."""
    number = orbits.mean(counts)
    seen = number > 0
    known = np.where(np.isfinite(values), values, 0.0)
    inverse = np.divide(1.0, number, out=np.zeros(len(number)), where=seen)
    share = np.divide(counts, full, out=np.zeros(counts.shape), where=full > 0)
    return Series(
        orbits.mean(known * counts) * inverse,
        np.where(seen, variance * orbits.symmetry * np.where(seen, inverse, 1.0) / orbits.distinct, np.inf),
        orbits.mean(share) * inverse,
    )


def _full_counts(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of pairs and triples of whole micrographs, valid or not: copies lie inside them, so each adds its autocorrelation once."""
    micrographs, *sides = moments.shape
    pairs, triples = [], []
    for axis, (n, side) in enumerate(zip(moments.box_shape, sides, strict=True)):
        lags, edges = np.arange(1 - n, n), moments.edges[:, axis]
        pairs.append(side - np.abs(lags))
        highest = np.maximum(np.maximum(lags[None], edges[:, None]), 0)
        lowest = np.minimum(np.minimum(lags[None], edges[:, None]), 0)
        triples.append(np.maximum(side - (highest - lowest), 0))
    rows, columns = triples
    return micrographs * np.outer(*pairs).astype(float), micrographs * (
        rows[:, :, None] * columns[:, None, :]
    ).astype(float)


def _sector(views: Views) -> tuple[slice, int]:
    """The views from which rotations by right angles give all others, and the number of these rotations."""
    rotations = in_plane(views)
    if rotations is None or rotations != views:
        return slice(None), 1
    height, width = views.box_shape
    turns = next(n for n in (4, 2, 1) if rotations.around % n == 0 and (n < 4 or height == width))
    return slice(0, min(views.count, rotations.around // turns)), turns
