"""Moments of a measurement: what is summed, and that sums add, are kept and can be trusted with any library."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.errors import InputError, ParameterError
from mtdcore.moments import measure
from mtdcore.moments.measure import measure_moments
from mtdcore.moments.sums import Moments

SHAPE, BOX, REACH = (2, 40, 37), (5, 6), (2, 3)


@pytest.fixture
def pixels():
    return 3.0 + np.random.default_rng(0).standard_normal(SHAPE)


@pytest.fixture
def mask():
    return np.random.default_rng(1).uniform(size=SHAPE) > 0.1


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles and parts out of few pixels."""
    monkeypatch.setattr(measure, "_SIDE", 20)
    monkeypatch.setattr(measure, "_TOGETHER", 3)


def moved(image, lag):
    """Pixel x + lag at x, 0 where there is none."""
    found = np.zeros_like(image)
    to = tuple(slice(max(0, -n), m - max(0, n)) for n, m in zip(lag, image.shape[1:], strict=True))
    of = tuple(slice(max(0, n), m - max(0, -n)) for n, m in zip(lag, image.shape[1:], strict=True))
    found[:, *to] = image[:, *of]
    return found


def brute_force(pixels, valid, edges):
    """Sums and counts over pairs and triples as they are defined."""
    lags = [[(r, c) for c in range(1 - BOX[1], BOX[1])] for r in range(1 - BOX[0], BOX[0])]

    def summed(image, *others):
        return [
            [float((image * np.prod([moved(image, o) for o in (*others, q)], axis=0)).sum()) for q in row]
            for row in lags
        ]

    pairs, counts = summed(pixels * valid), summed(valid)
    triples = [summed(pixels * valid, e) for e in edges]
    return map(np.array, (pairs, counts, triples, [summed(valid, e) for e in edges]))


@pytest.mark.parametrize("masked", [False, True])
def test_sums_are_those_of_their_definition(pixels, mask, masked, small_tiles):
    found = measure_moments(pixels, BOX, reach=REACH, mask=mask if masked else None)
    valid = mask.astype(float) if masked else np.ones(SHAPE)
    expected = brute_force(pixels - found.offset, valid, found.edges)
    names = ("pairs", "pair_counts", "triples", "triple_counts")
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), array, rtol=0, atol=1e-10)
    assert found.pixels == valid.sum()
    np.testing.assert_allclose(found.first, pixels[valid > 0].mean(), rtol=1e-12)


def test_moments_are_those_of_the_pixels_less_their_mean(pixels):
    found = measure_moments(pixels, BOX, reach=REACH)
    mean, ones, (edge, row, column) = found.first, np.ones(SHAPE), (17, 6, 3)
    (e, q) = found.edges[edge], (row - BOX[0] + 1, column - BOX[1] + 1)
    apart = tuple(q - e)

    def average(*lags):
        shifted = [moved(pixels - found.offset, lag) for lag in lags]
        inside = np.prod([moved(ones, lag) for lag in lags], axis=0)
        return float((inside * np.prod(shifted, axis=0)).sum() / inside.sum())

    rest = mean - found.offset
    pairs = [average((0, 0), lag) for lag in (tuple(e), q, apart)]
    assert found.second[row, column] == pytest.approx(pairs[1] - rest**2, abs=1e-12)
    third = average((0, 0), tuple(e), q) - rest * sum(pairs) + 2 * rest**3
    assert found.third[edge, row, column] == pytest.approx(third, abs=1e-12)
    assert np.isfinite(found.third[0, -1, -1])
    assert np.isnan(found.third[-1, 0, 0])  # two of its pixels are farther apart than a box


@pytest.mark.parametrize(("units", "offset"), [(1e3, 0.0), (1.0, 1e4), (1e-3, -5.0)])
def test_moments_know_no_units_and_no_offset(pixels, mask, units, offset):
    plain, other = (
        measure_moments(image, BOX, reach=REACH, mask=mask) for image in (pixels, units * pixels + offset)
    )
    np.testing.assert_allclose(other.second / units**2, plain.second, atol=1e-9)
    np.testing.assert_allclose(other.third / units**3, plain.third, atol=1e-9)
    assert other.first == pytest.approx(units * plain.first + offset)


def test_parts_add_up_to_the_whole(pixels, mask, small_tiles):
    whole = measure_moments(pixels, BOX, reach=REACH, mask=mask)
    with ThreadPoolExecutor(2) as threads:
        elsewhere = measure_moments(pixels, BOX, reach=REACH, mask=mask, executor=threads)
    np.testing.assert_array_equal(elsewhere.triples, whole.triples)  # the same bits
    both = whole + replace(whole, total=1.0, pixels=2.0)
    assert both.pixels == whole.pixels + 2
    assert both.total == whole.total + 1
    np.testing.assert_array_equal(both.triples, 2 * whole.triples)
    with pytest.raises(ParameterError, match="agree"):
        whole + replace(whole, offset=whole.offset + 1)


def test_moments_are_kept_in_a_sealed_file(pixels, tmp_path):
    found = measure_moments(pixels, BOX, reach=REACH)
    found.save(tmp_path / "moments")
    loaded = Moments.load(tmp_path / "moments")
    assert loaded.record()[0] == found.record()[0]
    np.testing.assert_array_equal(loaded.triples, found.triples)
    content = bytearray((tmp_path / "moments").read_bytes())
    content[-9] ^= 1
    (tmp_path / "moments").write_bytes(content)
    with pytest.raises(InputError, match=r"written by Moments\.save"):
        Moments.load(tmp_path / "moments")


def test_any_library_with_an_fft_sums_the_same(pixels, mask):
    pytest.importorskip("torch")
    plain, other = (
        measure_moments(pixels, BOX, reach=REACH, mask=mask, backend=name) for name in ("array", "torch")
    )
    np.testing.assert_allclose(other.pairs, plain.pairs, atol=1e-9)
    np.testing.assert_allclose(other.triples, plain.triples, atol=1e-9)
    np.testing.assert_array_equal(other.triple_counts, plain.triple_counts)


def test_what_cannot_be_measured_is_refused(pixels):
    with pytest.raises(InputError, match="at least one box"):
        measure_moments(pixels, 41)
    with pytest.raises(ParameterError, match="reach"):
        measure_moments(pixels, BOX, reach=5)
    with pytest.raises(InputError, match="no valid pixel"):
        measure_moments(pixels, BOX, mask=np.zeros(SHAPE, bool))


def test_a_signal_has_moments_along_its_axis():
    signal = np.random.default_rng(2).standard_normal(300)
    found = measure_moments(signal, (1, 12), reach=(0, 3))
    products = (signal[:-2] - found.offset) * (signal[2:] - found.offset)
    assert found.pairs[0, 11 + 2] == pytest.approx(products.sum(), abs=1e-10)
    assert isinstance(found, mtd.Moments)
