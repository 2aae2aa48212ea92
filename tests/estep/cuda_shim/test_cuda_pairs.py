"""Transforms of our own: each kernel against its formula, and the whole way against the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtdcore import get_backend
from mtdcore.data.array import ArrayMeasurement
from mtdcore.estep.backends.cuda import backend as cuda
from mtdcore.estep.backends.cuda.backend import CudaBackend
from mtdcore.estep.backends.cuda.kernels import Kernels
from mtdcore.estep.backends.cuda.paths.pairs import PairsPath, suitable_torus
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.testing import assert_same_statistics

_COLUMNS = 16  # of a plane: the fewest that a group of blocks takes


def _complex(kernels: Kernels, rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kernels.complex)


def _close(kernels: Kernels, found: np.ndarray, expected: np.ndarray) -> None:
    tolerance = 3e-6 if kernels.real == np.float32 else 1e-13
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("side", [512, 1024])
def test_columns(kernels: Kernels, side: int) -> None:
    """Products back along the columns, and weights forth and on to the sums."""
    rng = np.random.default_rng(side)
    pairs, items = 2, 2
    pixels = _complex(kernels, rng, items, side, _COLUMNS)
    templates = _complex(kernels, rng, pairs, side, _COLUMNS)
    corners = np.array([[side - 5, 7, 3, side - 9, 0, 7], [100, 16, 0, 90, 2, 9]], np.int32)
    planes = np.full((pairs, items, side, _COLUMNS), np.nan, kernels.complex)
    kernels.correlate_lines(pixels, templates, corners, planes)
    expected = np.fft.ifft(pixels * templates[:, None].conj(), axis=2, norm="forward")
    for m, (rows, *_) in enumerate(corners):
        _close(kernels, planes[:, m, :rows], expected[:, m, :rows])
        assert np.isnan(planes[:, m, rows:]).all()

    lines = np.full(planes.shape, np.nan, kernels.complex)
    weights = np.zeros(planes.shape, complex)
    for m, (_, _, top, bottom, _, _) in enumerate(corners):
        lines[:, m, top:bottom] = _complex(kernels, rng, pairs, bottom - top, _COLUMNS)
        weights[:, m, top:bottom] = lines[:, m, top:bottom]
    spectra = np.fft.fft(weights, axis=2)
    before = sums, mass = kernels.backproject_lines(lines, pixels, corners)
    for times in (1, 2):
        _close(kernels, sums.sum(axis=0), times * (pixels * spectra.conj()).sum(axis=1))
        total = spectra[:, :, 0, 0].sum(axis=1)
        _close(kernels, mass.sum(axis=0), times * np.stack((total.real, total.imag), axis=1).ravel())
        kernels.backproject_lines(lines, pixels, corners, before)


@pytest.mark.parametrize("side", [512, 1024])
def test_rows(kernels: Kernels, side: int) -> None:
    check_rows(kernels, side)


def check_rows(kernels: Kernels, side: int) -> None:
    """Gains and their log-sum; weights, forth along the rows."""
    rng = np.random.default_rng(side)
    pairs, items, rows = 2, 2, 9
    lines = 0.1 * _complex(kernels, rng, pairs, items, rows, side)
    corners = np.array([[8, side - 3, 1, 6, 2, side - 9], [3, 50, 0, 2, 0, 40]], np.int32)
    level = rng.normal(size=2 * pairs).astype(kernels.real)
    level[-1] = -1e30
    gains = np.fft.ifft(lines, axis=-1, norm="forward") + (level[::2] + 1j * level[1::2])[:, None, None, None]
    planes = lines.copy()
    odds = kernels.odds_lines(planes, level, corners, -2.0)
    apart = np.concatenate((gains.real, gains.imag))
    expected = np.logaddexp.reduce(apart, axis=0) - 2.0
    normaliser = np.full(odds.shape, np.inf, kernels.real)
    weights = np.zeros(gains.shape, complex)
    for m, (down, across, top, bottom, left, right) in enumerate(corners):
        _close(kernels, odds[m, :down, :across], expected[m, :down, :across])
        assert np.isneginf(odds[m, down:]).all()
        assert np.isneginf(odds[m, :, across:]).all()
        _close(kernels, planes[:-1, m, :down], gains[:-1, m, :down])
        _close(kernels, planes.real[-1, m, :down], gains.real[-1, m, :down])
        owned = m, slice(top, bottom), slice(left, right)
        normaliser[owned] = rng.normal(size=(bottom - top, right - left))
        own = gains[(slice(None), *owned)]
        weights[(slice(None), *owned)] = np.exp(own.real - 2.0 - normaliser[owned])
        weights[(slice(None), *owned)] += 1j * np.exp(own.imag - 2.0 - normaliser[owned])
    kernels.weigh_lines(planes, normaliser, corners, -2.0)
    spectra = np.fft.fft(weights, axis=-1)
    for m, (_, _, top, bottom, _, _) in enumerate(corners):
        _close(kernels, planes[:, m, top:bottom], spectra[:, m, top:bottom])


@pytest.mark.parametrize("rotations", [3, 4])
def test_it_equals_the_cpu(host_device: Any, rotations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles of 512 pixels, an odd number of templates, a margin."""
    rng = np.random.default_rng(rotations)
    calls: list[int] = []
    sums = PairsPath.sums
    monkeypatch.setattr(PairsPath, "sums", lambda path, items: calls.append(len(items)) or sums(path, items))
    monkeypatch.setattr(cuda, "matrix_is_faster", lambda *_: False)
    pixels = rng.normal(size=(1, 900, 500)).astype(np.float32)
    likelihood = WindowLikelihood(Rotations(rotations, 6), 1.0, 60.0, 5).bind(pixels.shape)
    templates = Rotations(rotations, 6).apply(2.0 * rng.normal(size=(6, 6)))
    cut = likelihood.geometry.enlarged(480)

    def found(backend: Any) -> Any:
        return backend.accumulate(ArrayMeasurement(pixels).tiles(cut), backend.asarray(templates), likelihood)

    assert_same_statistics(found(CudaBackend(host_device)), found(get_backend("cpu")), 1e-5)
    assert calls


def test_the_torus() -> None:
    """A power of two that is much larger than needed costs more than a library's transforms of the size."""
    assert suitable_torus((764, 500), (768, 504)) == (1024, 512)
    assert suitable_torus((512, 512), (512, 512)) == (512, 512)
    assert suitable_torus((300, 300), (300, 300)) is None
    assert suitable_torus((1100, 900), (1120, 900)) is None
