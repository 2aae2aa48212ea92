"""Copies between pixels: found on whole pixels, scored at half pixels, placed by a parabola."""

from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data import ArrayMeasurement
from mtdcore.em.plan.beginning import views_of
from mtdcore.em.plan.defaults import coarse_views
from mtdcore.errors import ParameterError
from mtdcore.model.poses import Poses, on_whole_pixels
from mtdcore.model.shifts import moved, shift_matrices, translate
from mtdcore.results.detections import detect
from mtdcore.results.detections.places import Places
from mtdcore.results.matching import match
from mtdcore.results.metrics import align
from mtdcore.synthetic.glyphs import glyphs

BOX, COPIES = 20, 12


@pytest.fixture(scope="module")
def target():
    return glyphs(4, BOX, seed=1)[3].astype(float)


@pytest.fixture(scope="module")
def between(target):
    """Twelve copies anywhere between pixels."""
    return mtd.simulate(target, side=240, count=COPIES, snr=1.0, subpixel=True, seed=2)


def likelihood(made, **options):
    views = views_of(4, BOX, 1, **options)
    return mtd.WindowLikelihood(views, made.noise_std, float(COPIES))


def recovered(made, target, **options):
    more = {"box_size": BOX, "initial": target, "iterations": 30, "backend": "cpu", **options}
    return mtd.recover(made.measurement, **more)


def test_matrices_shift_as_phases_do(target):
    """The Toeplitz matrices are the band-limited shift of the gauge, and move a wave by its phase."""
    offsets = np.array([[0.0, 0.0], [0.3, -0.45], [-1.5, 2.0]])
    found = moved(np.repeat(target[None], 3, axis=0), offsets)
    for image, (down, right) in zip(found, offsets, strict=True):
        np.testing.assert_allclose(image, translate(target, (down, right)), atol=2e-2)
    np.testing.assert_allclose(found[0], target, atol=1e-12)
    whole = shift_matrices(6, np.array([2.0, -1.0]))
    np.testing.assert_allclose(whole[0], np.eye(6, k=-2), atol=1e-12)
    np.testing.assert_allclose(whole[1], np.eye(6, k=1), atol=1e-12)


def test_poses_name_the_templates():
    views = mtd.Classes(mtd.Shifted(mtd.Mirrored(mtd.Rotations(3, BOX))), 2)
    poses = Poses.of(views)
    t = ((1 * 2 + 1) * 3 + 2) * 4 + 3  # class 1, mirrored, rotation 2, down and right
    assert (poses.class_index[t], poses.mirrored[t], poses.rotation[t]) == (1, True, 2)
    np.testing.assert_array_equal(poses.offset[t], [0.5, 0.5])
    assert (len(poses.rotation), poses.rotations) == (views.count, 3)
    whole = on_whole_pixels(views)
    assert whole == mtd.Classes(mtd.Mirrored(mtd.Rotations(3, BOX)), 2)
    image = np.random.default_rng(0).normal(size=views.target_shape)
    np.testing.assert_allclose(views.apply(image)[poses.whole], whole.apply(image), atol=1e-12)


def test_truth_lies_between_pixels(target, between):
    """Same places as without, to less than half a pixel; a copy is the band-limited target there; same bits in tiles."""
    whole = mtd.simulate(target, side=240, count=COPIES, snr=1.0, seed=2)
    apart = between.positions - whole.positions
    assert (apart[:, 0] == 0).all()
    assert (np.abs(apart[:, 1:]) <= 0.5).all()
    assert np.abs(apart[:, 1:]).max() > 0.3
    clean = mtd.simulate(
        target, side=240, count=1, noise_std=0.0, subpixel=True, rotations=1, seed=7, dtype="float64"
    )
    _, row, column = clean.positions[0]
    i, j = round(row), round(column)
    seen = clean.measurement.array[0, i : i + BOX, j : j + BOX]
    np.testing.assert_allclose(seen, moved(target[None], np.array([[row - i, column - j]]))[0], atol=1e-12)


def test_the_sub_pixel_posterior_explains_more(target, between):
    """At the true target the evidence gains what whole pixels miss, and places keep whole-pixel data as they are."""
    whole, half = (
        mtd.e_step(
            between.measurement, target, likelihood(between, subpixel=s), "cpu", coarse=4 if s else None
        )
        for s in (False, True)
    )
    assert half.log_likelihood > whole.log_likelihood + 15 * COPIES
    assert half.expected_count == pytest.approx(COPIES, abs=0.01)
    plain = mtd.simulate(target, side=240, count=COPIES, snr=1.0, seed=2)
    found = [
        mtd.e_step(plain.measurement, target, likelihood(plain, subpixel=s), "cpu", coarse=4 if s else None)
        for s in (False, True)
    ]
    # log 4 nats for each copy, as whole pixels are a quarter of the places; around it corners gain what the half pixels towards it have
    loss = found[0].log_likelihood - found[1].log_likelihood
    assert abs(loss) < 3 * COPIES * np.log(4)
    np.testing.assert_allclose(found[1].right, found[0].right, atol=0.05 * np.abs(found[0].right).max())


def test_places_are_enough(target, between):
    """Scoring half pixels only where a copy may be gives the sums of scoring them everywhere."""
    model = likelihood(between, subpixel=True)
    count = coarse_views("auto", model.views)
    assert count == 4
    inner = mtd.get_backend("cpu", "float64", threads=1)
    every, local = (mtd.e_step(between.measurement, target, model, inner, coarse=c) for c in (None, count))
    assert local.log_likelihood == pytest.approx(
        every.log_likelihood, rel=0.02
    )  # beside a copy nothing is refined
    assert local.expected_count == pytest.approx(every.expected_count, rel=1e-6)
    np.testing.assert_allclose(local.right, every.right, atol=2e-3 * np.abs(every.right).max())


