"""Tiles that stay on the device give the same bits, and are sent once."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtdcore import e_step
from mtdcore.data.array import ArrayMeasurement
from mtdcore.data.derived import Filtered, without_offset
from mtdcore.data.measurement import Tiles
from mtdcore.data.tiles import TileGeometry
from mtdcore.estep.backends.cuda import resident as _cuda_resident
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.statistics import Statistics
from mtdcore.testing import Case, assert_same_statistics


@pytest.fixture
def uploads(host_device: Any) -> list[int]:
    """Bytes of every upload."""
    sent: list[int] = []
    upload = host_device.upload
    host_device.upload = lambda host, out, after: sent.append(host.nbytes) or upload(host, out, after)
    return sent


def _accumulate(backend: CudaBackend, case: Case, measurement: ArrayMeasurement) -> Any:
    likelihood = case.likelihood()
    return backend.accumulate(
        Tiles(measurement, likelihood.geometry), backend.asarray(case.templates()), likelihood
    )


def _measurement(case: Case, masked: bool = False, scale: float = 1.0) -> ArrayMeasurement:
    rng = np.random.default_rng(3)
    mask = rng.uniform(size=case.shape) > 0.1 if masked else None
    return ArrayMeasurement((scale * rng.normal(size=case.shape)).astype(np.float32), mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", [Case("window overlapping", 5, 4), Case("patch", 9, 2)], ids=str)
def test_the_second_pass_sends_nothing(
    host_device: Any, uploads: list[int], case: Case, masked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    backend, measurement = CudaBackend(host_device), _measurement(case, masked)
    with caplog.at_level(logging.INFO, "mtdcore.cuda"):
        first = _accumulate(backend, case, measurement)
        sent = len(uploads)
        again = _accumulate(backend, case, measurement)
        travelled = _accumulate(backend, case, pickle.loads(pickle.dumps(measurement)))
    assert sent == len(uploads) > 0
    assert caplog.text.count("stay on the device") == 1
    assert_same_statistics(again, first, 0.0)
    assert_same_statistics(travelled, first, 0.0)


def test_other_pixels_another_precision_and_parts_are_sent(host_device: Any, uploads: list[int]) -> None:
    case = Case("window overlapping", 5, 4)
    backend, measurement = CudaBackend(host_device), _measurement(case)
    _accumulate(backend, case, measurement)
    for other in (_measurement(case), _measurement(case, scale=1e5), *measurement.split(2)):
        sent = len(uploads)
        found = _accumulate(backend, case, other)
        assert len(uploads) > sent
        assert_same_statistics(found, _accumulate(CudaBackend(host_device), case, other), 0.0)


def test_what_does_not_fit_is_sent_again_and_new_measurements_take_the_room(
    host_device: Any, uploads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("window overlapping", 5, 4)
    backend, measurements = CudaBackend(host_device), [_measurement(case) for _ in range(2)]
    monkeypatch.setattr(_cuda_resident, "_SHARE", 1.5 * measurements[0].array.nbytes / host_device.memory)
    for measurement in (*measurements, measurements[1]):
        _accumulate(backend, case, measurement)
    assert len(backend._resident._kept) == 1
    sent = len(uploads)
    _accumulate(backend, case, measurements[1])
    assert len(uploads) == sent
    first, _ = measurements[1].split(2)  # other pixels of the same measurement, in part
    filtered_ = Filtered(measurements[1], np.ones((1, 1)))
    for other in (first, filtered_):
        _accumulate(backend, case, other)
    kept = {identity[:2] for identity in backend._resident._kept}
    assert len(kept) == len(backend._resident._kept) <= 2
    sent = len(uploads)
    _accumulate(backend, case, filtered_)
    assert len(uploads) == sent
    monkeypatch.setattr(_cuda_resident, "_SHARE", 0.0)
    _accumulate(backend, case, _measurement(case))
    assert len(uploads) > sent


def test_an_e_step_says_which_tiles_it_hands_over(host_device: Any, uploads: list[int]) -> None:
    case = Case("window overlapping", 5, 4)
    backend, measurement = CudaBackend(host_device), _measurement(case)
    target = np.random.default_rng(0).normal(size=(case.box_size, case.box_size))
    first = e_step(measurement, target, case.likelihood(), backend)
    sent = len(uploads)
    assert_same_statistics(e_step(measurement, target, case.likelihood(), backend), first, 0.0)
    assert len(uploads) == sent > 0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_stay_while_the_offset_moves(
    host_device: Any, uploads: list[int], masked: bool, dtype: type
) -> None:
    case = Case("window overlapping", 5, 4)
    backend, rng = CudaBackend(host_device), np.random.default_rng(1)
    mask = rng.uniform(size=case.shape) > 0.1 if masked else None
    measurement = ArrayMeasurement((1000.0 + 0.5 * rng.normal(size=case.shape)).astype(dtype), mask)
    target, likelihood = rng.normal(size=(case.box_size, case.box_size)), case.likelihood()
    for offset in (1000.0, 1000.1, 999.7):
        model = likelihood.with_offset(offset)
        found = e_step(measurement, target, model, backend)
        sent = len(uploads)
        # the host takes the constant off here: no identity is known
        tiles = list(without_offset(measurement, offset).tiles(model.bind(measurement.shape).geometry))
        expected = Statistics.of(
            CudaBackend(host_device).accumulate(
                tiles, backend.asarray(model.shown.apply(target)), model.bind(measurement.shape)
            ),
            model.shown,
            offset,
        )
        assert_same_statistics(found, expected, 1e-9)
        np.testing.assert_array_equal(found.right, expected.right)
        del uploads[sent:]
    assert len(uploads) == 1


@pytest.mark.parametrize("offset", [0.0, 999.5])
def test_what_is_asked_of_a_tile_follows_the_offset(offset: float) -> None:
    rng = np.random.default_rng(2)
    geometry = TileGeometry(side=20, unit=1, halo=2, reach=3)
    mask = rng.uniform(size=(40, 45)) > 0.2
    measurement = ArrayMeasurement(1000.0 + rng.normal(size=(40, 45)), mask)
    pairs = zip(measurement.tiles(geometry), without_offset(measurement, offset).tiles(geometry), strict=True)
    for stored, below in pairs:
        told = stored.brightness.less(offset)
        assert told == pytest.approx({name: getattr(below, name) for name in told}, rel=1e-9, abs=1e-9)
    nothing = np.zeros(stored.values.shape, bool)
    dark = replace(stored, values=np.zeros(nothing.shape), valid=nothing)
    assert dark.brightness.less(offset) == {"level": 0.0, "peak": 0.0, "total": 0.0}
