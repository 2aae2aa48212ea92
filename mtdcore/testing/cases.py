"""Small E-steps for the comparison of backends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np

from .._base.typing import Lengths, pair, plain
from ..data import ArrayMeasurement
from ..data.tiles import Tile, TileGeometry
from ..estep.backends import Backend
from ..estep.backends.reference import ReferenceBackend
from ..estep.statistics import Statistics
from ..estep.sums import TemplateSums
from ..model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ..model.rotations import Rotations
from ..model.views import Classes, Views

Model: TypeAlias = Literal["patch", "patch tied", "window", "window overlapping"]


class _SmallTiles:
    """Cuts a few sites per tile, so that a measurement small enough for plain loops has many tiles."""

    @property
    def geometry(self) -> TileGeometry:
        cut: TileGeometry = super().geometry  # type: ignore[misc]
        return replace(cut, side=plain(*(unit * max(1, 4 // unit) for unit in cut.units)))


class SmallTilePatchLikelihood(_SmallTiles, PatchLikelihood):
    """The patch model in tiny tiles."""


class SmallTileWindowLikelihood(_SmallTiles, WindowLikelihood):
    """The window model in tiny tiles."""


@dataclass(frozen=True)
class Case:
    """One small E-step: a stack of two micrographs, a target and a likelihood, all determined by these fields."""

    model: Model
    box_size: Lengths
    rotations: int
    margin: Lengths = 0
    masked: bool = False
    noise_std: float = 0.7
    class_weights: tuple[float, ...] | None = None
    amplitude_std: float = 0.0

    def __str__(self) -> str:
        height, width = self.box
        amplitudes = f" a{self.amplitude_std:g}" if self.amplitude_std else ""
        return f"{self.model} L{height if height == width else f'{height}x{width}'} K{self.rotations} m{self.margin}{' masked' * self.masked}{amplitudes}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H, W): not square, no multiples of L, at least two patches and three tiles each.

        Boxes that are wider than high fill the height, as for signals with one channel per row.
        """
        height, width = self.box
        return 2, height if height < width else height + 4, 2 * width + 5

    @property
    def box(self) -> tuple[int, int]:
        """(h, w) of the templates."""
        return pair(self.box_size)

    def target(self) -> np.ndarray:
        """(h, w) float64 target."""
        return 2.0 * np.random.default_rng(self.box[1]).uniform(size=self.box)

    @property
    def views(self) -> Views:
        """The rotations, of each class."""
        rotations = Rotations(self.rotations, self.box_size)
        return Classes(rotations, len(self.class_weights)) if self.class_weights else rotations

    def templates(self) -> np.ndarray:
        """(T, L, L) templates; every further class is another mirror image of the first."""
        target = self.target()
        images = [target, target[:, ::-1], target[::-1].T if self.box[0] == self.box[1] else target[::-1]]
        stack = np.stack(images[: self.views.classes])
        return np.asarray(self.views.apply(stack if self.class_weights else stack[0]))

    def measurement(self, dtype: str = "float64") -> ArrayMeasurement:
        """Noise and an offset; every tenth pixel invalid when ``masked``."""
        rng = np.random.default_rng(self.box[1] + 1)
        # Rounded to float32 for every dtype: backends of both precisions see the same numbers.
        pixels = rng.normal(0.3, 1.0, size=self.shape).astype(np.float32).astype(dtype)
        if self.masked:
            pixels[rng.uniform(size=self.shape) < 0.1] = np.nan
        return ArrayMeasurement(pixels)

    def likelihood(self, small_tiles: bool = False) -> Likelihood:
        """The bound likelihood, with one tile per micrograph or many."""
        common = (self.views, self.noise_std)
        more: dict[str, Any] = {
            "margin": self.margin,
            "class_weights": self.class_weights,
            "amplitude_std": self.amplitude_std,
        }
        if self.model.startswith("patch"):
            patch = SmallTilePatchLikelihood if small_tiles else PatchLikelihood
            tied = 0.3 if self.model == "patch tied" else None
            return patch(*common, tied, **more)
        window = SmallTileWindowLikelihood if small_tiles else WindowLikelihood
        separation = max(1, max(self.box) // 2) if self.model == "window overlapping" else None
        return window(*common, 4.0, separation, **more).bind(self.shape)

    def second_tile(self, dtype: str) -> tuple[Tile, Likelihood]:
        """One tile of many, and the likelihood that cuts it."""
        likelihood = self.likelihood(small_tiles=True)
        return list(self.measurement(dtype).tiles(likelihood.geometry))[1], likelihood

    def statistics(self, backend: Backend) -> Statistics:
        """The E-step of this case, in target space."""
        return Statistics.of(self.accumulate(backend), self.views)

    def accumulate(self, backend: Backend, dtype: str = "float64", small_tiles: bool = False) -> TemplateSums:
        """The sums of this case."""
        likelihood = self.likelihood(small_tiles)
        tiles = self.measurement(dtype).tiles(likelihood.geometry)
        return backend.accumulate(tiles, backend.asarray(self.templates()), likelihood)


@cache
def defined(case: Case) -> TemplateSums:
    """The sums of a case by the reference backend."""
    return case.accumulate(ReferenceBackend())


MODELS = ("patch", "patch tied", "window", "window overlapping")
PRECISIONS = ("float32", "float64")
TILES = ("one tile", "many tiles")
#: Odd and even boxes below and above the size at which transforms take over from direct sums.
BOXES, TWO_BOXES, MASKS = (1, 3, 4, 9, 10), (4, 9), (False, True)
#: Small and large standard deviation of the amplitudes.
AMPLITUDES = (0.05, 0.8)
#: A signal, one of three channels, and a box that moves along both axes.
RECTANGLES = ((1, 6), (3, 7), (5, 2))
