"""M-steps against their formulas (docs/model.md 4 and 8)."""

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    ExactUpdate,
    FlatPrior,
    GaussianPrior,
    GradientAscent,
    Statistics,
    get_backend,
)
from mtdcore._base.numerics.conjugate_gradients import conjugate_gradients
from mtdcore.errors import ParameterError
from mtdcore.estep.sums import TemplateSums
from mtdcore.model.rotations import disc
from mtdcore.testing import Case

FLAT = FlatPrior()
EXACT = get_backend("cpu", precision="float64", threads=1)


def e_step(model, rotations, box_size=5):
    case = Case(model, box_size, rotations)
    return case.target(), case.statistics(EXACT)


def normal_operator(statistics):
    """``sum_k R_k^T coverage_k R_k`` as a dense (L^2, L^2) matrix."""
    side = len(statistics.right)
    units = np.eye(side**2).reshape(-1, side, side)
    return np.array([statistics.normal(u).ravel() for u in units]).T


@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize("prior", [FLAT, GaussianPrior(0.5, 2.0)], ids=["flat", "gaussian"])
def test_gradient_ascent_is_equation_18(prior, rotations):
    target, found = e_step("patch", rotations)
    expected = target
    for _ in range(3):
        score = prior.score(expected[None], 0.1)[0]
        expected = expected + 1e-3 * (found.gradient(expected) + 0.7 * score)
    update = GradientAscent(1e-3, steps=3, prior_weight=0.7, prior_level=0.1)
    assert np.allclose(update(target, found, prior, 0, 10), expected, rtol=1e-13, atol=0)


def test_weight_and_level_of_the_prior_may_change_with_the_iteration():
    target, found = e_step("patch", 4)
    prior = GaussianPrior(0.5)
    rising = GradientAscent(1e-3, prior_weight=lambda i, n: (i + 1) / n, prior_level=lambda i, n: 1 - i / n)
    for iteration, weight, level in ((0, 0.25, 1.0), (3, 1.0, 0.25)):
        constant = GradientAscent(1e-3, prior_weight=weight, prior_level=level)
        assert np.array_equal(
            rising(target, found, prior, iteration, 4), constant(target, found, prior, 0, 4)
        )


def test_a_prior_of_no_weight_is_not_asked():
    target, found = e_step("patch", 4)
    assert np.array_equal(
        GradientAscent(1e-3, prior_weight=0.0)(target, found, None, 0, 1),
        GradientAscent(1e-3)(target, found, FLAT, 0, 1),
    )


@pytest.mark.parametrize(
    "arguments", [{"step": 0.0}, {"step": -1.0}, {"step": float("nan")}, {"step": 1.0, "steps": 0}]
)
def test_gradient_ascent_needs_a_step(arguments):
    with pytest.raises(ParameterError, match="needs a positive step and at least one step"):
        GradientAscent(**arguments)


@pytest.mark.parametrize("rotations", [1, 2, 4])
@pytest.mark.parametrize("model", ["patch", "window"])
def test_exact_update_leaves_no_gradient(model, rotations):
    target, found = e_step(model, rotations)
    best = ExactUpdate()(target, found, FLAT, 0, 1)
    assert np.abs(found.gradient(best)).max() < 1e-12 * np.abs(found.gradient(target)).max()


@pytest.mark.parametrize("box_size", [5, 8])
@pytest.mark.parametrize("model", ["patch", "window"])
def test_conjugate_gradients_equal_the_dense_solution(model, box_size):
    _, found = e_step(model, 3, box_size)
    seen = disc(box_size).ravel()
    dense = np.linalg.solve(normal_operator(found)[np.ix_(seen, seen)], found.right.ravel()[seen])
    # one conjugate direction per unknown, a few more for rounding
    steps = {"tolerance": 1e-13, "max_steps": seen.sum() + 3}
    solved = conjugate_gradients(found.normal, found.right, np.zeros((box_size, box_size)), **steps)
    assert np.allclose(solved.ravel()[seen], dense, atol=1e-9 * np.abs(dense).max())
    assert not solved.ravel()[~seen].any()


def test_conjugate_gradients_stop():
    target, found = e_step("patch", 3)
    assert np.array_equal(conjugate_gradients(found.normal, found.right, target, max_steps=0), target)
    solved = ExactUpdate()(target, found, FLAT, 0, 1)
    residual = found.noise_std**2 * found.gradient(solved)
    assert np.linalg.norm(residual) <= 1.001e-6 * np.linalg.norm(found.right)
    again = conjugate_gradients(found.normal, found.right, solved, tolerance=1.01e-6)
    assert np.array_equal(again, solved)


@pytest.mark.parametrize("update", [ExactUpdate(), DenoisingUpdate()], ids=["exact", "denoising"])
@pytest.mark.parametrize("rotations", [3, 4])
def test_what_nothing_saw_keeps_its_value(rotations, update):
    target = np.random.default_rng(0).normal(size=(5, 5))
    case = Case("window", 5, rotations)
    nothing = Statistics.of(TemplateSums.zeros(rotations, case.likelihood()), case.views)
    assert np.array_equal(update(target, nothing, GaussianPrior(0.0), 0, 1), target)


@pytest.mark.parametrize("rotations", [1, 4])
def test_denoising_update_is_the_closed_form_of_the_window_model(rotations):
    target, found = e_step("window", rotations)
    mean, tau = np.arange(25.0).reshape(5, 5), 0.8
    average = found.right / found.normal(np.ones((5, 5)))
    level = found.noise_std / np.sqrt(found.expected_count)
    closed = (average / level**2 + mean / tau**2) / (1 / level**2 + 1 / tau**2)
    prior = GaussianPrior(mean, tau)
    assert np.allclose(DenoisingUpdate(relaxation=1)(target, found, prior, 0, 1), closed, rtol=1e-10)
    longer = DenoisingUpdate(relaxation=2)
    assert np.allclose(longer(closed, found, prior, 5, 10), closed, rtol=1e-10)  # the same fixed point
    assert not np.allclose(longer(target, found, prior, 5, 10), closed, rtol=0.01)
    assert np.allclose(longer(target, found, prior, 6, 10), closed, rtol=1e-10)  # plain EM at the end


@pytest.mark.parametrize(("rotations", "longer"), [(1, True), (3, False), (4, True), (6, False)])
def test_steps_are_longer_at_right_angles_only(rotations, longer):
    """The eigenvalues of views that interpolate lie on both sides of 1, where a doubled step oscillates."""
    target, found = e_step("window", rotations)
    early, late = (DenoisingUpdate()(target, found, GaussianPrior(0.5), i, 10) for i in (0, 9))
    assert np.array_equal(early, late) != longer


@pytest.mark.parametrize("options", [{"steps": 0}, {"relaxation": 0.9}, {"relaxation": 2.1}])
def test_denoising_steps_that_would_not_settle_are_refused(options):
    with pytest.raises(ParameterError, match="a relaxation between 1 and 2; got"):
        DenoisingUpdate(**options)


@pytest.mark.parametrize("rotations", [3, 4])
def test_denoising_update_settles_on_the_posterior_maximum_of_the_patch_model(rotations):
    target, found = e_step("patch tied", rotations)
    prior = GaussianPrior(0.5, 0.3)
    best = DenoisingUpdate(steps=2000)(target, found, prior, 0, 1)
    slope = found.gradient(best) + prior.score(best[None], 0.0)[0]
    assert np.abs(slope).max() < 1e-9 * np.abs(found.gradient(target)).max()
