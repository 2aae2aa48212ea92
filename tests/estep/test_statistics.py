"""Statistics add, crop and save; their gradient is the derivative of the log-likelihood."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore import PatchLikelihood, Statistics, WindowLikelihood, e_step, get_backend
from mtdcore.errors import InputError, ParameterError
from mtdcore.estep.sums import TemplateSums
from mtdcore.model.rotations import Rotations
from mtdcore.testing import Case, assert_same_bits, assert_same_statistics

EXACT = get_backend("cpu", precision="float64", threads=1)


@pytest.fixture(params=["patch", "window"])
def statistics(request):
    return Case(request.param, 6, rotations=4, margin=2).statistics(EXACT)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize(
    "likelihood",
    [
        lambda k: PatchLikelihood(Rotations(k, 5), 0.8),
        lambda k: PatchLikelihood(Rotations(k, 5), 0.8, 0.3),
        # at distance 1 nothing competes, and the evidence of docs/model.md 7 is an exact log-likelihood ratio
        lambda k: WindowLikelihood(Rotations(k, 5), 0.8, 6.0, min_separation=1),
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
    found = case.statistics(EXACT)
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
    found = e_step(pixels, target, PatchLikelihood(Rotations(4, 4), 0.05), EXACT)
    assert found.residual_energy(target) == pytest.approx(0, abs=1e-9 * found.energy)


@pytest.mark.parametrize("amplitude_std", [0.0, 0.5])
def test_the_energy_of_a_copy_does_not_depend_on_how_many_there_are(amplitude_std):
    rng = np.random.default_rng(4)
    target, pixels = rng.normal(size=(5, 5)), rng.normal(size=(40, 40))
    for row, column, amplitude in ((2, 3, 1.0), (15, 20, 2.0), (30, 8, 2.0)):
        pixels[row : row + 5, column : column + 5] += amplitude * target
    model = WindowLikelihood(Rotations(4, 5), 0.8, 3.0, amplitude_std=amplitude_std)
    found = e_step(pixels, target, model, EXACT)
    assert found.amplitude_squares > 2.0
    assert found.copy_energy(target) == pytest.approx(np.square(target).sum() / 0.8**2)
    assert replace(found, amplitude_squares=0.0).copy_energy(target) == 0.0


def nothing(case):
    """Statistics of no tiles."""
    return Statistics.of(TemplateSums.zeros(case.rotations, case.likelihood()), case.views)


def test_addition(statistics):
    model = "patch" if statistics.empty_mass else "window"
    assert_same_bits(nothing(Case(model, 6, 4, margin=2)) + statistics, statistics)
    assert_same_bits(statistics + statistics, statistics.scaled(2.0))
    assert (statistics + statistics).noise_std == statistics.noise_std


@pytest.mark.parametrize(
    "other",
    [Case("patch", 5, 4, 2), Case("patch", 6, 4, 1), Case("patch", 6, 4, 2, noise_std=0.8)],
    ids=["box", "margin", "noise"],
)
def test_what_does_not_add(statistics, other):
    with pytest.raises(ParameterError, match="statistics add only when"):
        statistics + nothing(other)
    with pytest.raises(TypeError):
        statistics + 1


def test_statistics_of_different_rotations_add():
    """They live in target space: an iteration, or a worker, may turn by other angles than the last one."""
    few, many = (Case("window", 6, rotations).statistics(EXACT) for rotations in (1, 4))
    both, target = few + many, np.random.default_rng(5).normal(size=(6, 6))
    assert both.gradient(target) == pytest.approx(few.gradient(target) + many.gradient(target))


@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize("classes", [None, (0.7, 0.3)])
def test_margin_surrounds_the_same_box(statistics, rotations, classes):
    model = "patch" if statistics.empty_mass else "window"
    bare, wide = (
        Case(model, 6, rotations, margin=m, class_weights=classes).statistics(EXACT) for m in (0, 2)
    )
    assert (bare.margin, wide.margin) == (0, 2)
    assert wide.framed().right.shape[-2:] == (10, 10)
    assert bare.framed() is bare
    assert_same_statistics(replace(wide, frame=None), bare, 1e-12)
    if rotations == 4:  # turned exactly, the inner part of the frame is the box
        np.testing.assert_allclose(wide.frame.right[..., 2:-2, 2:-2], bare.right, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_the_bound_bounds(masked):
    """No eigenvalue of the normal operator is larger, with a margin and for each class too."""
    for model, rotations, classes in (("window", 4, None), ("patch", 3, None), ("patch", 4, (0.7, 0.3))):
        case = Case(model, 6, rotations, margin=2, masked=masked, class_weights=classes)
        found = case.statistics(EXACT)
        for one in [found, *(found.of_class(c) for c in range(found.classes))]:
            units = np.eye(one.right.size).reshape(-1, *one.right.shape)
            largest = np.linalg.eigvalsh(np.array([one.normal(u).ravel() for u in units])).max()
            assert largest <= one.normal.bound * (1 + 1e-9)
            assert one.normal.bound < 2.5 * largest + 1e-9
        assert found.normal.bound == replace(found, frame=None).normal.bound


def test_count_is_the_coverage_of_a_pixel():
    found = Case("window", 6, rotations=4).statistics(EXACT)
    assert found.normal.bound == pytest.approx(found.expected_count, rel=1e-12)
    case = Case("patch", 6, rotations=4)
    found = case.statistics(EXACT)
    assert found.expected_count == pytest.approx(case.accumulate(EXACT).coverage.sum() / 36)
    assert found.normal.bound >= found.expected_count


def test_save_and_load(statistics, tmp_path):
    statistics.save(tmp_path / "statistics.safetensors")
    loaded = Statistics.load(tmp_path / "statistics.safetensors")
    assert_same_bits(loaded, statistics)
    assert isinstance(loaded.pixels, int)
    assert_same_bits(loaded + statistics, statistics + statistics)


@pytest.mark.parametrize("content", [None, b"nonsense", {"right": 1}], ids=["missing", "damaged", "other"])
def test_files_that_hold_no_statistics(tmp_path, content):
    path = tmp_path / "statistics.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.savez(path, **content)
    with pytest.raises(InputError, match=r"should hold statistics written by Statistics\.save"):
        Statistics.load(path)
