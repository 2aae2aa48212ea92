"""Patch E-step in array-API terms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import numpy as np

from ...._base.typing import Array
from ....data.tiles import Tile
from ....model.likelihood import PatchLikelihood
from ...sums import TemplateSums, by_class
from ..base import Moment
from ..collect import Owned, patch_sums
from .scored import COPIES, Chunks, EStep, Scored
from .sums import correlate, log_sum, torus


class Patches(Scored):
    """Patches of one tile (docs/model.md 3); shifts l lie at index l + L - 1 of (2L - 1)^2 arrays, along each side L."""

    def __init__(self, step: EStep, tile: Tile) -> None:
        super().__init__(step, tile)
        self.likelihood = likelihood = cast(PatchLikelihood, step.likelihood)
        self.box = box = likelihood.views.box_shape
        self.shape = tuple(s.stop // n - s.start // n for s, n in zip(tile.owned, box, strict=True))
        self.empty_poses = likelihood.poses[0] * likelihood.templates
        self.shifts = tuple(2 * n - 1 for n in box)
        self.away = tuple(n - 1 for n in box)
        self.wide = tuple(n - 1 + m for n, m in zip(box, likelihood.margins, strict=True))
        self.pixels = math.prod(torus(box, self.wide))
        per_patch = COPIES * np.dtype(self.precision).itemsize * self.pixels * likelihood.templates
        self.batch = max(1, self.backend.max_memory // per_patch)

    def _cut(self, pixels: np.ndarray, first: int) -> Array:
        """(n, 1, L, L) patches of an image, from number ``first`` on."""
        (rows, columns), (height, width) = self.shape, self.box
        blocks = pixels[self.tile.owned].reshape(rows, height, columns, width).swapaxes(1, 2)
        chosen = blocks.reshape(rows * columns, 1, height, width)[first : first + self.batch]
        return self.backend.moved(chosen, self.precision)

    def batches(self) -> Iterator[tuple[Array, Array, Array, Chunks]]:
        """(n, 1, L, L) patches, validity (of one patch if all are alike), log normaliser minus that of the empty pose, scores."""
        likelihood, xp = self.likelihood, self.xp
        log_empty = likelihood.log_prior[0] + math.log(self.empty_poses)
        for first in range(0, math.prod(self.shape), self.batch):
            image = self._cut(self.values, first)
            seen = xp.ones_like(image[:1, ...]) if self.valid is None else self._cut(self.valid, first)

            def score(part: slice, image: Array = image, seen: Array = seen) -> Array:
                place = tuple(-n for n in self.away), self.shifts, self.away
                gain = correlate(image, self.templates[part, ...], *place)
                lost = correlate(seen, self.energies[part, ...], *place)
                return gain - lost + self.prior(likelihood.log_prior[1], part)

            scores = self.chunks(score, self.pixels * image.shape[0])
            log_norm = xp.full(
                (image.shape[0], 1, 1, 1), log_empty, dtype=self.dtype, device=self.backend.device
            )
            for _, found in scores:
                log_norm = xp.logaddexp(log_norm, log_sum(found, (1, 2, 3)))
            yield image, seen, log_norm, scores

    def posterior(self, moment: Moment) -> np.ndarray:
        """(patch rows, patch columns, K, 2L, 2L)."""
        likelihood, whole = self.likelihood, []
        shown = [np.delete(np.arange(2 * n), n) for n in self.box]
        # 0 .. L - 1, then 1 - L .. -1
        rows, columns = (np.roll(np.arange(2 * n - 1), n) for n in self.box)
        torus = tuple(2 * n for n in self.box)
        for _, _, log_norm, scores in self.batches():
            empty = self.backend.to_host(self.xp.exp(likelihood.log_prior[0] - log_norm))
            weights = np.broadcast_to(empty, (len(empty), likelihood.templates, *torus)).copy()
            for part, found in scores:
                centred = self.backend.to_host(self.xp.exp(found - log_norm))
                here = np.ix_(np.arange(len(weights)), np.arange(likelihood.templates)[part], *shown)
                weights[here] = centred[..., rows, :][..., columns]
            whole.append(weights)
        return np.concatenate(whole).reshape(*self.shape, *weights.shape[1:])

    def statistics(self) -> TemplateSums:
        """Sums over the patches."""
        likelihood, xp = self.likelihood, self.xp
        place = tuple(-n for n in self.wide), likelihood.frame_shape, self.wide
        log_empty = likelihood.log_prior[0] + math.log(self.empty_poses)
        sums = self.backend.asarray(np.zeros((2, likelihood.templates, *likelihood.frame_shape)))
        evidence = empty = 0.0
        mass = np.zeros(likelihood.templates)
        for image, seen, log_norm, scores in self.batches():
            found = []
            for part, score in scores:
                w = xp.exp(score - log_norm)
                found.append(
                    (correlate(image, w, *place, summed=True), correlate(seen, w, *place, summed=True))
                )
                mass[part] += self.masses(w, axes=(0, 2, 3))
            sums = sums + xp.stack([self.joined(pieces) for pieces in zip(*found, strict=True)])
            evidence += self.sum64(log_norm)
            empty += self.sum64(xp.exp(log_empty - log_norm))
        return patch_sums(
            likelihood,
            Owned.of(self.tile),
            evidence,
            sums[0, ...],
            sums[1, ...],
            by_class(mass, likelihood),
            empty,
        )
