"""The two likelihoods on the device: cutting tiles into items, and normalising gains.

An *item* has one set of correlation maps: it is a patch, or a tile of windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...._base.typing import Array
from ....data.tiles import Tile
from ....model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ...sums import TemplateSums
from ..base import Moment
from ..collect import Owned, patch_sums
from .kernels import Amplitudes, Kernels
from .staging import StagedTile

#: From _LARGE on, a power of two up to _NEAR times the needed length is faster than other lengths (both sides of a square).
_LARGE, _NEAR = 512, 1.34


@dataclass(frozen=True)
class Items:
    """Items on the device; slicing takes some of them.

    Attributes:
        pixels: (M, h, w) real, invalid pixels 0.
        valid: (M, h, w) uint8, or None when every pixel is valid; pixels of the torus beyond (h, w) are invalid.
        corners: (M, 6) int32 as :meth:`Kernels.window_posterior` takes it (window model only).
    """

    pixels: Array
    valid: Array | None = None
    corners: Array | None = None

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def __getitem__(self, cut: slice) -> Items:
        return Items(*(None if a is None else a[cut] for a in (self.pixels, self.valid, self.corners)))


class Model(Protocol):
    """One likelihood on the device."""

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood itself."""
        ...

    def torus(self, tile: Tile) -> tuple[int, int]:
        """Shape of the transforms: large enough that no used pixel wraps around, with fast lengths."""
        ...

    def gather(self, tiles: list[StagedTile], xp: Array, torus: tuple[int, int] | None = None) -> Items:
        """The items of these tiles; windows lie on ``torus``, None: the one of :meth:`torus`."""
        ...

    def normalise(
        self, maps: Array, items: Items, kernels: Kernels, amplitudes: Amplitudes | None = None
    ) -> tuple[Array, Array | None]:
        """Normalise gains (K, M, N1, N2). Returns (2,) float64, evidence and empty mass or count; and the normalisers (M, N1, N2).

        If the normalisers are None, gains were converted to weights in place, and :meth:`weigh` does nothing.
        """
        ...

    def weigh(
        self,
        maps: Array,
        normaliser: Array,
        out: Array,
        kernels: Kernels,
        amplitudes: Amplitudes | None = None,
        moment: Moment = 0,
    ) -> None:
        """Weights from some gains (k, m, N1, N2) and the normalisers of their items; ``out`` may be ``maps``.

        If amplitudes differ, ``amplitudes`` are those of these gains, and weights are multiplied by the posterior mean of a power of the
        amplitude.
        """
        ...

    def posterior(self, maps: Array, tile: Tile) -> np.ndarray:
        """Weights of one tile on the host, as :meth:`Backend.posterior` returns them, from host maps."""
        ...

    def energy(self, tiles: list[StagedTile], items: Items) -> Array:
        """Energy of the pixels that these tiles own, float64 on the device; ``items`` are those of the tiles."""
        ...

    def statistics(self, frames: Array, scores: Any, owned: Owned) -> TemplateSums:
        """Sums of an E-step: frames (2, K, B, B), host scores as in :class:`.paths.Sums`, and the sums of owned pixels."""
        ...


