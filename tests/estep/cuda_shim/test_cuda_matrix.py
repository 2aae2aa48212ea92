"""The window model as matrix products: the same sums as the transforms, to half precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtdcore.data.array import ArrayMeasurement
from mtdcore.errors import DependencyError, DeviceError
from mtdcore.estep.backends.cuda import backend as cuda
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.backends.cuda.paths import matrices as _cuda_matrix
from mtdcore.estep.backends.cuda.paths.matrices import MatrixPath, exact_enough, faster
from mtdcore.estep.backends.reference import ReferenceBackend
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.testing import Case, assert_same_statistics

#: A weight may be off by as much as its logarithm.
_ROUNDING = 1e-2


class _Wide(Case):
    """A micrograph with tiles in its middle."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 16, 19


CASES = [
    Case("window", 4, 4),
    Case("window overlapping", 5, 7),
    Case("window overlapping", 6, 3, class_weights=(0.3, 0.7)),
    Case("window", 3, 9),
    Case("window overlapping", 1, 1),
]


@pytest.fixture(autouse=True)
def _matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "matrix_is_faster", lambda *_: True)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of items of every call."""
    calls: list[int] = []
    sums = MatrixPath.sums
    monkeypatch.setattr(MatrixPath, "sums", lambda path, items: calls.append(len(items)) or sums(path, items))
    return calls


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("small_tiles", [False, True])
def test_it_equals_the_reference(host_device: Any, used: list[int], case: Case, small_tiles: bool) -> None:
    found = case.accumulate(CudaBackend(host_device), small_tiles=small_tiles)
    assert used
    assert_same_statistics(found, case.accumulate(ReferenceBackend()), _ROUNDING)


def test_chunks_and_scores_that_are_computed_twice_change_nothing(
    host_device: Any, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CASES[1].accumulate(CudaBackend(host_device))
    monkeypatch.setattr(_cuda_matrix, "_CHUNK_BYTES", 1)
    chunks = CASES[1].accumulate(CudaBackend(host_device))
    monkeypatch.setattr(_cuda_matrix, "_HELD_SHARE", 0.0)
    again = CASES[1].accumulate(CudaBackend(host_device))
    assert_same_statistics(chunks, whole, 1e-6)
    assert_same_statistics(again, chunks, 0.0)
    assert len(used) == 3


def test_margins_inside_the_micrograph(host_device: Any, used: list[int]) -> None:
    """Tiles whose frames stay inside go through matrices, those at the edge through transforms."""
    case = _Wide("window overlapping", 4, 4, margin=1)
    found = case.accumulate(CudaBackend(host_device), small_tiles=True)
    assert used
    assert_same_statistics(found, case.accumulate(ReferenceBackend()), _ROUNDING)


@pytest.mark.parametrize(
    "case", [replace(CASES[0], masked=True), replace(CASES[0], noise_std=0.02), Case("patch", 4, 4)], ids=str
)
def test_what_does_not_suit_takes_the_transforms(host_device: Any, used: list[int], case: Case) -> None:
    assert_same_statistics(
        case.accumulate(CudaBackend(host_device)), case.accumulate(ReferenceBackend()), 2e-4
    )
    assert not used


def test_the_rule() -> None:
    assert faster(28, 4608)
    assert faster(48, 4608)
    assert faster(48, 1024, in_pairs=False)
    assert not faster(48, 1024)
    assert not faster(28, 4)
    assert not faster(96, 360)
    pixels = np.random.default_rng(0).normal(size=(1, 64, 64))
    (tile,) = ArrayMeasurement(pixels).tiles(Case("window", 8, 4).likelihood().geometry)
    assert exact_enough(10.0, 28, 1.0, [tile])
    assert not exact_enough(40.0, 28, 1.0, [tile])
    hot = pixels.copy()
    hot[0, 3, 3] = 1e5
    (tile,) = ArrayMeasurement(hot).tiles(Case("window", 8, 4).likelihood().geometry)
    assert not exact_enough(1e-3, 28, 1.0, [tile])


@pytest.mark.gpu
def test_it_equals_the_transforms_on_a_device() -> None:
    """A faint target, a strong one and many templates; cuBLAS in the place of NumPy."""
    try:
        single, double = (CudaBackend.open(None, p) for p in ("float32", "float64"))  # type: ignore[arg-type]
    except (DependencyError, DeviceError) as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    measurement = ArrayMeasurement(rng.normal(size=(2, 300, 260)).astype(np.float32))
    for box, count, norm in ((24, 200, 0.5), (24, 130, 8.0), (33, 300, 12.0)):
        target = rng.normal(size=(box, box))
        target *= norm / np.linalg.norm(target)
        like = WindowLikelihood(Rotations(count, box), 1.0, 20.0, box // 2).bind(measurement.shape)
        sums = []
        for backend in (single, double):
            turned = Rotations(count, box).apply(backend.asarray(target))
            found = backend.accumulate(measurement.tiles(like.geometry), turned, like)
            sums.append(found.moved(backend.to_host))
        assert_same_statistics(sums[0], sums[1], _ROUNDING)
