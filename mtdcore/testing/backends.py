"""Conformance tests of backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from .._base.typing import Lengths, Precision, plain
from ..data import ArrayMeasurement
from ..errors import ParameterError
from ..estep.backends import Backend
from ..estep.backends.base import Moment
from ..estep.backends.competition import log_norm
from ..estep.backends.reference import ReferenceBackend
from ..estep.sums import TemplateSums
from ..model.likelihood import WindowLikelihood
from .cases import (
    AMPLITUDES,
    BOXES,
    MASKS,
    MODELS,
    PRECISIONS,
    RECTANGLES,
    TILES,
    TWO_BOXES,
    Case,
    Model,
    defined,
)
from .compare import assert_same_bits, assert_same_statistics
from .matrix import matrix


class _Foreign:
    """An array of an unknown library, which NumPy converts silently."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.ndim, self.dtype = values, values.shape, values.ndim, values.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np


class BackendConformance(ABC):
    """A backend equals the reference backend.

    By default the cases are a covering array: every pair of levels of two factors occurs in some case. The other cases of the full
    product are marked ``slow``, a mark to be registered in the configuration of pytest.

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

    def on_host(self, backend: Backend, sums: TemplateSums) -> TemplateSums:
        """The same statistics as NumPy arrays."""
        return sums.moved(backend.to_host)

    def assert_right(self, backend: Backend, case: Case, small_tiles: bool = False) -> None:
        """Assert that the statistics of a case equal those of the reference, which scores each micrograph in one tile."""
        found = self.on_host(backend, case.accumulate(backend, backend.precision, small_tiles))
        assert_same_statistics(found, defined(case), self.rtol[backend.precision])

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
        """For any cut into tiles."""
        self.assert_right(backend, Case(model, box_size, rotations, margin, masked), tiles == "many tiles")

    @matrix(
        "backend, model, box, rotations, framed, masked, tiles",
        PRECISIONS,
        MODELS,
        RECTANGLES,
        (1, 2),
        (False, True),
        MASKS,
        TILES,
    )
    def test_rectangles_equal_the_reference(
        self,
        backend: Backend,
        model: Model,
        box: tuple[int, int],
        rotations: int,
        framed: bool,
        masked: bool,
        tiles: str,
    ) -> None:
        """Rectangular boxes: statistics, with a margin along the axes that have room for one, and weights."""
        case = Case(model, box, rotations, masked=masked)
        room = (n // 2 if n < side else 0 for n, side in zip(box, case.shape[1:], strict=True))
        many = tiles == "many tiles"
        self.assert_right(backend, replace(case, margin=plain(*room)) if framed else case, many)
        tile, likelihood = case.second_tile(backend.precision)
        found = backend.posterior(tile, backend.asarray(case.templates()), likelihood)
        expected = ReferenceBackend().posterior(tile, case.templates(), likelihood)
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.rtol[backend.precision])

    @matrix("backend, model, box_size, masked", PRECISIONS, MODELS, TWO_BOXES, MASKS)
    def test_posterior_equals_the_reference(
        self, backend: Backend, model: Model, box_size: int, masked: bool
    ) -> None:
        """Weights of every pose of one tile of many."""
        case = Case(model, box_size, rotations=3, masked=masked)
        tile, likelihood = case.second_tile(backend.precision)
        found = backend.posterior(tile, backend.asarray(case.templates()), likelihood)
        expected = ReferenceBackend().posterior(tile, case.templates(), likelihood)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.rtol[backend.precision])

    @matrix(
        "backend, model, box_size, margin, masked, amplitude_std, tiles",
        PRECISIONS,
        MODELS[2:],
        (*TWO_BOXES, (3, 7)),
        (0, 1),
        MASKS,
        AMPLITUDES,
        TILES,
    )
    def test_amplitudes_equal_the_reference(
        self,
        backend: Backend,
        model: Model,
        box_size: Lengths,
        margin: int,
        masked: bool,
        amplitude_std: float,
        tiles: str,
    ) -> None:
        """Copies that differ in amplitude: statistics, and the weights of one tile times amplitudes and their squares."""
        room: Lengths = (0, margin) if isinstance(box_size, tuple) else margin
        classes = (0.7, 0.3) if margin else None
        case = Case(model, box_size, 2, room, masked, class_weights=classes, amplitude_std=amplitude_std)
        self.assert_right(backend, case, tiles == "many tiles")
        tile, likelihood = case.second_tile(backend.precision)
        moments: tuple[Moment, ...] = (0, 1, 2)
        for moment in moments:
            found = backend.posterior(tile, backend.asarray(case.templates()), likelihood, moment)
            expected = ReferenceBackend().posterior(tile, case.templates(), likelihood, moment)
            np.testing.assert_allclose(found, expected, rtol=0, atol=self.rtol[backend.precision])

    @matrix("backend, box_size, masked, amplitude_std", PRECISIONS, TWO_BOXES, MASKS, (0.0, AMPLITUDES[1]))
    def test_log_odds_equal_the_reference(
        self, backend: Backend, box_size: int, masked: bool, amplitude_std: float
    ) -> None:
        """At every corner of one tile of many, halo included."""
        case = Case("window", box_size, rotations=3, masked=masked, amplitude_std=amplitude_std)
        tile, likelihood = case.second_tile(backend.precision)
        likelihood = cast(WindowLikelihood, likelihood)
        found = backend.log_odds(tile, backend.asarray(case.templates()), likelihood)
        expected = ReferenceBackend().log_odds(tile, case.templates(), likelihood)
        assert isinstance(found, np.ndarray)
        tolerance = self.rtol[backend.precision] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)

    @matrix(
        "backend, model, box_size, margin, masked, weights, amplitude_std",
        PRECISIONS,
        MODELS[2:],
        (*TWO_BOXES, (4, 9)),
        (0, 2),
        MASKS,
        (None, (0.6, 0.3, 0.1)),
        (0.0, AMPLITUDES[1]),
    )
    def test_parts_make_up_the_whole(
        self,
        backend: Backend,
        model: Model,
        box_size: Lengths,
        margin: int,
        masked: bool,
        weights: tuple[float, ...] | None,
        amplitude_std: float,
    ) -> None:
        """Templates scored in two parts, the log-odds joined, each part projected."""
        views = 2 if isinstance(box_size, tuple) else 3
        case = Case(
            model, box_size, views, margin, masked, class_weights=weights, amplitude_std=amplitude_std
        )
        tile, likelihood = case.second_tile(backend.precision)
        likelihood = cast(WindowLikelihood, likelihood)
        cut = likelihood.templates - 1
        parts = [
            (part, backend.asarray(case.templates()[part])) for part in (slice(0, cut), slice(cut, None))
        ]
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
            amplitude_sum=sum(each.amplitude_sum for each in sums),
            amplitude_squares=sum(each.amplitude_squares for each in sums),
            class_mass=np.sum([each.class_mass for each in sums], axis=0),
        )
        expected = ReferenceBackend().accumulate([tile], case.templates(), likelihood)
        assert_same_statistics(whole, expected, self.rtol[backend.precision])
        for each in sums:
            assert (each.log_likelihood, each.sites) == (sums[0].log_likelihood, expected.sites)

    def test_patches_do_not_come_in_parts(self, backend: Backend) -> None:
        """Methods of the window model alone refuse the patch model."""
        case = Case("patch", 4, 3)
        tile, likelihood = case.second_tile(backend.precision)
        held, patches = backend.asarray(case.templates()), cast(WindowLikelihood, likelihood)
        with pytest.raises(ParameterError, match="window model"):
            backend.log_odds(tile, held, patches)
        with pytest.raises(ParameterError, match="window model"):
            backend.project(tile, held, patches, np.zeros((4, 4)))

    @pytest.mark.parametrize("model", ["patch", "window"])
    def test_arrays_of_another_library_are_refused(self, backend: Backend, model: Model) -> None:
        """Neither templates nor arguments of ``asarray`` are converted silently."""
        case = Case(model, 4, 3)
        tile, likelihood = case.second_tile(backend.precision)
        strangers: list[Any] = [_Foreign(case.templates()), case.templates().tolist()]
        if not isinstance(backend.asarray(case.templates()), np.ndarray):
            strangers.append(case.templates())
        with pytest.raises(ParameterError):
            backend.asarray(strangers[0])
        for strange in strangers:
            with pytest.raises(ParameterError, match="templates should be an array of"):
                backend.accumulate([tile], strange, likelihood)
            with pytest.raises(ParameterError, match="templates should be an array of"):
                backend.posterior(tile, strange, likelihood)
            if likelihood.localises:
                likelihood = cast(WindowLikelihood, likelihood)
                with pytest.raises(ParameterError, match="templates should be an array of"):
                    backend.log_odds(tile, strange, likelihood)
                with pytest.raises(ParameterError, match="templates should be an array of"):
                    backend.project(tile, strange, likelihood, np.zeros((4, 4)))

    def test_arrays_of_another_shape_are_refused(self, backend: Backend) -> None:
        """Too few or too large templates, a norm of other corners."""
        case = Case("window", 4, 3)
        tile, likelihood = case.second_tile(backend.precision)
        likelihood = cast(WindowLikelihood, likelihood)
        held = backend.asarray(case.templates())
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
        """Templates of several classes with unequal weights."""
        self.assert_right(backend, Case(model, box_size, 2, 1, masked, class_weights=(0.6, 0.3, 0.1)))

    @matrix("backend, model", PRECISIONS, ("patch", "window"))
    def test_no_tiles(self, backend: Backend, model: Model) -> None:
        """The neutral element."""
        case = Case(model, 4, rotations=3, margin=1)
        found = backend.accumulate([], backend.asarray(case.templates()), case.likelihood())
        assert_same_bits(self.on_host(backend, found), TemplateSums.zeros(3, case.likelihood()))

    @matrix("backend, model, box_size", PRECISIONS, MODELS, TWO_BOXES)
    def test_all_pixels_invalid(self, backend: Backend, model: Model, box_size: int) -> None:
        """A tile without valid pixels."""
        case = Case(model, box_size, rotations=3)
        likelihood = case.likelihood()
        blank = ArrayMeasurement(np.full(case.shape, np.nan, dtype=backend.precision))
        templates = backend.asarray(case.templates())
        found = self.on_host(
            backend, backend.accumulate(blank.tiles(likelihood.geometry), templates, likelihood)
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
        templates = case.templates()
        for array in (templates, *(a for tile in tiles for a in (tile.values, tile.valid) if a is not None)):
            array.flags.writeable = False
        first, second = (backend.accumulate(tiles, backend.asarray(templates), likelihood) for _ in range(2))
        assert_same_bits(self.on_host(backend, first), self.on_host(backend, second))
        for tile, values in zip(tiles, before, strict=True):
            np.testing.assert_array_equal(tile.values, values)

    def test_the_order_of_sums_depends_on_the_kind_of_device_alone(self, backend: Backend) -> None:
        """Not on threads."""
        assert backend.tiles_together >= 1
        assert backend.alone().tiles_together == backend.tiles_together

    def test_its_device_can_be_made_the_current_one(self, backend: Backend) -> None:
        """The array library computes correctly in the block, and the block can be entered again."""
        for _ in range(2):
            with backend.active():
                twice = 2.0 * backend.asarray(np.arange(3.0))
            np.testing.assert_array_equal(backend.to_host(twice), [0.0, 2.0, 4.0])

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
