"""The matrix path against plain loops, in NumPy and in a strict array library."""

import array_api_strict
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import logsumexp

from mtdcore.estep.backends.array.backend import ArrayBackend
from mtdcore.estep.backends.matrix import Basis, Features, Scores
from mtdcore.model.likelihood.amplitudes import Amplitudes
from mtdcore.model.volumes.projections import Projections


@pytest.mark.parametrize(("side", "band"), [(8, 0.3), (9, 0.5), (8, 0.5), (11, 0.42)])
def test_the_basis_spans_what_projections_make(side, band):
    basis = Basis(side, band)
    flat = basis.functions.reshape(basis.size, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(basis.size), atol=1e-12)
    images = Projections(side, 30, band=band).apply(np.random.default_rng(0).standard_normal((side,) * 3))
    np.testing.assert_allclose(basis.images(basis.coefficients(images)), images, atol=1e-10)
    assert np.linalg.matrix_rank(images.reshape(30, -1)) <= basis.size


@pytest.mark.parametrize("xp", [np, array_api_strict])
@pytest.mark.parametrize("height", [9, 19, 40, 140, 300])
def test_features_are_products_with_every_window(xp, height):
    values = np.random.default_rng(1).standard_normal((height, 23))
    basis = Basis(9, 0.4)
    features = Features(values, basis, ArrayBackend(xp, "float64"))
    wanted = sliding_window_view(values, (9, 9)).reshape(-1, 81) @ basis.functions.reshape(basis.size, -1).T
    found = np.full(wanted.T.shape, np.nan)
    for windows, block in features.blocks():
        found[:, windows] = np.asarray(block)
    np.testing.assert_allclose(found, wanted.T, atol=1e-12)
    some = np.array([0, 7, 14, len(wanted) // 2, len(wanted) - 1])
    np.testing.assert_allclose(np.asarray(features.at(some)), wanted[some].T, atol=1e-12)


@pytest.mark.parametrize("amplitudes", [None, Amplitudes(0.16)])
@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_scores_and_sums_are_those_of_the_window_model(xp, amplitudes):
    rng = np.random.default_rng(2)
    sigma, side = 0.7, 8
    templates = Projections(side, 40, band=0.4).apply(rng.standard_normal((side,) * 3))
    values = rng.standard_normal((30, 26))
    basis = Basis(side, 0.4)
    features = Features(values, basis, ArrayBackend(xp, "float64"))
    prior = np.log(rng.uniform(0.1, 1, 40))
    arrays = ArrayBackend(xp, "float64")
    scores = Scores(basis.coefficients(templates), sigma, prior, arrays, amplitudes)
    windows = sliding_window_view(values, (side, side)).reshape(-1, side * side)
    flat = templates.reshape(40, -1)
    gain, energy = windows @ flat.T / sigma**2, (flat**2).sum(axis=1) / sigma**2
    mean = square = np.ones_like(gain)
    ratio = gain - 0.5 * energy
    if amplitudes is not None:
        mean, square = (amplitudes.moment(order, gain, energy) for order in (1, 2))
        ratio = amplitudes.log_ratio(gain, energy)
    ratio = ratio + prior
    odds = np.concatenate([np.asarray(scores.log_odds(block)) for _, block in features.blocks()])
    np.testing.assert_allclose(odds, logsumexp(ratio, axis=1), atol=1e-10)
    norm = np.logaddexp(0.0, odds + 1.0)
    wide, copies = 0.0, 0.0
    for cut, block in features.blocks():
        more, mass = scores.project(block, xp.asarray(norm[cut]))
        wide, copies = wide + np.asarray(more), copies + np.asarray(mass)
    weights = np.exp(ratio - norm[:, None])
    wanted = [(weights * one).sum(axis=0) for one in (1.0, mean, square)]
    np.testing.assert_allclose(copies, wanted, rtol=1e-10)
    block = next(features.blocks())
    views, highest, strength = scores.best(block[1])
    np.testing.assert_array_equal(views, ratio[block[0]].argmax(axis=1))
    matched = scores.matched(block[1], views)
    filters = basis.coefficients(templates)[views]
    np.testing.assert_allclose(matched, (filters * np.asarray(block[1]).T).sum(axis=1) / sigma**2, rtol=1e-9)
    assert np.all(np.diff(highest[np.argsort(ratio[block[0]].max(axis=1))]) >= 0.0)
    np.testing.assert_allclose(strength, np.take_along_axis(mean[block[0]], views[:, None], 1)[:, 0])
    shown = np.asarray(scores.expected(block[1], xp.asarray(norm[block[0]])))
    expected = (weights * mean)[block[0]] @ basis.coefficients(templates)
    np.testing.assert_allclose(shown, expected.T, atol=1e-9)
    # What lies outside the band is not kept: the right side of a volume of that band does not see it.
    kept = basis.images(basis.coefficients(((weights * mean).T @ windows).reshape(-1, side, side)))
    np.testing.assert_allclose(basis.images(wide), kept, atol=1e-9)


def test_single_precision_is_good_to_a_hundredth_of_a_nat():
    rng = np.random.default_rng(3)
    templates = 8.0 * Projections(12, 60, band=0.4).apply(rng.standard_normal((12,) * 3)) / 12
    values = rng.standard_normal((40, 40)) + np.pad(templates[3], 14)
    basis = Basis(12, 0.4)
    odds = {}
    for precision in ("float32", "float64"):
        arrays = ArrayBackend(np, precision)
        scores = Scores(basis.coefficients(templates), 1.0, -3.0, arrays)
        odds[precision] = np.concatenate(
            [scores.log_odds(b) for _, b in Features(values, basis, arrays).blocks()]
        )
    assert odds["float64"].max() > 20
    np.testing.assert_allclose(odds["float32"], odds["float64"], atol=0.01)
