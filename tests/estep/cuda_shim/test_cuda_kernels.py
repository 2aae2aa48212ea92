"""Each kernel against its formula in NumPy, on the host build, with threads run in three orders."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from mtdcore.errors import ParameterError
from mtdcore.estep.backends.cuda import kernels as _cuda_kernels
from mtdcore.estep.backends.cuda.kernels import Kernels
from mtdcore.estep.backends.cuda.kernels.patches import FUSED, SMALL_BOXES

sys.path.insert(0, str(Path(__file__).parent))
from test_cuda_pairs import check_rows
from test_cuda_patch_pairs import check_kernel as check_fused
from test_cuda_patch_pairs import fused_kernels


def kernel_names() -> set[str]:
    """Names of the kernels, those that a macro makes among them."""
    source = _cuda_kernels.source()
    plain = re.findall(r'^extern "C" __global__ void(?: __launch_bounds__\(\d+\))?\s+(\w+)', source, re.M)
    lines = re.findall(r"^ +(\w+)_##n\(", source, re.M)
    sized = {f"{name}_{n}" for n in re.findall(r"^PAIR_KERNELS\((\d+)\)", source, re.M) for name in lines}
    return {*plain, *sized, *re.findall(r"^PATCH_(?:SMALL|FUSED)\((\w+),", source, re.M)}


def _close(kernels: Kernels, found: np.ndarray, expected: np.ndarray, factor: float = 1.0) -> None:
    tolerance = factor * (2e-6 if kernels.real == np.float32 else 1e-13)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def _spectra(kernels: Kernels, rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kernels.complex)


@pytest.mark.parametrize(
    ("rotations", "items", "shared"), [(1, 1, True), (3, 2, False), (2, 37, True), (2, 37, False)]
)
def test_spectral_products(kernels: Kernels, rotations: int, items: int, shared: bool) -> None:
    rng = np.random.default_rng(items)
    plane = (12, 5)
    pixels = _spectra(kernels, rng, items, *plane)
    valid = _spectra(kernels, rng, 1 if shared else items, *plane)
    targets, squares = (_spectra(kernels, rng, rotations, *plane) for _ in range(2))
    weights = _spectra(kernels, rng, rotations, items, *plane)

    gains = np.full((rotations, items, *plane), np.nan, kernels.complex)
    kernels.correlate_spectra(pixels, valid, targets, squares, gains)
    _close(kernels, gains, pixels * targets[:, None].conj() - valid * squares[:, None].conj())

    level = rng.normal(size=rotations).astype(kernels.real)
    kernels.correlate_spectra(pixels, None, targets, None, gains, level)
    expected = pixels * targets[:, None].conj()
    expected[:, :, 0, 0] += level[:, None]
    _close(kernels, gains, expected)

    before = sums, mass = kernels.backproject_spectra(pixels, valid, weights)
    assert (sums.shape[1] > 1) == (items > 16)
    seen, covered = ((a[None] * weights.conj()).sum(axis=1, dtype=complex) for a in (pixels, valid))
    _close(kernels, sums.sum(axis=1), np.stack([seen, covered]))
    kernels.backproject_spectra(pixels, valid, weights, before)
    _close(kernels, sums.sum(axis=1), 2 * np.stack([seen, covered]))

    before = sums, mass = kernels.backproject_spectra(pixels, None, weights)
    for times in (1, 2):
        _close(kernels, sums.sum(axis=1), times * seen[None])
        _close(kernels, mass.sum(axis=0), times * weights[:, :, 0, 0].real.sum(axis=1))
        kernels.backproject_spectra(pixels, None, weights, before)


@pytest.mark.parametrize(("box", "side", "rotations"), [(1, 4, 1), (2, 4, 3), (3, 8, 2), (5, 12, 4)])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_patch_posterior(kernels: Kernels, box: int, side: int, rotations: int, scale: float) -> None:
    rng = np.random.default_rng(box)
    items, log_shown, log_empty = 3, -3.0, -1.5
    maps = (scale * rng.normal(size=(rotations, items, side, side))).astype(kernels.real)
    shift = np.fft.fftfreq(side, 1 / side)
    inside = np.abs(shift) < box
    inside = inside[:, None] & inside
    gains = np.where(inside, maps.astype(float) + log_shown, -np.inf)
    total = np.logaddexp(logsumexp(gains, axis=(0, 2, 3)), log_empty)

    evidence, empty = kernels.patch_posterior(maps, box, log_shown, log_empty)
    _close(kernels, evidence, total)
    # a weight feels the rounding of its own log
    _close(kernels, maps, np.exp(gains - total[:, None, None]), factor=max(1.0, scale))
    _close(kernels, maps.sum(axis=(0, 2, 3), dtype=float) + empty, np.ones(items))


def _windows(
    gains: np.ndarray, corners: np.ndarray, log_activity: float, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and (evidence, count) per tile, by the definition."""
    weights, sums = np.zeros(gains.shape), np.zeros((gains.shape[1], 2))
    log_odds = gains + log_activity - math.log(len(gains))
    for m, (rows, columns, top, bottom, left, right) in enumerate(corners):
        for r, c in product(range(top, bottom), range(left, right)):
            near = log_odds[
                :, m, max(0, r - d + 1) : min(rows, r + d), max(0, c - d + 1) : min(columns, c + d)
            ]
            normaliser = np.logaddexp(0.0, logsumexp(near))
            weights[:, m, r, c] = np.exp(log_odds[:, m, r, c] - normaliser)
            sums[m] += (
                normaliser - np.logaddexp(0.0, log_activity + math.log(near[0].size)),
                weights[:, m, r, c].sum(),
            )
    return weights, sums


