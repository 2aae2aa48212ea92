"""Conformance tests that ship with the package: one class for each thing that can be plugged in.

Subclass, say how to make the object, and pytest runs the contract on it::

    class TestMyBackend(BackendConformance):
        def make_backend(self, precision):
            return MyBackend(precision)

pytest is needed to import this module, not to import mtdcore.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pytest

from ._base.typing import Array, Precision
from .data import ArrayMeasurement, Measurement
from .data.tiles import Tile, TileGeometry
from .errors import ParameterError
from .estep.backends import Backend
from .estep.backends.competition import log_norm
from .estep.backends.reference import ReferenceBackend
from .estep.statistics import SUMMED, Statistics
from .model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from .model.priors import Prior, denoise
from .model.rotations import RotationSet

Model: TypeAlias = Literal["patch", "patch tied", "window", "window overlapping"]


class _SmallTiles:
    """Cuts a few sites per tile, so that a measurement the plain loops can do has many tiles."""

    @property
    def geometry(self) -> TileGeometry:
        cut: TileGeometry = super().geometry  # type: ignore[misc]
        return replace(cut, side=cut.unit * max(1, 4 // cut.unit))


class SmallTilePatchLikelihood(_SmallTiles, PatchLikelihood):
    """The patch model in tiny tiles."""


class SmallTileWindowLikelihood(_SmallTiles, WindowLikelihood):
    """The window model in tiny tiles."""


@dataclass(frozen=True)
class Case:
    """One small E-step: a stack of two micrographs, a target and a model, all decided by these fields."""

    model: Model
    box_size: int
    rotations: int
    margin: int = 0
    masked: bool = False
    noise_std: float = 0.7
    class_weights: tuple[float, ...] | None = None

    def __str__(self) -> str:
        return f"{self.model} L{self.box_size} K{self.rotations} m{self.margin}{' masked' * self.masked}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(micrographs, H, W): not square, no multiples of L, at least two patches and three tiles each."""
        return 2, self.box_size + 4, 2 * self.box_size + 5

    def target(self) -> np.ndarray:
        """(L, L) float64 target."""
        return 2.0 * np.random.default_rng(self.box_size).uniform(size=(self.box_size, self.box_size))

    def turned(self) -> np.ndarray:
        """(C K, L, L) rotated targets; every further class is another mirror image of the first."""
        images = [self.target(), self.target()[:, ::-1], self.target()[::-1].T]
        rotations = RotationSet(self.rotations, self.box_size)
        return np.concatenate([rotations.apply(image) for image in images[: len(self.class_weights or (1,))]])

    def measurement(self, dtype: str = "float64") -> ArrayMeasurement:
        """Noise and an offset; every tenth pixel invalid when ``masked``."""
        rng = np.random.default_rng(self.box_size + 1)
        # Rounded to float32 for every dtype: backends of both precisions see the same numbers.
        pixels = rng.normal(0.3, 1.0, size=self.shape).astype(np.float32).astype(dtype)
        if self.masked:
            pixels[rng.uniform(size=self.shape) < 0.1] = np.nan
        return ArrayMeasurement(pixels)

    def likelihood(self, small_tiles: bool = False) -> Likelihood:
        """The bound model, in one tile per micrograph or in many."""
        common = (self.box_size, self.rotations, self.noise_std)
        if self.model.startswith("patch"):
            patch = SmallTilePatchLikelihood if small_tiles else PatchLikelihood
            tied = 0.3 if self.model == "patch tied" else None
            return patch(*common, tied, margin=self.margin, class_weights=self.class_weights)
        window = SmallTileWindowLikelihood if small_tiles else WindowLikelihood
        separation = max(1, self.box_size // 2) if self.model == "window overlapping" else None
        bare = window(*common, 4.0, separation, margin=self.margin, class_weights=self.class_weights)
        return bare.bind(self.shape)

    def second_tile(self, dtype: str) -> tuple[Tile, Likelihood]:
        """One tile of many, and the model that cuts it."""
        likelihood = self.likelihood(small_tiles=True)
        return list(self.measurement(dtype).tiles(likelihood.geometry))[1], likelihood

    def accumulate(self, backend: Backend, dtype: str = "float64", small_tiles: bool = False) -> Statistics:
        """The E-step of this case."""
        likelihood = self.likelihood(small_tiles)
        tiles = self.measurement(dtype).tiles(likelihood.geometry)
        return backend.accumulate(tiles, backend.asarray(self.turned()), likelihood)


@cache
def _defined(case: Case) -> Statistics:
    return case.accumulate(ReferenceBackend())


MODELS = ("patch", "patch tied", "window", "window overlapping")
PRECISIONS = ("float32", "float64")
TILES = ("one tile", "many tiles")
#: Odd and even boxes below and above the size at which transforms take over from direct sums.
BOXES, TWO_BOXES, MASKS = (1, 3, 4, 9, 10), (4, 9), (False, True)


def covering(
    factors: Sequence[Sequence[Hashable]], allowed: Callable[..., bool] = lambda *row: True
) -> list[tuple[Any, ...]]:
    """A few rows of a product in which any two levels meet that meet in the whole.

    Greedy: each row is the first of those with the most pairs that have not met yet.

    Args:
        factors: levels of each factor.
        allowed: called with a row; False leaves it out.
    """
    pairs = {row: set(combinations(enumerate(row), 2)) for row in product(*factors) if allowed(*row)}
    apart, chosen = set().union(*pairs.values()), []
    while apart:
        chosen.append(max(pairs, key=lambda row: len(pairs[row] & apart)))
        apart -= pairs[chosen[-1]]
    return chosen


def matrix(
    names: str, *factors: Sequence[Hashable], allowed: Callable[..., bool] = lambda *row: True
) -> pytest.MarkDecorator:
    """The product of factors as test cases, of which all but a covering array are marked slow.

    Args:
        names: of the arguments, separated by commas; ``backend`` stands for its precision.
        factors: levels of each.
        allowed: called with a row; False leaves it out.
    """
    quick = set(covering(factors, allowed))
    rows = [row for row in product(*factors) if allowed(*row)]
    cases = [pytest.param(*row, marks=() if row in quick else pytest.mark.slow) for row in rows]
    return pytest.mark.parametrize(names, cases, indirect=["backend"])


class _Foreign:
    """An array of a library that nobody has: NumPy converts it if nobody looks."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.ndim, self.dtype = values, values.shape, values.ndim, values.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np


def assert_same_statistics(actual: Statistics, expected: Statistics, rtol: float) -> None:
    """Every sum agrees, relative to the largest value of its array; the log-likelihood also to ``rtol`` nats."""
    for name in SUMMED:
        a, b = np.asarray(getattr(actual, name)), np.asarray(getattr(expected, name))
        scale = max(float(np.abs(b).max()), 1.0 if name == "log_likelihood" else 1e-9)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale, err_msg=name)


def assert_same_bits(actual: Statistics, expected: Statistics) -> None:
    """Every sum is equal, bit for bit."""
    for name in SUMMED:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)


class BackendConformance(ABC):
    """A backend equals the reference backend.

    By default any two levels of the factors meet in some case; every case runs with those marked ``slow``, a mark to be
    registered in the configuration of pytest.

    Attributes:
        rtol: largest deviation, relative to the largest value of an array, at each precision.
    """

    rtol: dict[str, float] = {"float32": 2e-4, "float64": 1e-10}  # noqa: RUF012

    @abstractmethod
    def make_backend(self, precision: Precision) -> Backend:
        """The backend under test."""

    @pytest.fixture(params=PRECISIONS)
    def backend(self, request: pytest.FixtureRequest) -> Backend:
        """The backend at each precision."""
        return self.make_backend(request.param)

    def on_host(self, backend: Backend, statistics: Statistics) -> Statistics:
        """The same statistics as NumPy arrays."""
        return statistics.moved(backend.to_host)

    def assert_right(self, backend: Backend, case: Case, small_tiles: bool = False) -> None:
        """The statistics of a case are those of the reference, which does each micrograph in one tile."""
        found = self.on_host(backend, case.accumulate(backend, backend.precision, small_tiles))
        assert_same_statistics(found, _defined(case), self.rtol[backend.precision])

    @matrix(
        "backend, model, box_size, rotations, margin, masked, tiles",
        PRECISIONS,
        MODELS,
        BOXES,
        (1, 3, 4),
        (0, 1, 2),
        MASKS,
        TILES,
        allowed=lambda _, model, box, count, margin, *rest: margin <= box // 2 and (box < 9 or margin != 1),
    )
    def test_statistics_equal_the_reference(
        self,
        backend: Backend,
        model: Model,
        box_size: int,
        rotations: int,
        margin: int,
        masked: bool,
        tiles: str,
    ) -> None:
        """Also across the cut into tiles."""
        self.assert_right(backend, Case(model, box_size, rotations, margin, masked), tiles == "many tiles")

    @matrix("backend, model, box_size, masked", PRECISIONS, MODELS, TWO_BOXES, MASKS)
    def test_posterior_equals_the_reference(
        self, backend: Backend, model: Model, box_size: int, masked: bool
    ) -> None:
        """Weights of every pose of one tile of many."""
        case = Case(model, box_size, rotations=3, masked=masked)
        tile, likelihood = case.second_tile(backend.precision)
        found = backend.posterior(tile, backend.asarray(case.turned()), likelihood)
        expected = ReferenceBackend().posterior(tile, case.turned(), likelihood)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.rtol[backend.precision])

    @matrix("backend, box_size, masked", PRECISIONS, TWO_BOXES, MASKS)
    def test_log_odds_equal_the_reference(self, backend: Backend, box_size: int, masked: bool) -> None:
        """At every corner of one tile of many, halo included."""
        case = Case("window", box_size, rotations=3, masked=masked)
        tile, likelihood = case.second_tile(backend.precision)
        assert isinstance(likelihood, WindowLikelihood)
        found = backend.log_odds(tile, backend.asarray(case.turned()), likelihood)
        expected = ReferenceBackend().log_odds(tile, case.turned(), likelihood)
        assert isinstance(found, np.ndarray)
        tolerance = self.rtol[backend.precision] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)

    @matrix(
        "backend, model, box_size, margin, masked, weights",
        PRECISIONS,
        MODELS[2:],
        TWO_BOXES,
        (0, 2),
        MASKS,
        (None, (0.6, 0.3, 0.1)),
    )
    def test_parts_make_up_the_whole(
        self,
        backend: Backend,
        model: Model,
        box_size: int,
        margin: int,
        masked: bool,
        weights: tuple[float, ...] | None,
    ) -> None:
        """Templates scored in two parts, the log-odds joined, each part projected."""
        case = Case(model, box_size, 3, margin, masked, class_weights=weights)
        tile, likelihood = case.second_tile(backend.precision)
        assert isinstance(likelihood, WindowLikelihood)
        parts = [(part, backend.asarray(case.turned()[part])) for part in (slice(0, 2), slice(2, None))]
        first, second = (backend.log_odds(tile, held, likelihood, part) for part, held in parts)
        norm = log_norm(np.logaddexp(first, second), tile, likelihood)
        sums = [
            self.on_host(backend, backend.project(tile, held, likelihood, norm, part)) for part, held in parts
        ]
        whole = replace(
            sums[0],
            backprojection=np.concatenate([each.backprojection for each in sums]),
            coverage=np.concatenate([each.coverage for each in sums]),
            expected_count=sum(each.expected_count for each in sums),
        )
        expected = ReferenceBackend().accumulate([tile], case.turned(), likelihood)
        assert_same_statistics(whole, expected, self.rtol[backend.precision])
        for each in sums:
            assert (each.log_likelihood, each.sites) == (sums[0].log_likelihood, expected.sites)

    def test_patches_do_not_come_in_parts(self, backend: Backend) -> None:
        """The patch model is refused where only the window model has a meaning."""
        case = Case("patch", 4, 3)
        tile, likelihood = case.second_tile(backend.precision)
        held, patches = backend.asarray(case.turned()), cast(WindowLikelihood, likelihood)
        with pytest.raises(ParameterError, match="window model"):
            backend.log_odds(tile, held, patches)
        with pytest.raises(ParameterError, match="window model"):
            backend.project(tile, held, patches, np.zeros((4, 4)))

    @pytest.mark.parametrize("model", ["patch", "window"])
    def test_arrays_of_another_library_are_refused(self, backend: Backend, model: Model) -> None:
        """Never converted in silence: neither templates, nor what becomes templates."""
        case = Case(model, 4, 3)
        tile, likelihood = case.second_tile(backend.precision)
        strangers: list[Any] = [_Foreign(case.turned()), case.turned().tolist()]
        if not isinstance(backend.asarray(case.turned()), np.ndarray):
            strangers.append(case.turned())
        with pytest.raises(ParameterError):
            backend.asarray(strangers[0])
        for strange in strangers:
            with pytest.raises(ParameterError, match="templates should be an array of"):
                backend.accumulate([tile], strange, likelihood)
            with pytest.raises(ParameterError, match="templates should be an array of"):
                backend.posterior(tile, strange, likelihood)
            if isinstance(likelihood, WindowLikelihood):
                with pytest.raises(ParameterError, match="templates should be an array of"):
                    backend.log_odds(tile, strange, likelihood)
                with pytest.raises(ParameterError, match="templates should be an array of"):
                    backend.project(tile, strange, likelihood, np.zeros((4, 4)))

    def test_arrays_of_another_shape_are_refused(self, backend: Backend) -> None:
        """Templates that are too few or too large, a norm of other corners."""
        case = Case("window", 4, 3)
        tile, likelihood = case.second_tile(backend.precision)
        assert isinstance(likelihood, WindowLikelihood)
        held = backend.asarray(case.turned())
        for wrong, part in (
            (held[:2, ...], slice(None)),
            (held[:, 1:, 1:], slice(None)),
            (held, slice(0, 2)),
        ):
            with pytest.raises(ParameterError, match="templates should have shape"):
                backend.log_odds(tile, wrong, likelihood, part)
        with pytest.raises(ParameterError, match="log_norm should be"):
            backend.project(tile, held, likelihood, np.zeros((1, 1)))

    @matrix("backend, model, box_size, masked", PRECISIONS, MODELS, TWO_BOXES, MASKS)
    def test_classes(self, backend: Backend, model: Model, box_size: int, masked: bool) -> None:
        """Templates of several classes, some expected more often than others."""
        self.assert_right(backend, Case(model, box_size, 2, 1, masked, class_weights=(0.6, 0.3, 0.1)))

    @matrix("backend, model", PRECISIONS, ("patch", "window"))
    def test_no_tiles(self, backend: Backend, model: Model) -> None:
        """The neutral element."""
        case = Case(model, 4, rotations=3, margin=1)
        found = backend.accumulate([], backend.asarray(case.turned()), case.likelihood())
        assert_same_bits(self.on_host(backend, found), Statistics.zeros(3, 4, case.noise_std, 1))

    @matrix("backend, model, box_size", PRECISIONS, MODELS, TWO_BOXES)
    def test_all_pixels_invalid(self, backend: Backend, model: Model, box_size: int) -> None:
        """A tile that shows nothing says nothing."""
        case = Case(model, box_size, rotations=3)
        likelihood = case.likelihood()
        blank = ArrayMeasurement(np.full(case.shape, np.nan, dtype=backend.precision))
        turned = backend.asarray(case.turned())
        found = self.on_host(
            backend, backend.accumulate(blank.tiles(likelihood.geometry), turned, likelihood)
        )
        assert np.isfinite(found.expected_count)
        assert found.pixels == found.energy == 0
        np.testing.assert_allclose(found.backprojection, 0, atol=1e-5)
        np.testing.assert_allclose(found.coverage, 0, atol=1e-5)
        np.testing.assert_allclose(found.log_likelihood, 0, atol=1e-3)

    @matrix("backend, model, box_size, noise_std", PRECISIONS, MODELS, TWO_BOXES, (1e-3, 1e3))
    def test_extreme_noise_levels(
        self, backend: Backend, model: Model, box_size: int, noise_std: float
    ) -> None:
        """Log-weights of a million nats, and of a millionth."""
        self.assert_right(backend, Case(model, box_size, rotations=4, noise_std=noise_std))

    @matrix("backend, model", PRECISIONS, ("patch", "window"))
    def test_same_bits_again_from_inputs_that_are_not_written_to(
        self, backend: Backend, model: Model
    ) -> None:
        """No dependence on time, threads or what ran before; read-only pixels, masks and targets are fine."""
        case = Case(model, 9, rotations=4, margin=2, masked=True)
        likelihood = case.likelihood(small_tiles=True)
        tiles = list(case.measurement(backend.precision).tiles(likelihood.geometry))
        before = [tile.values.copy() for tile in tiles]
        turned = case.turned()
        for array in (turned, *(a for tile in tiles for a in (tile.values, tile.valid) if a is not None)):
            array.flags.writeable = False
        first, second = (backend.accumulate(tiles, backend.asarray(turned), likelihood) for _ in range(2))
        assert_same_bits(self.on_host(backend, first), self.on_host(backend, second))
        for tile, values in zip(tiles, before, strict=True):
            np.testing.assert_array_equal(tile.values, values)

    def test_arrays_belong_to_the_library(self, backend: Backend) -> None:
        """Host arrays come back unchanged; statistics are float64 of the backend's library."""
        image = np.arange(6.0).reshape(2, 3)
        held = backend.asarray(image)
        np.testing.assert_array_equal(backend.to_host(held), image)
        assert type(backend.asarray(held)) is type(held)
        found = Case("window", 4, 3).accumulate(backend, backend.precision)
        backend.synchronize()
        for array in (found.backprojection, found.coverage):
            assert type(array) is type(held)
            assert array.dtype == backend.xp.float64


class PriorConformance(ABC):
    """A prior keeps to :class:`mtdcore.Prior`.

    Attributes:
        box_size: side L of the images of the prior.
        levels: noise levels at which it is asked.
    """

    box_size: int = 8
    levels: tuple[float, ...] = (0.1, 0.5, 2.0)

    @abstractmethod
    def make_prior(self) -> Prior:
        """The prior under test."""

    @abstractmethod
    def make_images(self, count: int) -> np.ndarray:
        """(count, L, L) clean images that the prior is about."""

    def asarray(self, images: np.ndarray) -> Array:
        """Images in the library that the prior takes."""
        return images

    @pytest.fixture
    def noisy(self) -> Array:
        """(3, L, L) float32 images with noise."""
        rng = np.random.default_rng(0)
        return (self.make_images(3) + 0.5 * rng.normal(size=(3, self.box_size, self.box_size))).astype(
            np.float32
        )

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_shape_dtype_and_library_are_kept(self, noisy: np.ndarray, dtype: str) -> None:
        """And the score is finite at every level."""
        images = self.asarray(noisy.astype(dtype))
        for level in self.levels:
            score = self.make_prior().score(images, level)
            assert type(score) is type(images)
            assert (score.shape, score.dtype) == (images.shape, images.dtype)
            assert np.isfinite(np.asarray(score)).all()

    def test_images_of_a_batch_do_not_mix(self, noisy: np.ndarray) -> None:
        """The score of a batch is the scores of its images."""
        prior = self.make_prior()
        for level in self.levels:
            together = np.asarray(prior.score(self.asarray(noisy), level))
            alone = [np.asarray(prior.score(self.asarray(noisy[i : i + 1]), level))[0] for i in range(3)]
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4 * np.abs(together).max())

    def test_same_bits_again_and_input_untouched(self, noisy: np.ndarray) -> None:
        """A score is a function, also of read-only images."""
        prior, before = self.make_prior(), noisy.copy()
        noisy.flags.writeable = False
        first, second = (np.asarray(prior.score(self.asarray(noisy), self.levels[0])) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(noisy, before)

    def test_denoising_its_own_images_does_not_hurt(self) -> None:
        """Tweedie's denoiser is closer to the clean image than the noisy one is, at every level."""
        clean = self.make_images(16).astype(np.float64)
        for level in self.levels:
            noisy = clean + level * np.random.default_rng(1).normal(size=clean.shape)
            better = np.asarray(denoise(self.make_prior(), self.asarray(noisy), level))
            assert np.mean((better - clean) ** 2) <= np.mean((noisy - clean) ** 2)


class MeasurementConformance(ABC):
    """A kind of measurement yields the pixels it was made from."""

    #: Windows of 5 x 5 with a halo: tiles overlap, the last ones are smaller.
    geometry = TileGeometry(side=8, unit=1, halo=3, reach=4)

    @abstractmethod
    def make_measurement(self, array: np.ndarray) -> Measurement:
        """A measurement with these (micrographs, H, W) pixels."""

    @pytest.fixture
    def pixels(self) -> np.ndarray:
        """(2, 21, 34) float32 pixels."""
        return np.random.default_rng(0).normal(size=(2, 21, 34)).astype(np.float32)

    def test_tiles_are_the_pixels(self, pixels: np.ndarray) -> None:
        """In the fixed order, with no pixel marked invalid."""
        measurement = self.make_measurement(pixels)
        assert measurement.shape == pixels.shape
        assert measurement.dtype == np.float32
        expected = [(m, region) for m in range(2) for region in self.geometry.regions(pixels.shape[1:])]
        tiles = list(measurement.tiles(self.geometry))
        assert measurement.tile_count(self.geometry) == len(tiles) == len(expected)
        for tile, (micrograph, region) in zip(tiles, expected, strict=True):
            assert (tile.micrograph, tile.region) == (micrograph, region)
            assert tile.micrograph_shape == pixels.shape[1:]
            assert tile.valid is None
            assert tile.values.flags.c_contiguous
            np.testing.assert_array_equal(tile.values, pixels[micrograph][region.read])

    def test_tiles_are_fresh(self, pixels: np.ndarray) -> None:
        """Writing to a tile changes nothing."""
        measurement = self.make_measurement(pixels.copy())
        for tile in measurement.tiles(self.geometry):
            tile.values[:] = 0
        for tile in measurement.tiles(self.geometry):
            np.testing.assert_array_equal(tile.values, pixels[tile.micrograph][tile.region.read])

    def test_pixels_that_are_not_finite_are_invalid(self, pixels: np.ndarray) -> None:
        """Marked, and set to zero."""
        pixels[1, 3, 4], pixels[1, 5, 6] = np.nan, -np.inf
        tiles = list(self.make_measurement(pixels).tiles(self.geometry))
        for tile in tiles:
            expected = pixels[tile.micrograph][tile.region.read]
            good = np.isfinite(expected)
            assert (tile.valid is None) == good.all()
            np.testing.assert_array_equal(tile.values, np.where(good, expected, 0))
            if tile.valid is not None:
                np.testing.assert_array_equal(tile.valid, good)
        assert any(tile.valid is not None for tile in tiles)

    @pytest.mark.parametrize("parts", [1, 2, 3, 50])
    @pytest.mark.parametrize("pickled", [False, True])
    def test_parts_are_the_whole(self, pixels: np.ndarray, parts: int, pickled: bool) -> None:
        """One after another, also after a journey to another process."""
        whole = self.make_measurement(pixels)
        pieces = whole.split(parts)
        assert len(pieces) == parts
        if pickled:
            pieces = pickle.loads(pickle.dumps(pieces))
        assert all(piece.shape == whole.shape for piece in pieces)
        _assert_same_tiles(
            (tile for piece in pieces for tile in piece.tiles(self.geometry)), whole.tiles(self.geometry)
        )
        counts = [piece.tile_count(self.geometry) for piece in pieces]
        assert counts == [sum(1 for _ in piece.tiles(self.geometry)) for piece in pieces]
        assert max(counts) - min(counts) <= 1

    def test_a_part_splits_again(self, pixels: np.ndarray) -> None:
        """Splitting twice is splitting finer."""
        whole = self.make_measurement(pixels)
        finer = [piece for half in whole.split(2) for piece in half.split(2)]
        _assert_same_tiles(
            (tile for piece in finer for tile in piece.tiles(self.geometry)), whole.tiles(self.geometry)
        )


def _assert_same_tiles(actual: Iterator[Tile], expected: Iterator[Tile]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert (a.micrograph, a.region) == (b.micrograph, b.region)
        np.testing.assert_array_equal(a.values, b.values)
