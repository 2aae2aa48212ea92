"""Window E-step in array-API terms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import cast

import numpy as np

from ...._base.typing import Array
from ....data.tiles import Tile
from ....model.likelihood import WindowLikelihood
from ...sums import TemplateSums
from ..base import Moment
from ..collect import window_sums
from .scored import EStep, Scored
from .sums import correlate, log_sum, slide_log_sum, torus


class Windows(Scored):
    """Windows of one tile (docs/model.md 7)."""

    def __init__(self, step: EStep, tile: Tile) -> None:
        super().__init__(step, tile)
        self.likelihood = likelihood = cast(WindowLikelihood, step.likelihood)
        self.amplitudes = likelihood.amplitudes
        self.log_rate = likelihood.log_activity - math.log(likelihood.templates)
        self.image = self.backend.moved(self.values, self.precision)
        self.seen = None if self.valid is None else self.backend.moved(self.valid, self.precision)
        box = likelihood.views.box_shape
        self.corners = tuple(n - side + 1 for n, side in zip(tile.values.shape, box, strict=True))
        self.scores = self.chunks(self._score, math.prod(torus(tile.values.shape, likelihood.margins)))

    def _score(self, part: slice) -> Array | tuple[Array, Array]:
        """(t, P, Q) log a_k at every corner; if amplitudes differ, the gain and half the energy, which broadcast."""
        energy = self.energies[part, ...]
        gain = correlate(self.image, self.templates[part, ...], (0, 0), self.corners)
        if self.seen is None:
            lost = self.xp.sum(energy, axis=(1, 2), keepdims=True)
        else:
            lost = correlate(self.seen, energy, (0, 0), self.corners)
        return gain - lost + self.prior(self.log_rate, part) if self.amplitudes is None else (gain, lost)

    def _log_odds(self, part: slice, found: Array | tuple[Array, Array]) -> Array:
        """(t, P, Q) log a_k of a chunk of :meth:`_score`, or of some of its corners."""
        if self.amplitudes is None:
            return found
        gain, lost = found
        return self.amplitudes.log_ratio(gain, 2.0 * lost) + self.prior(self.log_rate, part)

    def log_odds(self) -> Array:
        """(P, Q) log-odds of a copy at each corner."""
        each = (log_sum(self._log_odds(*chunk), 0)[0, ...] for chunk in self.scores)
        return reduce(self.xp.logaddexp, each)

    def log_norm(self) -> Array:
        """log(1 + S) at the owned corners."""
        xp, odds = self.xp, self.log_odds()
        for distance in self.likelihood.separations:
            odds = xp.permute_dims(slide_log_sum(odds, distance - 1), (1, 0))
        return xp.logaddexp(odds[self.tile.owned], xp.zeros_like(odds[self.tile.owned]))

    def weights(self, log_norm: Array) -> Iterator[tuple[Array, Array, Array]]:
        """(t, owned rows, owned columns) posterior, chunk by chunk of templates: itself, times amplitudes, and times their squares."""
        owned = (slice(None), *self.tile.owned)
        for part, found in self.scores:
            if self.amplitudes is None:
                weights = self.xp.exp(found[owned] - log_norm)
                yield weights, weights, weights
                continue
            gain, lost = (values[owned] if values.shape[-1] > 1 else values for values in found)
            weights = self.xp.exp(self._log_odds(part, (gain, lost)) - log_norm)
            first, second = (self.amplitudes.moment(order, gain, 2.0 * lost) for order in (1, 2))
            yield weights, weights * first, weights * second

    def posterior(self, moment: Moment) -> np.ndarray:
        """(K, owned rows, owned columns)."""
        return np.concatenate([self.backend.to_host(w[moment]) for w in self.weights(self.log_norm())])

    def statistics(self, log_norm: Array | None = None) -> TemplateSums:
        """Sums over the owned corners.

        Args:
            log_norm: log(1 + S) at the owned corners; None: that of these templates.
        """
        likelihood, xp = self.likelihood, self.xp
        log_norm = self.log_norm() if log_norm is None else log_norm
        frame, margins = likelihood.frame_shape, likelihood.margins
        firsts = tuple(s.start - m for s, m in zip(self.tile.owned, margins, strict=True))
        # room for every shift of the frame, also if there are fewer corners than margin pixels
        pixels = self.tile.values.shape
        zeros = tuple(max(m, side - n) for m, side, n in zip(margins, frame, pixels, strict=True))
        projected, covered, masses, sums = [], [], [], np.zeros(2)
        seen = self.seen
        if seen is None and any(margins):
            seen = xp.ones_like(self.image)
        for weights, first, second in self.weights(log_norm):
            masses.append(self.masses(weights, axes=(1, 2)))
            projected.append(correlate(self.image, first, firsts, frame, zeros))
            if self.amplitudes is not None:
                sums += self.sum64(first), self.sum64(second)
            if seen is None:
                mass = xp.sum(second, axis=(1, 2), keepdims=True, dtype=xp.float64)
                covered.append(xp.broadcast_to(mass, (second.shape[0], *frame)) + 0.0)
            else:
                covered.append(correlate(seen, second, firsts, frame, zeros))
        frames, mass = (self.joined(projected), self.joined(covered)), np.concatenate(masses)
        amplitudes = None if self.amplitudes is None else (float(sums[0]), float(sums[1]))
        return window_sums(self.tile, likelihood, self.sum64(log_norm), *frames, mass, self.part, amplitudes)