@pytest.mark.parametrize("separation", [1, 2, 5, 9, 40])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_window_posterior(kernels: Kernels, separation: int, scale: float) -> None:
    rng = np.random.default_rng(separation)
    rotations, rows, columns = 3, 18, 24
    maps = (scale * rng.normal(size=(rotations, 2, rows, columns))).astype(kernels.real)
    corners = np.array([[15, 20, 3, 11, 0, 20], [18, 7, 0, 18, 2, 5]], np.int32)
    weights, sums = _windows(maps.astype(float), corners, -4.0, separation)
    normaliser, found = kernels.window_posterior(maps, corners, -4.0, separation)
    out = np.full_like(maps, np.nan)
    kernels.window_weights(maps, normaliser, -4.0 - math.log(rotations), out)
    _close(kernels, out, weights, factor=max(1.0, scale))
    kernels.window_weights(maps, normaliser, -4.0 - math.log(rotations), maps)
    np.testing.assert_array_equal(maps, out)
    _close(kernels, found.sum(axis=1), sums)


@pytest.mark.parametrize(("box", "rotations"), [(3, 1), (4, 3), (5, 4), (3, 32)])
@pytest.mark.parametrize("order", [7])
def test_patch_small_equals_patch_direct(shims: Any, box: int, rotations: int, order: int) -> None:
    shims["float32"].order = order
    kernels = Kernels(np, shims["float32"].function, "float32", blocks=6)
    rng = np.random.default_rng(box)
    patches = rng.normal(size=(16 * (128 // rotations) + 5, box, box)).astype(np.float32)
    targets = rng.normal(size=(rotations, box, box)).astype(np.float32)
    arguments = targets, targets**2 / 2
    sums, evidence, empty = kernels.patch_small(patches, *arguments, -3.0, -1.0)
    assert len(sums) == 2
    direct = Kernels(np, shims["float64"].function, "float64", blocks=6)
    shims["float64"].order = 0
    wide = [a.astype(float) for a in arguments]
    expected = direct.patch_direct(patches.astype(float), None, *wide, 0, -3.0, -1.0)
    for found, right in zip(
        (sums.sum(axis=0), evidence, empty), (expected[0].sum(axis=0), *expected[1:]), strict=True
    ):
        _close(kernels, found, right, factor=3.0)


@pytest.mark.parametrize(("box", "rotations", "margin"), [(1, 1, 0), (2, 3, 1), (5, 4, 0), (4, 1, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_patch_direct(kernels: Kernels, box: int, rotations: int, margin: int, masked: bool) -> None:
    rng = np.random.default_rng(box)
    items, log_shown, log_empty, side = 23, -3.0, -1.0, box + 2 * margin
    valid = rng.random((items, box, box)) > 0.2 if masked else np.ones((items, box, box), bool)
    pixels = np.where(valid, rng.normal(size=valid.shape), 0).astype(kernels.real)
    targets = rng.normal(size=(rotations, box, box)).astype(kernels.real)
    squares = targets**2 / 2
    mask = valid.astype(np.uint8) if masked else None

    expected = np.zeros((2, rotations, side, side))
    evidence, empty = np.empty(items), np.empty(items)
    shifts = list(product(range(1 - box, box), repeat=2))
    for m in range(items):
        shown = {}
        for k, shift in product(range(rotations), shifts):
            on, of = _overlap(shift, box, 0)
            gain = (pixels[m][on] * targets[k][of] - valid[m][on] * squares[k][of]).sum(dtype=float)
            shown[k, shift] = gain + log_shown
        total = logsumexp([*shown.values(), log_empty])
        evidence[m], empty[m] = total, np.exp(log_empty - total)
        for (k, shift), log_weight in shown.items():
            on, of = _overlap(shift, box, margin)
            expected[0, k][of] += np.exp(log_weight - total) * pixels[m][on]
            expected[1, k][of] += np.exp(log_weight - total) * valid[m][on]

    sums, found_evidence, found_empty = kernels.patch_direct(
        pixels, mask, targets, squares, margin, log_shown, log_empty
    )
    assert len(sums) < items  # blocks take several patches
    _close(kernels, sums.sum(axis=0), expected)
    _close(kernels, found_evidence, evidence)
    _close(kernels, found_empty, empty)


def _overlap(shift: tuple[int, int], box: int, margin: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the patch, and where the frame, meet when the target is shifted."""
    patch = [slice(max(0, s - margin), min(box, s + box + margin)) for s in shift]
    frame = [slice(p.start - s + margin, p.stop - s + margin) for p, s in zip(patch, shift, strict=True)]
    return tuple(patch), tuple(frame)


def test_grids_too_small_for_the_work(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop over a grid goes round more than once."""
    monkeypatch.setattr(Kernels, "grid_limit", 1)
    small = Kernels(np, kernels._function, kernels.real.name, blocks=1)
    test_spectral_products(small, 3, 12, False)
    test_window_posterior(small, 2, 1.0)
    test_patch_direct(small, 2, 3, 1, True)


def test_every_kernel_is_wrapped_and_tested() -> None:
    names = kernel_names()
    text = "".join(file.read_text() for file in Path(_cuda_kernels.__file__).parent.glob("*.py"))
    launched = set(SMALL_BOXES.values()) | set(FUSED.values())
    launched |= set(re.findall(r'_(?:launch|rows)\(\s*"(\w+)"', text))
    lines = re.findall(r'_lines\(\s*"(\w+)"', text)
    launched |= {f"{name}_{length}" for name in lines for length in _cuda_kernels.LINE_LENGTHS}
    host = set(re.findall(r"KERNEL\((\w+)\)", Path(__file__).with_name("shim.cpp").read_text())) - {"name"}
    assert len(names) == 30
    assert names == launched == host


def test_arguments_are_checked_before_the_launch(kernels: Kernels) -> None:
    maps = np.zeros((2, 3, 8, 8), kernels.real)
    other = np.float64 if kernels.real == np.float32 else np.float32
    with pytest.raises(ParameterError, match="maps should be"):
        kernels.patch_posterior(maps.astype(other), 3, -1.0, -1.0)
    with pytest.raises(ParameterError, match="C-contiguous"):
        kernels.patch_posterior(maps.swapaxes(2, 3), 3, -1.0, -1.0)
    with pytest.raises(ParameterError, match="at least 11 pixels"):
        kernels.patch_posterior(maps, 6, -1.0, -1.0)
    with pytest.raises(ParameterError, match="multiple of 4"):
        kernels.window_posterior(np.zeros((1, 1, 8, 6), kernels.real), np.zeros((1, 6), np.int32), -1.0, 2)
    with pytest.raises(ParameterError, match="corners should be int32"):
        kernels.window_posterior(maps, np.zeros((3, 6)), -1.0, 2)
    with pytest.raises(ParameterError, match="array of numpy"):
        kernels.patch_posterior(SimpleNamespace(shape=maps.shape), 3, -1.0, -1.0)
    images = np.zeros((72, 8, 8), kernels.real)
    with pytest.raises(ParameterError, match="shared memory"):
        kernels.patch_direct(np.zeros((1, 8, 8), kernels.real), None, images, images, 0, -1.0, -1.0)


@pytest.mark.slow
def test_removing_any_barrier_is_noticed(
    build: Callable[..., list[Any]], shims: dict[str, Any], tmp_path: Path
) -> None:
    """The host build is a judge of races, not only of formulas."""
    source = _cuda_kernels.source()
    single = source.index("boxes of 9 to 32")  # from here on kernels exist in float32 only
    mutants = []
    for found in re.finditer(r"__sync(?:threads|warp)\(\);", source):
        precision = "float32" if found.start() > single else "float64"
        mutants.append((tmp_path / f"without_{len(mutants)}.cu", precision))
        mutants[-1][0].write_text(source[: found.start()] + source[found.end() :])
    assert len(mutants) >= 6
    for shim, (_, precision) in zip(build(*mutants), mutants, strict=True):
        assert not all(_passes({**shims, precision: shim}, order, precision) for order in (0, 1, 7))


def _passes(shims: dict[str, Any], order: int, precision: str) -> bool:
    shims[precision].order = order
    kernels = Kernels(np, shims[precision].function, precision, blocks=6)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        try:
            if precision == "float32":
                test_patch_small_equals_patch_direct(shims, 4, 3, order)
                check_fused(fused_kernels(shims, order, 4), 32, 2, 5)
            else:
                test_patch_posterior(kernels, 3, 8, 2, 1.0)
                test_patch_direct(kernels, 5, 4, 0, False)
                test_window_posterior(kernels, 5, 1.0)
                check_rows(kernels, 512)
                test_grids_too_small_for_the_work(kernels, patch)
        except (AssertionError, RuntimeError):
            return False
    return True