def fast_length(least: int) -> int:
    """Length of a transform: the next power of two if it is near, else a multiple of 4 without prime factors above 7.

    From 1024 on, transforms of powers of two take little more than half the time of others of similar size (docs/gpu.md).
    """
    power = 4
    while power < least:
        power *= 2
    length = max(4, -(-least // 4) * 4)
    while not _smooth(length):
        length += 4
    return power if power <= length * (_NEAR if power >= _LARGE else 1.0) else length


def _energy(pixels: Array) -> Array:
    return (pixels * pixels).sum(dtype=np.float64)


def _smooth(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


class PatchModel:
    """Patches on a torus of side >= 2 L - 1 + margin; the empty poses are summed in closed form."""

    def __init__(self, likelihood: PatchLikelihood) -> None:
        self._likelihood = likelihood
        log_empty, self.log_shown = likelihood.log_prior
        self.log_empty = log_empty + math.log((4 * likelihood.box_size - 1) * likelihood.templates)

    @property
    def likelihood(self) -> PatchLikelihood:
        """The likelihood itself."""
        return self._likelihood

    def torus(self, tile: Tile) -> tuple[int, int]:
        """One torus for every tile."""
        side = fast_length(2 * self.likelihood.box_size - 1 + self.likelihood.margins[1])
        return side, side

    def gather(self, tiles: list[StagedTile], xp: Array, torus: tuple[int, int] | None = None) -> Items:
        """(M, L, L) patches in the order of the tiles, row-major within each."""
        pixels = [self._patches(t.pixels[t.tile.owned]) for t in tiles]
        if all(t.valid is None for t in tiles):
            return Items(xp.concatenate(pixels))
        masks = [xp.ones(t.pixels.shape, dtype=np.uint8) if t.valid is None else t.valid for t in tiles]
        valid = [self._patches(m[t.tile.owned]) for m, t in zip(masks, tiles, strict=True)]
        return Items(xp.concatenate(pixels), xp.concatenate(valid))

    def normalise(
        self, maps: Array, items: Items, kernels: Kernels, amplitudes: Amplitudes | None = None
    ) -> tuple[Array, Array | None]:
        """Log-sum-exp over all poses of a patch."""
        evidence, empty = kernels.patch_posterior(
            maps, self.likelihood.box_size, self.log_shown, self.log_empty
        )
        return kernels.xp.stack((evidence.sum(), empty.sum())), None

    def weigh(
        self,
        maps: Array,
        normaliser: Array,
        out: Array,
        kernels: Kernels,
        amplitudes: Amplitudes | None = None,
        moment: Moment = 0,
    ) -> None:
        """Nothing to do: :meth:`normalise` made weights of the maps."""

    def posterior(self, maps: Array, tile: Tile) -> np.ndarray:
        """Shifts l of docs/model.md 3: the empty ones share the empty mass of their patch evenly."""
        length, side = self.likelihood.box_size, maps.shape[-1]
        rows, columns = ((s.stop - s.start) // length for s in tile.owned)
        shown = np.delete(np.arange(2 * length), length)
        place = np.where(shown < length, shown, shown - 2 * length) % side
        out = np.empty((maps.shape[1], maps.shape[0], 2 * length, 2 * length))
        inner = maps[:, :, place[:, None], place].swapaxes(0, 1)
        empty = 1.0 - inner.sum(axis=(1, 2, 3), dtype=np.float64)
        out[...] = (empty / ((4 * length - 1) * maps.shape[0]))[:, None, None, None]
        out[:, :, shown[:, None], shown] = inner
        return out.reshape(rows, columns, *out.shape[1:])

    def energy(self, tiles: list[StagedTile], items: Items) -> Array:
        """The energy of all patches at once."""
        return _energy(items.pixels)

    def statistics(self, frames: Array, scores: Any, owned: Owned) -> TemplateSums:
        """Sums of patches: log-likelihood of the valid pixels; the number of copies is the mean coverage of a pixel of the box."""
        evidence, empty_mass = float(scores[0]), float(scores[1])
        mass = np.array(scores[2:] if self.likelihood.classes > 1 else [owned.sites - empty_mass])
        return patch_sums(self.likelihood, owned, evidence, frames[0], frames[1], mass, empty_mass)

    def _patches(self, image: Array) -> Array:
        side = self.likelihood.box_size
        rows, columns = image.shape[0] // side, image.shape[1] // side
        return image.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


class WindowModel:
    """Tiles of windows on a torus that holds the largest tile and the margin."""

    def __init__(self, likelihood: WindowLikelihood) -> None:
        self._likelihood = likelihood

    @property
    def likelihood(self) -> WindowLikelihood:
        """The likelihood itself."""
        return self._likelihood

    def torus(self, tile: Tile) -> tuple[int, int]:
        """One torus for all tiles of a measurement, so that they share their transforms."""
        rows, columns = (fast_length(least) for least in self.least(tile))
        return rows, columns

    def least(self, tile: Tile) -> tuple[int, int]:
        """Shape of the smallest torus for all tiles of a measurement like this one."""
        largest = tile.geometry.largest_read(tile.micrograph_shape)
        rows, columns = (
            max(n, own) + self.likelihood.margins[1]
            for n, own in zip(largest, tile.values.shape, strict=True)
        )
        return rows, columns

    def gather(self, tiles: list[StagedTile], xp: Array, torus: tuple[int, int] | None = None) -> Items:
        """Tiles on a torus; pixels outside the micrograph are invalid, if a frame reaches them."""
        shape = (len(tiles), *(torus or self.torus(tiles[0].tile)))
        masked = not all(self.sees_valid_pixels_only(t.tile) for t in tiles)
        pixels = xp.zeros(shape, dtype=tiles[0].pixels.dtype)
        valid = xp.zeros(shape, dtype=np.uint8) if masked else None
        corners = np.empty((len(tiles), 6), dtype=np.int32)
        for m, item in enumerate(tiles):
            rows, columns = item.pixels.shape
            pixels[m, :rows, :columns] = item.pixels
            if valid is not None:
                valid[m, :rows, :columns] = 1 if item.valid is None else item.valid
            reach = item.tile.geometry.reaches[1]
            (top, bottom), (left, right) = ((s.start, s.stop) for s in item.tile.owned)
            corners[m] = rows - reach, columns - reach, top, bottom, left, right
        return Items(pixels, valid, xp.asarray(corners))

    def sees_valid_pixels_only(self, tile: Tile) -> bool:
        """Whether the frames of its windows, margin included, hold no invalid pixel and stay in the micrograph."""
        return tile.valid is None and tile.holds_frames(self.likelihood.margins[1])

    def normalise(
        self, maps: Array, items: Items, kernels: Kernels, amplitudes: Amplitudes | None = None
    ) -> tuple[Array, Array | None]:
        """Competition of corners closer than the minimum separation."""
        likelihood = self.likelihood
        normaliser, sums = kernels.window_posterior(
            maps, items.corners, likelihood.log_activity, likelihood.separation, amplitudes
        )
        return sums.sum(axis=(0, 1)), normaliser

    def weigh(
        self,
        maps: Array,
        normaliser: Array,
        out: Array,
        kernels: Kernels,
        amplitudes: Amplitudes | None = None,
        moment: Moment = 0,
    ) -> None:
        """Posterior of each template at each owned corner."""
        log_prior = self.likelihood.log_activity - math.log(self.likelihood.templates)
        kernels.window_weights(maps, normaliser, log_prior, out, amplitudes, moment)

    def posterior(self, maps: Array, tile: Tile) -> np.ndarray:
        """Weights of the owned corners."""
        return np.asarray(maps[(slice(None), 0, *tile.owned)], dtype=np.float64)

    def energy(self, tiles: list[StagedTile], items: Items) -> Array:
        """The energy tile by tile, because neighbouring tiles read common pixels."""
        return sum(_energy(t.pixels[t.tile.owned_pixels]) for t in tiles)

    def statistics(self, frames: Array, scores: Any, owned: Owned) -> TemplateSums:
        """Sums of windows, with the evidence against "no copies" (docs/model.md 7)."""
        likelihood = self.likelihood
        # if amplitudes differ, their sums come last
        first, squares = scores[-2:] if likelihood.amplitudes is not None else (scores[1], scores[1])
        return TemplateSums(
            backprojection=frames[0],
            coverage=frames[1],
            class_mass=np.array(
                scores[2 : 2 + likelihood.classes] if likelihood.classes > 1 else scores[1:2]
            ),
            log_likelihood=float(scores[0]) / likelihood.neighbourhood,
            expected_count=float(scores[1]),
            empty_mass=0.0,
            **owned._asdict(),
            noise_std=likelihood.noise_std,
            box_size=likelihood.box_size,
            amplitude_sum=float(first),
            amplitude_squares=float(squares),
        )
