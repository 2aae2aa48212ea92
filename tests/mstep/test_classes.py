"""Several targets in one measurement: found apart, weighed, and none lost for good."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    ExactUpdate,
    FlatPrior,
    GaussianPrior,
    PatchLikelihood,
    WindowLikelihood,
    e_step,
    get_backend,
    recover,
    relative_error,
)
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.em.plan.starts import choose_starts
from mtdcore.errors import ParameterError
from mtdcore.model.likelihood.base import shares
from mtdcore.model.rotations import Rotations
from mtdcore.model.views import Classes
from mtdcore.mstep.classes import EachClass
from mtdcore.synthetic.simulate import simulate
from mtdcore.testing import assert_same_bits

EXACT = get_backend("cpu", precision="float64", threads=1)
ONE = WindowLikelihood(Rotations(4, 6), 1.0, 40.0)
IMAGES = np.random.default_rng(0).uniform(0, 4, size=(2, 6, 6))
MODEL = WindowLikelihood(Classes(Rotations(4, 6), 2), 1.0, 40.0, class_weights=(0.75, 0.25))


def mixture(share=0.75, side=110, seed=1, noise_std=1.0):
    """Pixels with about 34 copies, this share of them of the first image; and the share in truth."""
    made = simulate(
        IMAGES[0], side=side, density=0.1, noise_std=noise_std, separation=1, seed=seed, dtype="float64"
    )
    pixels = made.measurement.array[0].copy()
    second = np.arange(len(made.positions)) >= share * len(made.positions)
    for (_, row, column), k in zip(made.positions[second], made.rotation_indices[second], strict=True):
        pixels[row : row + 6, column : column + 6] += np.rot90(IMAGES[1] - IMAGES[0], k)
    return pixels, 1.0 - second.mean()


def run(pixels, **options):
    defaults = {"box_size": 6, "noise_std": 1.0, "classes": 2, "backend": EXACT, "iterations": 20}
    return recover(pixels, **(defaults | options))


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_two_classes_are_found_apart(share):
    pixels, truth = mixture(share)
    found = run(pixels, prior=GaussianPrior(2.0, 1.2), starts=8, seed=3)
    errors = np.array([[relative_error(t, image, rotations=4) for image in IMAGES] for t in found.target])
    order = [0, 1] if np.trace(errors) < np.trace(errors[::-1]) else [1, 0]
    assert found.target.shape == found.aligned_average.shape == (2, 6, 6)
    assert errors[order, [0, 1]].max() < 0.2
    assert found.class_weights[order[0]] == pytest.approx(truth, abs=0.05)
    assert sum(found.class_weights) == pytest.approx(1)


def test_equal_targets_share_what_one_would_get():
    pixels, _ = mixture(1.0)
    alone = e_step(pixels, IMAGES[0], ONE, EXACT)
    twice = e_step(pixels, np.stack([IMAGES[0]] * 2), MODEL, EXACT)
    assert (twice.classes, twice.right.shape) == (2, (2, 6, 6))
    assert twice.log_likelihood == pytest.approx(alone.log_likelihood)
    for c, share in enumerate(MODEL.class_weights):
        mine = twice.of_class(c)
        np.testing.assert_allclose(mine.right, share * alone.right, rtol=1e-9)
        assert mine.expected_count == pytest.approx(share * alone.expected_count)
    assert shares(twice.class_mass, 0.0) == pytest.approx(MODEL.class_weights)
    residual = twice.residual_energy(np.stack([IMAGES[1]] * 2))
    assert residual == pytest.approx(alone.residual_energy(IMAGES[1]))


def test_one_class_is_no_class(tmp_path):
    """No weights, no third axis: the same run as ever."""
    pixels, _ = mixture(1.0)
    one = run(pixels, classes=1, iterations=4)
    assert one.target.shape == (6, 6)
    assert one.class_weights is None
    single = replace(MODEL, views=Classes(Rotations(4, 6), 1), class_weights=(1.0,))
    found, plain = e_step(pixels, IMAGES[:1], single, EXACT), e_step(pixels, IMAGES[0], ONE, EXACT)
    assert np.array_equal(found.right[0], plain.right)
    assert found.log_likelihood == plain.log_likelihood


def test_weights_never_lower_the_log_likelihood_of_patches():
    """The share of a class is its posterior mass: its mean coverage, which depends on where copies are cut, is not."""
    pixels, _ = mixture(0.6, side=66)
    model = PatchLikelihood(MODEL.views, 1.0, 0.5, class_weights=(0.9, 0.1))
    before = -np.inf
    for _ in range(12):
        found = e_step(pixels, IMAGES, model, EXACT)
        assert found.log_likelihood >= before - 1e-9
        before = found.log_likelihood
        assert found.class_mass.sum() == pytest.approx(found.sites - found.empty_mass)
        model = model.updated(found, None, 0.0, 1.0, early=False)


@pytest.mark.parametrize("update", [ExactUpdate(), DenoisingUpdate()])
def test_an_empty_class_keeps_its_target(update):
    pixels, _ = mixture(1.0)
    far = np.full((6, 6), 40.0)
    targets = np.stack([IMAGES[0], far])
    found = e_step(pixels, targets, MODEL, EXACT)
    assert found.of_class(1).expected_count < 1e-6
    moved = EachClass(update)(targets, found, FlatPrior(), 0, 1)
    np.testing.assert_array_equal(moved[1], far)
    assert np.abs(moved[0] - targets[0]).max() > 0
    assert shares(found.class_mass, 0.0) == pytest.approx((1.0, 1e-5), rel=1e-4)
    assert shares(found.class_mass, 0.5) == pytest.approx((0.75, 0.25))
    assert shares(found.class_mass, 1.0) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(("copies", "moves"), [(0.999, False), (1.0, True), (1.001, True)])
def test_a_class_of_less_than_one_copy_keeps_its_target(copies, moves):
    found = e_step(mixture()[0], IMAGES, MODEL, EXACT)
    found = replace(found, expected_count=8.0, class_mass=np.array([8.0 - copies, copies]))
    moved = EachClass(ExactUpdate())(IMAGES, found, FlatPrior(), 0, 1)
    assert np.array_equal(moved[1], IMAGES[1]) != moves
    assert not np.array_equal(moved[0], IMAGES[0])


def test_weights_are_held_up_at_first():
    """A class that begins far off is not lost before it could move."""
    pixels, _ = mixture(0.5)
    seen = []
    run(pixels, initial=np.stack([IMAGES[0], np.full((6, 6), 40.0)]), iterations=8, tolerance=0.0,
        callback=lambda state: seen.append(state.likelihood.class_weights[1]))  # fmt: skip
    assert seen[0] == pytest.approx(0.25)
    assert seen[-1] < 1e-4


def test_a_run_goes_on_with_the_same_bits(tmp_path):
    pixels, _ = mixture()
    states = []
    options = {"prior": GaussianPrior(2.0, 1.2), "starts": 2, "iterations": 8, "tolerance": 0.0}
    whole = run(pixels, callback=states.append, **options)
    for done in (1, 4):
        save_checkpoint(tmp_path / "c", states[done - 1], {})
        again = run(pixels, state=load_checkpoint(tmp_path / "c", {}), **options)
        np.testing.assert_array_equal(again.target, whole.target)
        assert again.class_weights == whole.class_weights
        assert_same_bits(again.statistics, whole.statistics)


@pytest.mark.parametrize("kind", ["uniform", "blob", "samples"])
def test_starts_of_classes_differ(kind):
    first, *_ = choose_starts(kind, None, GaussianPrior(2.0, 1.0), MODEL, 0)
    assert first.shape == (2, 6, 6)
    assert np.linalg.norm(first[0] - first[1]) > 0.1 * np.linalg.norm(first[0])


@pytest.mark.parametrize("shape", [(2, 6, 6), (3, 2, 6, 6)])
def test_starts_may_be_given(shape):
    assert len(choose_starts(np.ones(shape), None, FlatPrior(), MODEL, 0)) == (3 if len(shape) == 4 else 1)


def test_clear_errors():
    pixels, _ = mixture()
    with pytest.raises(ParameterError, match="classes must be a positive number of targets; got 0"):
        run(pixels, classes=0)
    with pytest.raises(ParameterError, match=r"initial images should be finite and of shape \(2, 6, 6\)"):
        run(pixels, initial=np.ones((3, 6, 6)))
    with pytest.raises(ParameterError, match=r"the likelihood has the views Classes.* give the same to both"):
        run(pixels, classes=1, likelihood=MODEL)
    with pytest.raises(ParameterError, match=r"shape that the views take, \(2, 6, 6\); got \(6, 6\)"):
        e_step(pixels, IMAGES[0], MODEL, EXACT)