def test_without_places_whole_pixels_are_scored(target, between):
    """A faint target has no places: its statistics are those of the plain model, and no pose is scored twice."""
    faint, plain = 0.02 * target, likelihood(between)
    model = likelihood(between, subpixel=True)
    inner = Halves(mtd.get_backend("cpu", "float64", threads=1))
    found = mtd.e_step(between.measurement, faint, model, inner, coarse=4)
    expected = mtd.e_step(between.measurement, faint, plain, inner.inner)
    assert inner.called == ["log_odds", "project"]
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-9)
    np.testing.assert_allclose(found.right, expected.right, rtol=1e-9, atol=1e-9)
    masked = between.measurement.array.copy()
    masked[:, 40:60] = np.nan
    source = ArrayMeasurement(masked, mask=np.isfinite(masked))
    holes, whole = (
        mtd.e_step(source, faint, replace(m, margin=2, amplitude_std=0.3), inner, coarse=c)
        for m, c in ((model, 4), (plain, None))
    )
    np.testing.assert_allclose(holes.right, whole.right, rtol=1e-9, atol=1e-9)
    assert holes.amplitude_squares == pytest.approx(whole.amplitude_squares, rel=1e-9)


def test_with_more_angles_than_coarse_ones_whole_pixels_are_scored(target, between):
    """The coarse angles are a part of the templates on whole pixels: without places all of these are scored."""
    faint, angles = 0.02 * target, mtd.Rotations(16, BOX)
    model = replace(likelihood(between), views=mtd.Shifted(angles))
    inner = mtd.get_backend("cpu", "float64", threads=1)
    found = mtd.e_step(between.measurement, faint, model, inner, coarse=8)
    expected = mtd.e_step(between.measurement, faint, replace(model, views=angles), inner)
    np.testing.assert_allclose(found.right, expected.right, rtol=1e-9, atol=1e-9)


class Halves:
    """A backend that records the passes over the tiles of local search."""

    def __init__(self, inner):
        self.inner, self.called = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def alone(self):
        return self

    def accumulate(self, tiles, templates, likelihood):
        tiles = list(tiles)
        self.called += ["accumulate"] * len(tiles)
        return self.inner.accumulate(tiles, templates, likelihood)

    def log_odds(self, *arguments):
        self.called.append("log_odds")
        return self.inner.log_odds(*arguments)

    def project(self, *arguments):
        self.called.append("project")
        return self.inner.project(*arguments)


def test_the_estimate_is_sharper(target, between):
    """At uniform places the whole-pixel model blurs its target by up to half a pixel."""
    whole, half = (recovered(between, target, subpixel=s) for s in (False, True))
    errors = [mtd.relative_error(r.target, target, 4, 4, fractions=True) for r in (whole, half)]
    floor = (
        between.noise_std**2 * BOX**2 / COPIES / np.square(target).sum()
    )  # of an average of the copies where they are
    assert errors[1] ** 2 - floor < 0.4 * (errors[0] ** 2 - floor)
    assert half.evidence > whole.evidence + 10 * COPIES
    assert half.noise_std < whole.noise_std


@pytest.mark.parametrize("options", [{}, {"mirror": True}, {"classes": 2}])
def test_copies_are_found_between_pixels(target, options):
    made = mtd.simulate(
        target, side=240, count=COPIES, snr=1.0, subpixel=True, mirror="mirror" in options, seed=2
    )
    start = np.stack([target, target[::-1]]) if "classes" in options else target
    found = recovered(made, start, subpixel=True, iterations=10, **options)
    image = found.target[0] if "classes" in options else found.target
    copies = detect(made.measurement, found.target, found.likelihood)
    posed = copies.in_frame_of(align(image, target, 4, 4, "mirror" in options, fractions=True))
    pairs = match(posed, made.positions, 1.0).pairs
    assert len(pairs) == len(copies) == COPIES
    apart = posed.positions[pairs[:, 0], 1:] - made.positions[pairs[:, 1], 1:]
    assert np.sqrt(np.square(apart).sum(axis=1).mean()) < 0.15
    assert copies.row.dtype == np.float64
    if "mirror" in options:
        np.testing.assert_array_equal(posed.mirrored[pairs[:, 0]], made.mirrored[pairs[:, 1]])


def test_tables_tell_thousandths_of_a_pixel(target, between, tmp_path):
    found = detect(between.measurement, target, likelihood(between, subpixel=True))
    record = found.records()[0]
    assert record["row"] == round(float(found.row[0]), 3)
    found.to_csv(tmp_path / "copies.csv")
    first = (tmp_path / "copies.csv").read_text().splitlines()[1].split(",")
    assert first[1] == f"{found.row[0]:.3f}"
    assert found.pick_columns()["rlnCoordinateY"][0] == f"{found.row[0] + BOX // 2:.6f}"
    whole = detect(between.measurement, target, likelihood(between))
    assert whole.row.dtype == np.int64


def test_a_place_is_the_top_of_the_likelihood(target):
    places = Places(np.stack([target[::-1], target]))
    for offset in ([0.0, 0.0], [0.2, -0.35], [0.5, 0.25], [-0.9, 0.8]):
        window = moved(target[None], np.array([offset]))[0]
        assert places(window, None, 1) == pytest.approx(offset, abs=0.05)
        valid = np.ones((BOX, BOX), bool)
        valid[:5] = False
        assert places(np.where(valid, window, np.nan), valid, 1) == pytest.approx(offset, abs=0.1)


def test_the_patch_likelihood_knows_no_places(target, between):
    with pytest.raises(ParameterError, match="window likelihood"):
        recovered(between, target, subpixel=True, likelihood="patch")
