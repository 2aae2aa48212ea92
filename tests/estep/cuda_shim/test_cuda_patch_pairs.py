"""Patches in one kernel: the kernel against its formula, and the whole way against the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtdcore.data.array import ArrayMeasurement
from mtdcore.errors import DependencyError, DeviceError, ParameterError
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.backends.cuda.kernels import Kernels
from mtdcore.estep.backends.cuda.paths import patch_pairs as _patch_pairs
from mtdcore.estep.backends.cuda.paths.patch_pairs import PatchPairsPath, suits, thread_order, torus_side
from mtdcore.estep.backends.reference import ReferenceBackend
from mtdcore.model.likelihood import PatchLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.testing import Case, assert_same_statistics

#: Of the largest value: a weight is off by as much as its gain, some hundred nats in the large boxes here; so is the CPU.
_ROUNDING = 4e-5

CASES = [
    Case("patch", 9, 4),
    Case("patch", 9, 3, margin=2),
    Case("patch", 16, 1),
    Case("patch", 10, 2, class_weights=(0.3, 0.7)),
    Case("patch", 17, 2),
    Case("patch", 28, 4),
    Case("patch", 31, 3, margin=3),
    Case("patch", 32, 4),
]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Number of items of every call; afterwards, that no transforms answered for the kernel."""
    calls: list[int] = []
    monkeypatch.setattr(_patch_pairs, "_AGREEMENT", {})
    sums = PatchPairsPath.sums
    monkeypatch.setattr(
        PatchPairsPath, "sums", lambda path, items: calls.append(len(items)) or sums(path, items)
    )
    yield calls
    assert all(_patch_pairs._AGREEMENT.values())


def check_kernel(kernels: Kernels, side: int, pairs: int, items: int, scale: float = 1.0) -> None:
    """Sums and scores of random patches, templates and priors."""
    rng = np.random.default_rng(side + pairs)
    box, log_empty = side // 2 - 3, 1.5
    pixels = rng.normal(size=(items, box, box)).astype(np.float32)
    spectra = (rng.normal(size=(pairs, side, side, 2)) * scale / side**3).astype(np.float32)
    level = rng.normal(size=(pairs, side, side, 2)).astype(np.float32)
    level[rng.random(level.shape) < 0.3] = -1e30
    frequencies, positions = thread_order(side)
    assert sorted(frequencies.ravel()) == sorted(positions.ravel()) == list(range(side**2))

    def ordered(planes: np.ndarray, order: np.ndarray) -> np.ndarray:
        values = planes.view(np.complex64).reshape(pairs, side**2)
        return np.ascontiguousarray(values[:, order])

    sums, scores = kernels.patch_fused(
        pixels, ordered(spectra, frequencies), ordered(level, positions), log_empty
    )
    padded = np.zeros((items, side, side))
    padded[:, :box, :box] = pixels
    pixels_hat = np.fft.fft2(padded)[:, None]
    gains = np.fft.ifft2(pixels_hat * spectra.astype(float).view(complex)[..., 0], norm="forward")
    bits = np.stack((gains.real, gains.imag), axis=-1) + level
    top = np.maximum(bits.max(axis=(1, 2, 3, 4)), log_empty)
    weights = np.exp2(bits - top[:, None, None, None, None])
    total = weights.sum(axis=(1, 2, 3, 4)) + np.exp2(log_empty - top)
    weights = np.ascontiguousarray(weights / total[:, None, None, None, None]).view(complex)[..., 0]
    seen = (pixels_hat * np.fft.fft2(weights).conj()).sum(axis=0)
    expected = (
        seen.reshape(pairs, -1)[:, frequencies],
        weights.sum(axis=0).reshape(pairs, -1)[:, positions],
    )
    assert len(sums) < items  # blocks take several patches
    for found, right in zip(sums.sum(axis=0), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=3e-6 * scale * np.abs(right).max())
    evidence, empty = scores.sum(axis=0)
    np.testing.assert_allclose(evidence, (top * np.log(2) + np.log(total)).sum(), rtol=3e-6)
    np.testing.assert_allclose(empty, (np.exp2(log_empty - top) / total).sum(), rtol=3e-6 * scale)


def fused_kernels(shims: Any, order: int, blocks: int = 16) -> Kernels:
    """Float32, which is all they know."""
    shims["float32"].order = order
    return Kernels(np, shims["float32"].function, "float32", blocks)


