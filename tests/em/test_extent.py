"""The size of an object in its box, and the minimum separation that follows from it."""

import numpy as np
import pytest

from mtdcore import WindowLikelihood, get_backend, recover, simulate
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.em.gauge.extent import closest_separation, diameter, spaced
from mtdcore.model.likelihood import PatchLikelihood

EXACT = get_backend("cpu", threads=1)
SIDE = 20


def disc(across, row=9.5, column=9.5, side=SIDE):
    """A disc with a bright rim, so that it is no blob."""
    pixels = np.arange(side)
    distance = np.hypot(pixels[:, None] - row, pixels - column)
    return np.where(distance <= across / 2, 0.5 + 2.0 * distance / across, 0.0)


@pytest.mark.parametrize("across", [6, 9, 13])
@pytest.mark.parametrize("place", [(9.5, 9.5), (8.0, 11.0)])
def test_diameter_of_a_disc_wherever_it_lies(across, place):
    assert diameter(disc(across, *place)) == pytest.approx(across, abs=1.2)


def test_noise_and_dark_fringes_do_not_count():
    rng = np.random.default_rng(0)
    image = disc(9) - 0.6 * (disc(15) > 0) * (disc(9) == 0) + 0.05 * rng.normal(size=(SIDE, SIDE))
    assert diameter(image) == pytest.approx(9, abs=1.2)


@pytest.mark.parametrize("image", [np.zeros((7, 7)), -np.ones((7, 7))])
def test_without_an_object_the_box_is_the_extent(image):
    assert diameter(image) == 7.0


def test_closest_separation_is_that_of_touching_discs_and_of_the_smallest_class():
    assert closest_separation(np.ones((10, 10))) == 7
    assert closest_separation(np.stack([disc(13), disc(6)])) == closest_separation(disc(6)) <= 6
    assert closest_separation(np.eye(3)[1:2].T @ np.eye(3)[1:2]) == 1


def test_only_the_window_model_is_spaced_and_only_when_something_changes():
    window = WindowLikelihood(SIDE, 1, 1.0, 5.0, closest_separation(disc(9)))
    assert spaced(window, disc(9)) is window
    assert spaced(window, disc(13)).separation > window.separation
    patch = PatchLikelihood(SIDE, 1, 1.0)
    assert spaced(patch, disc(9)) is patch


@pytest.fixture(scope="module")
def crowded():
    """Discs of 9 pixels in boxes of 20, nearly half of the densest packing."""
    return simulate(disc(9), side=160, count=90, min_separation=10, noise_std=1.2, rotations=1, seed=4)


def run(made, **options):
    return recover(
        made.measurement, box_size=SIDE, rotations=1, initial="blob", backend=EXACT, iterations=24, **options
    )


def test_crowded_copies_are_counted_when_the_separation_is_found(crowded):
    found = run(crowded, min_separation="auto")
    assert 5 <= found.likelihood.separation <= 10
    assert found.expected_count == pytest.approx(90, rel=0.1)
    boxes = run(crowded)
    assert boxes.likelihood.separation == SIDE
    assert boxes.expected_count < 60


def test_an_interrupted_run_finds_the_same_separation(crowded, tmp_path):
    states = []
    whole = run(crowded, min_separation="auto", callback=states.append)
    save_checkpoint(tmp_path / "c", states[2], {})
    again = run(crowded, min_separation="auto", state=load_checkpoint(tmp_path / "c", {}))
    assert again.likelihood.separation == whole.likelihood.separation
    assert np.array_equal(again.target, whole.target)


def test_a_run_does_not_rest_before_its_separation_has(crowded):
    """Converged before the first quarter: the separation is found there and then, and the run goes on with it."""
    still = recover(
        crowded.measurement,
        box_size=SIDE,
        rotations=1,
        initial=disc(9),
        min_separation="auto",
        tolerance=1e3,
        iterations=40,
        backend=EXACT,
    )
    assert still.likelihood.separation == closest_separation(still.target) != SIDE // 2
    assert 2 <= still.state.iteration < 10
    assert still.stopped == "tolerance"


def test_several_blobs_differ_in_width_and_one_is_the_middle_one(crowded):
    one = recover(
        crowded.measurement, box_size=SIDE, rotations=1, initial="blob", iterations=0, backend=EXACT
    )
    several = recover(
        crowded.measurement, box_size=SIDE, rotations=1, initial="blob", starts=3, iterations=0, backend=EXACT
    )
    images = [candidate.target for candidate in several.state.candidates]
    assert len(images) == 3
    assert np.array_equal(images[1], one.target)
    widths = [diameter(image) for image in images]
    assert widths[0] < widths[1] < widths[2]
