"""Statistics add, crop and save; their gradient is the derivative of the log-likelihood."""

import numpy as np
import pytest

from mtdcore import PatchLikelihood, Statistics, WindowLikelihood, e_step, get_backend
from mtdcore.errors import InputError, ParameterError
from mtdcore.estep.statistics import SUMMED
from mtdcore.testing import Case, assert_same_bits, assert_same_statistics

EXACT = get_backend("cpu", precision="float64", threads=1)


@pytest.fixture(params=["patch", "window"])
def statistics(request):
    return Case(request.param, 6, rotations=4, margin=2).accumulate(EXACT)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize(
    "likelihood",
    [
        lambda k: PatchLikelihood(5, k, 0.8),
        lambda k: PatchLikelihood(5, k, 0.8, 0.3),
        # at distance 1 nothing competes, and the evidence of docs/model.md 7 is an exact log-likelihood ratio
        lambda k: WindowLikelihood(5, k, 0.8, 6.0, min_separation=1),
    ],
    ids=["patch uniform", "patch tied", "window"],
)
def test_gradient_is_the_derivative_of_the_log_likelihood(likelihood, rotations, masked):
    rng = np.random.default_rng(0)
    pixels, target = rng.normal(0.5, 1.0, size=(16, 22)), rng.uniform(size=(5, 5))
    if masked:
        pixels[3, 4] = pixels[11, 12] = np.nan
    model, step = likelihood(rotations), 1e-5

    def objective(image):
        return e_step(pixels, image, model, EXACT).log_likelihood

    gradient = e_step(pixels, target, model, EXACT).gradient(target)
    for _ in range(4):
        direction = rng.normal(size=target.shape)
        slope = (objective(target + step * direction) - objective(target - step * direction)) / (2 * step)
        assert slope == pytest.approx(np.vdot(gradient, direction), rel=1e-6)


@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize("model", ["patch", "window"])
def test_gradient_is_the_derivative_of_the_residual(model, rotations):
    """grad Q = -grad(expected residual) / (2 sigma^2), both quadratic in F, at an F that is not the E-step's."""
    case = Case(model, 5, rotations)
    found = case.accumulate(EXACT)
    rng = np.random.default_rng(1)
    target, direction = rng.normal(size=(2, 5, 5))
    slope = (found.residual_energy(target + direction) - found.residual_energy(target - direction)) / 2
    expected = -2 * case.noise_std**2 * np.vdot(found.gradient(target), direction)
    assert slope == pytest.approx(expected, rel=1e-9)


def test_residual_without_signal_is_the_energy(statistics):
    assert statistics.residual_energy(np.zeros((6, 6))) == statistics.energy


def test_residual_of_a_clean_measurement_is_zero():
    target = np.random.default_rng(2).uniform(1, 2, size=(4, 4))
    pixels = np.zeros((8, 8))
    pixels[4:, :4] = np.rot90(target)
    found = e_step(pixels, target, PatchLikelihood(4, 4, 0.05), EXACT)
    assert found.residual_energy(target) == pytest.approx(0, abs=1e-9 * found.energy)


def test_addition(statistics):
    zero = Statistics.zeros(4, 6, statistics.noise_std, margin=2)
    assert_same_bits(zero + statistics, statistics)
    twice = statistics + statistics
    for name in SUMMED:
        assert np.array_equal(getattr(twice, name), 2 * getattr(statistics, name))
    assert (twice.noise_std, twice.box_size) == (statistics.noise_std, 6)


@pytest.mark.parametrize(
    "other",
    [Statistics.zeros(3, 6, 0.7, 2), Statistics.zeros(4, 6, 0.7, 1), Statistics.zeros(4, 6, 0.8, 2)],
    ids=["rotations", "margin", "noise"],
)
def test_what_does_not_add(statistics, other):
    with pytest.raises(ParameterError, match="statistics add only when"):
        statistics + other
    with pytest.raises(TypeError):
        statistics + 1


def test_margin_surrounds_the_same_box(statistics):
    assert (statistics.rotations, statistics.margin, statistics.rotation_set.box_size) == (4, 2, 10)
    cropped = statistics.cropped()
    assert (cropped.margin, cropped.backprojection.shape) == (0, (4, 6, 6))
    assert cropped.cropped() is cropped
    model = "patch" if statistics.empty_mass else "window"
    assert_same_statistics(cropped, Case(model, 6, rotations=4).accumulate(EXACT), 1e-12)


def test_count_is_the_coverage_of_a_pixel():
    found = Case("window", 6, rotations=4).accumulate(EXACT)
    assert found.largest_coverage == pytest.approx(found.expected_count, rel=1e-12)
    found = Case("patch", 6, rotations=4).accumulate(EXACT)
    assert found.expected_count == pytest.approx(found.coverage.sum() / 36)
    assert found.largest_coverage >= found.expected_count


def test_save_and_load(statistics, tmp_path):
    statistics.save(tmp_path / "statistics.npz")
    loaded = Statistics.load(tmp_path / "statistics.npz")
    assert_same_bits(loaded, statistics)
    assert isinstance(loaded.pixels, int)
    assert_same_bits(loaded + statistics, statistics + statistics)


@pytest.mark.parametrize("content", [None, b"nonsense", {"coverage": 1}], ids=["missing", "damaged", "other"])
def test_files_that_hold_no_statistics(tmp_path, content):
    path = tmp_path / "statistics.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.savez(path, **content)
    with pytest.raises(InputError, match=r"should hold statistics written by Statistics\.save"):
        Statistics.load(path)