@pytest.mark.parametrize("order", [0, 1, 7], ids=["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("pairs", [1, 2])
def test_the_kernel(shims: Any, order: int, side: int, pairs: int) -> None:
    check_kernel(fused_kernels(shims, order, 16 if side == 64 else 4), side, pairs, 5)


def test_strong_signals_and_runs(shims: Any) -> None:
    """Gains of a few hundred bits; a block that adds its sums in float64 more than once."""
    check_kernel(fused_kernels(shims, 0, 4), 32, 2, 5, scale=30.0)
    check_kernel(fused_kernels(shims, 0, 2), 32, 1, 135)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_equals_the_cpu(host_device: Any, used: list[int], case: Case) -> None:
    found = case.accumulate(CudaBackend(host_device))
    assert used
    assert_same_statistics(found, case.accumulate(ReferenceBackend()), _ROUNDING)


@pytest.mark.parametrize(
    "case",
    [replace(CASES[0], masked=True), Case("patch", 9, 5), Case("patch", 33, 1), replace(CASES[7], margin=2)],
    ids=str,
)
def test_what_does_not_suit_takes_another_way(host_device: Any, used: list[int], case: Case) -> None:
    assert_same_statistics(
        case.accumulate(CudaBackend(host_device)), case.accumulate(ReferenceBackend()), 2e-4
    )
    assert not used


def test_the_rule() -> None:
    like = PatchLikelihood(Rotations(4, 28), 1.0, 0.5)
    assert torus_side(like) == 64
    assert torus_side(PatchLikelihood(Rotations(4, 16), 1.0, 0.5)) == 32
    assert torus_side(PatchLikelihood(Rotations(4, 33), 1.0, 0.5)) is None
    assert suits(like, 227 << 10)
    assert not suits(like, 163 << 10)
    assert suits(PatchLikelihood(Rotations(2, 28), 1.0, 0.5), 163 << 10)


def test_arguments_are_checked(shims: Any) -> None:
    kernels = fused_kernels(shims, 0)
    tables = [np.zeros((1, 8, 64, 2), np.complex64) for _ in range(2)]
    with pytest.raises(ParameterError, match="fused patches should be"):
        kernels.patch_fused(np.zeros((1, 17, 17), np.float32), *tables, 0.0)
    with pytest.raises(ParameterError, match="level should be"):
        kernels.patch_fused(np.zeros((1, 16, 16), np.float32), tables[0], tables[1][..., :1], 0.0)


@pytest.mark.gpu
def test_it_equals_the_transforms_on_a_device(used: list[int]) -> None:
    """Faint and strong targets, both tori, some hundred patches a block."""
    try:
        single, double = (CudaBackend.open(None, p) for p in ("float32", "float64"))  # type: ignore[arg-type]
    except (DependencyError, DeviceError) as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    measurement = ArrayMeasurement(rng.normal(size=(2, 1300, 1260)).astype(np.float32))
    cases = ((9, 4, 2.0), (16, 3, 8.0), (24, 4, 0.5), (28, 4, 8.0), (32, 1, 12.0))
    for box, count, norm in cases:
        target = rng.normal(size=(box, box))
        target *= norm / np.linalg.norm(target)
        like = PatchLikelihood(Rotations(count, box), 1.0, 0.5).bind(measurement.shape)
        sums = []
        for backend in (single, double):
            turned = Rotations(count, box).apply(backend.asarray(target))
            found = backend.accumulate(measurement.tiles(like.geometry), turned, like)
            sums.append(found.moved(backend.to_host))
        assert_same_statistics(sums[0], sums[1], _ROUNDING)
    if single.device.shared_bytes >= 227 << 10:
        assert len(used) == len(cases)


@pytest.mark.parametrize("fault", ["launch", "wrong sums", "not a number"])
def test_a_device_that_does_not_agree_takes_the_transforms(
    host_device: Any, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked once, and said once."""
    monkeypatch.setattr(_patch_pairs, "_AGREEMENT", {})
    fused, calls = Kernels.patch_fused, []

    def faulty(kernels: Kernels, *arguments: Any) -> Any:
        calls.append(1)
        if fault == "launch":
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE")
        sums, scores = fused(kernels, *arguments)
        return (sums * 1.01 if fault == "wrong sums" else sums * np.nan), scores

    monkeypatch.setattr(Kernels, "patch_fused", faulty)
    case = Case("patch", 9, 4)
    with caplog.at_level("WARNING", "mtdcore.cuda"):
        found = [case.accumulate(CudaBackend(host_device)) for _ in range(2)]
    for one in found:
        assert_same_statistics(one, case.accumulate(ReferenceBackend()), 4e-5)
    assert len(calls) == 1
    assert len([r for r in caplog.records if "go through transforms" in r.message]) == 1
