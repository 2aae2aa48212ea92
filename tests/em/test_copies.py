"""Copies as they are: symmetric targets, mirrored copies, places between pixels."""

import numpy as np
import pytest

import mtdcore
from mtdcore.em.plan.beginning import views_of
from mtdcore.errors import ParameterError
from mtdcore.model.symmetry import invariant, invariant_adjoint
from mtdcore.mstep.symmetry import symmetrised
from mtdcore.synthetic.glyphs import glyphs

BOX = 16


def symmetric_glyph(order, box=BOX):
    """A glyph off the middle of the box, and what turns it into others."""
    return order * invariant(np.roll(glyphs(3, box, seed=4)[2].astype(float), 3, axis=0), order)


@pytest.fixture(scope="module")
def four():
    """Copies of a target of symmetry C4, in noise that hides them from a box without it."""
    target = symmetric_glyph(4)
    made = mtdcore.simulate(target, side=200, count=14, snr=0.25, rotations=4, seed=3)
    return target, made


def options(**more):
    return {"box_size": BOX, "iterations": 30, "backend": "cpu", "seed": 1, **more}


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_invariant_images_are_their_own_mean(order):
    image = np.random.default_rng(0).normal(size=(2, 9, 9))
    mean = invariant(image, order)
    exact = order in (1, 2, 4)
    np.testing.assert_allclose(invariant(mean, order), mean, atol=1e-12 if exact else 0.5)
    other = np.random.default_rng(1).normal(size=(2, 9, 9))
    assert np.vdot(mean, other) == pytest.approx(np.vdot(image, invariant_adjoint(other, order)), abs=1e-9)
    if exact:
        np.testing.assert_allclose(np.rot90(mean, 4 // order, axes=(1, 2)), mean, atol=1e-12)


def test_the_asymmetric_unit_holds_the_angles_that_differ():
    for count, order, kept in ((4, 4, 1), (4, 2, 2), (8, 4, 2), (4, 3, 4), (6, 4, 3), (1, 5, 1)):
        views = views_of(count, BOX, 1, f"C{order}")
        assert views.count == kept
        asked = {round(360 * k / count % (360 / order), 6) for k in range(count)}
        assert {round(np.degrees(a), 6) for a in views.angles} == asked
    target = symmetric_glyph(4)
    np.testing.assert_array_equal(views_of(4, BOX, 1, "C4").apply(target)[0], target)
    every = mtdcore.Rotations(8, BOX).apply(target)
    np.testing.assert_allclose(views_of(8, BOX, 1, "C4").apply(target), every[:2], atol=1e-12)


def test_c4_at_four_angles_is_one_rotation_of_symmetric_statistics(four):
    """The posterior is that of a single angle; the M-step differs by its projection alone."""
    target, made = four
    one, same = (
        mtdcore.WindowLikelihood(views, made.noise_std, expected_count=14.0)
        for views in (mtdcore.Rotations(1, BOX), views_of(4, BOX, 1, "C4"))
    )
    all_four = mtdcore.WindowLikelihood(mtdcore.Rotations(4, BOX), made.noise_std, expected_count=14.0)
    alone, unit, whole = (
        mtdcore.e_step(made.measurement, target, m, mtdcore.get_backend("cpu", "float64"))
        for m in (one, same, all_four)
    )
    np.testing.assert_array_equal(alone.right, unit.right)
    assert unit.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-9)
    assert unit.expected_count == pytest.approx(whole.expected_count, rel=1e-9)
    # four equal templates share the copies out evenly: the plain statistics are symmetric by themselves
    found = symmetrised(unit, 4)
    np.testing.assert_allclose(found.right / 4, whole.right, atol=1e-6)
    np.testing.assert_allclose(found.normal.weights / 4, whole.normal.weights, rtol=1e-9)


def test_symmetry_finds_what_the_plain_model_sees_worse(four):
    """From random pixels the estimate is symmetric and closer; the count is that of copies."""
    target, made = four
    plain, found = (mtdcore.recover(made.measurement, **options(symmetry=s)) for s in ("C1", "C4"))
    np.testing.assert_allclose(np.rot90(found.target), found.target, atol=1e-9)
    np.testing.assert_allclose(np.rot90(found.aligned_average), found.aligned_average, atol=1e-9)
    errors = [mtdcore.relative_error(r.target, target, max_shift=3) for r in (plain, found)]
    assert errors[1] < 0.6 * errors[0]  # noise of 4 p copies rather than p
    assert abs(found.expected_count - 14) < 2
    assert (found.likelihood.templates, found.statistics.classes) == (1, 1)


def test_symmetry_with_interpolation_a_prior_and_classes():
    target = symmetric_glyph(3) * 1.0
    made = mtdcore.simulate(target, side=160, count=10, snr=1, rotations="continuous", seed=2)
    prior = mtdcore.GaussianPrior(0.0, 0.5)
    found = mtdcore.recover(
        made.measurement, **options(symmetry="C3", rotations=24, prior=prior, initial=target, iterations=12)
    )
    turned = mtdcore.Rotations(3, BOX).apply(found.target)
    assert np.linalg.norm(turned[1] - turned[0]) < 0.1 * np.linalg.norm(found.target)
    assert mtdcore.relative_error(found.target, made.target, 24, max_shift=1) < 0.5
    assert found.likelihood.views.count == 8
    both = mtdcore.recover(made.measurement, **options(symmetry="C2", classes=2, iterations=3))
    np.testing.assert_allclose(np.rot90(both.target, 2, axes=(1, 2)), both.target, atol=1e-9)


def test_mirrored_copies_are_found_in_one_image():
    """Half of the copies are mirrored: the plain model averages half of them, the mirrored one all, and says which are."""
    target = glyphs(3, BOX, seed=4)[2]
    made = mtdcore.simulate(target, side=220, count=16, snr=1.0, mirror=True, seed=5)
    assert 4 <= made.mirrored.sum() <= 12
    plain, found = (
        mtdcore.recover(made.measurement, **options(mirror=mirror, initial=target))
        for mirror in (False, True)
    )
    errors = [mtdcore.relative_error(r.target, target, max_shift=3) for r in (plain, found)]
    assert errors[1] < 0.7 * errors[0]
    assert found.evidence > plain.evidence + 50
    assert abs(found.expected_count - 16) < 1
    from mtdcore.results.detections import detect
    from mtdcore.results.metrics import align

    for image in (found.target, found.target[:, ::-1]):  # either is an answer
        copies = detect(made.measurement, image, found.likelihood)
        posed = copies.in_frame_of(align(image, target, 4, 3, mirror=True))
        order = np.lexsort((posed.column, posed.row))
        truth = np.lexsort((made.positions[:, 2], made.positions[:, 1]))
        np.testing.assert_array_equal(posed.positions[order], made.positions[truth])
        mirrored = np.zeros(16, bool) if posed.mirrored is None else posed.mirrored
        np.testing.assert_array_equal(mirrored[order], made.mirrored[truth])
        np.testing.assert_array_equal(posed.rotation[order], made.rotation_indices[truth])
        assert {"mirrored"} <= set(copies.records()[0])
        assert set(copies.pick_columns()["rlnIsFlip"]) == {0, 1}


def test_a_target_that_is_its_own_mirror_image_tells_no_hands_apart():
    """Mirrored views of such a target are the plain ones twice: same evidence, same count, same statistics."""
    target = glyphs(3, BOX, seed=4)[2]
    target = target + target[:, ::-1]
    made = mtdcore.simulate(target, side=120, count=5, snr=0.5, seed=5)
    plain, both = (
        mtdcore.e_step(
            made.measurement,
            target,
            mtdcore.WindowLikelihood(views_of(4, BOX, 1, mirror=m), made.noise_std, expected_count=5.0),
            mtdcore.get_backend("cpu", "float64"),
        )
        for m in (False, True)
    )
    assert both.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-9)
    assert both.expected_count == pytest.approx(plain.expected_count, rel=1e-9)


@pytest.mark.parametrize("asked", ["D2", "C0", "4", "C", 4])
def test_other_symmetries_are_refused(asked):
    with pytest.raises(ParameterError, match='must be "C1", "C2"'):
        views_of(4, BOX, 1, asked)


def test_views_bring_their_own_symmetry():
    with pytest.raises(ParameterError, match="number of angles"):
        views_of(mtdcore.Rotations(4, BOX), BOX, 1, "C2")
    with pytest.raises(ParameterError, match="one image"):
        mtdcore.Mirrored(mtdcore.Classes(mtdcore.Rotations(4, BOX), 2))
    with pytest.raises(ParameterError, match="one image"):
        mtdcore.Mirrored(mtdcore.Projections(6, 10))
