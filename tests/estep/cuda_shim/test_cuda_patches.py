"""The patch model as matrix products: the same sums as the transforms, to half precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtdcore.data.array import ArrayMeasurement
from mtdcore.errors import DependencyError, DeviceError
from mtdcore.estep.backends.cuda import backend as cuda
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.backends.cuda.paths import patch_matrices as _cuda_patches
from mtdcore.estep.backends.cuda.paths.patch_matrices import Layout, PatchMatrixPath, faster
from mtdcore.estep.backends.cuda.paths.registers import DirectPath
from mtdcore.estep.backends.reference import ReferenceBackend
from mtdcore.model.likelihood import PatchLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.testing import Case, assert_same_statistics

#: A weight may be off by as much as its logarithm.
_ROUNDING = 1e-2

CASES = [
    Case("patch", 4, 4),
    Case("patch", 5, 3, margin=2),
    Case("patch", 7, 2),
    Case("patch", 6, 3, class_weights=(0.3, 0.7)),
    Case("patch", 1, 1),
]


@pytest.fixture(autouse=True)
def _matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "patch_matrix_is_faster", lambda *_: True)
    monkeypatch.setattr(cuda, "suits_patch_pairs", lambda *_: False)
    monkeypatch.setattr(DirectPath, "suits", lambda *_: False)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of items of every call."""
    calls: list[int] = []
    sums = PatchMatrixPath.sums
    monkeypatch.setattr(
        PatchMatrixPath, "sums", lambda path, items: calls.append(len(items)) or sums(path, items)
    )
    return calls


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("groups", [1, 3, 8])
def test_it_equals_the_reference(
    host_device: Any, used: list[int], case: Case, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cuda_patches, "_GROUPS", groups)
    found = case.accumulate(CudaBackend(host_device))
    assert used
    assert_same_statistics(found, case.accumulate(ReferenceBackend()), _ROUNDING)


def test_chunks_and_rows_read_again_change_nothing(
    host_device: Any, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CASES[2].accumulate(CudaBackend(host_device))
    monkeypatch.setattr(_cuda_patches, "_CHUNK_BYTES", 1)
    chunks = CASES[2].accumulate(CudaBackend(host_device))
    monkeypatch.setattr("mtdcore.estep.backends.cuda.kernels.matrices.SHARED_LIMIT", 400)
    again = CASES[2].accumulate(CudaBackend(host_device))
    assert_same_statistics(chunks, whole, 1e-4)
    assert_same_statistics(again, chunks, 1e-4)
    assert len(used) == 3


@pytest.mark.parametrize(
    "case", [replace(CASES[0], masked=True), replace(CASES[0], noise_std=0.02), Case("window", 4, 4)], ids=str
)
def test_what_does_not_suit_takes_another_way(host_device: Any, used: list[int], case: Case) -> None:
    assert_same_statistics(
        case.accumulate(CudaBackend(host_device)), case.accumulate(ReferenceBackend()), 2e-4
    )
    assert not used


def test_groups_cover_every_row_of_shifts_and_see_what_it_shows() -> None:
    for box, margin in ((28, 0), (9, 3), (5, 0), (1, 0)):
        sizes = Layout(box, margin, 4)
        rows = [first + i for first, count, _, _ in sizes.groups() for i in range(count)]
        assert rows == list(range(1 - box, box))
        for first, count, start, stop in sizes.groups():
            assert start % 8 == stop % 8 == 0
            assert start <= 8 + max(0, first - margin) * box
            assert stop >= 8 + min(box, box + first + count - 1 + margin) * box
            assert start == 0 or stop == sizes.width  # a column of ones is among them


def test_the_rule() -> None:
    assert faster(PatchLikelihood(Rotations(4, 28), 1.0, 0.5), 21000, 56**2, 80 << 30)
    assert not faster(PatchLikelihood(Rotations(4, 28), 1.0, 0.5), 121, 56**2, 80 << 30)
    assert not faster(PatchLikelihood(Rotations(4, 96), 1.0, 0.5), 21000, 192**2, 80 << 30)
    assert not faster(PatchLikelihood(Rotations(4, 28), 1.0, 0.5), 21000, 56**2, 500 << 20)


@pytest.mark.gpu
def test_it_equals_the_transforms_on_a_device(used: list[int]) -> None:
    """Faint and strong targets, several boxes; cuBLAS in the place of NumPy."""
    try:
        single, double = (CudaBackend.open(None, p) for p in ("float32", "float64"))  # type: ignore[arg-type]
    except (DependencyError, DeviceError) as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    measurement = ArrayMeasurement(rng.normal(size=(2, 300, 260)).astype(np.float32))
    for box, count, norm in ((9, 4, 2.0), (24, 4, 0.5), (28, 4, 8.0), (33, 5, 12.0)):
        target = rng.normal(size=(box, box))
        target *= norm / np.linalg.norm(target)
        like = PatchLikelihood(Rotations(count, box), 1.0, 0.5).bind(measurement.shape)
        sums = []
        for backend in (single, double):
            turned = Rotations(count, box).apply(backend.asarray(target))
            found = backend.accumulate(measurement.tiles(like.geometry), turned, like)
            sums.append(found.moved(backend.to_host))
        assert_same_statistics(sums[0], sums[1], _ROUNDING)
    assert used
