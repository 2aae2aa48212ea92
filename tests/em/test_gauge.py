"""The frame of a target: orientation by the prior, position by the prior or by the likelihood."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.em.checks.doubts import undoubted
from mtdcore.em.gauge.centre import BetweenPixels, CentreGauge, centred
from mtdcore.em.gauge.energy import EnergyGauge
from mtdcore.em.gauge.frames import centre_of_mass
from mtdcore.em.gauge.prior import PriorGauge
from mtdcore.em.gauge.seen import Seen
from mtdcore.model.rotations import disc, rotate
from mtdcore.model.shifts import translate
from mtdcore.results.metrics import align

BOX = 16


def shape():
    """Smooth enough to turn without ringing, and unlike itself at any other angle; centred on the box."""
    rows, columns = np.mgrid[:BOX, :BOX] - (BOX - 1) / 2
    long = np.exp(-0.5 * ((rows / 1.3) ** 2 + (columns / 4) ** 2))
    spot = 0.8 * np.exp(-0.5 * (((rows + 3) / 1.2) ** 2 + ((columns - 2) / 1.2) ** 2))
    image = long + spot - 0.8 * np.exp(-0.5 * (((rows - 3) / 1.2) ** 2 + ((columns + 2) / 1.2) ** 2))
    return image * disc(BOX)


@dataclass(frozen=True)
class OneImage:
    """A prior that knows one image, give or take a little white noise."""

    image: np.ndarray
    std: float = 0.05

    def score(self, images, noise_std):
        return (self.image - images) / (self.std**2 + noise_std**2)


def average_of(image, level, margin=3, seed=0):
    frame = np.pad(image, margin)
    return frame + level * np.random.default_rng(seed).standard_normal(frame.shape)


@pytest.mark.parametrize("degrees", [0.0, 37.0, 143.0, 250.0])
def test_free_angles_are_found_to_a_degree_or_two(degrees):
    truth = shape()
    turned = rotate(truth, [math.radians(degrees)])[0]
    gauge = PriorGauge(OneImage(truth), 72, centre_of_mass(truth))
    found = gauge.choose(turned, Seen.of_average(average_of(turned, 0.1), 0.1))
    assert np.linalg.norm(found - truth) < 0.12 * np.linalg.norm(truth)


@pytest.mark.parametrize("turns", range(4))
def test_right_angles_stay_exact(turns):
    truth = shape()
    turned = np.rot90(truth, turns)
    found = PriorGauge(OneImage(truth), 4, centre_of_mass(truth)).choose(
        turned, Seen.of_average(average_of(turned, 0.05), 0.05)
    )
    assert np.allclose(found, truth, atol=1e-12)


def test_a_frame_without_reason_to_move_is_kept():
    """Nothing is turned for less than the noise of the bound: a round image is as likely at any angle."""
    rows, columns = np.mgrid[:BOX, :BOX] - (BOX - 1) / 2
    round_ = np.exp(-0.5 * (rows**2 + columns**2) / 9) * disc(BOX)
    gauge = PriorGauge(OneImage(round_), 72, ((BOX - 1) / 2, (BOX - 1) / 2))
    assert np.array_equal(gauge.choose(round_, Seen.of_average(average_of(round_, 0.02), 0.02)), round_)


def test_large_slips_are_the_priors_business_also_at_free_angles():
    truth = shape()
    gauge = PriorGauge(OneImage(truth), 72, centre_of_mass(truth))
    slipped = translate(truth, (0.0, 4.0))
    frame = translate(np.pad(truth, 6), (0.0, 4.0))
    found = gauge.choose(slipped, Seen.of_average(frame, 0.05))
    assert np.linalg.norm(found - truth) < 0.5 * np.linalg.norm(truth) < np.linalg.norm(slipped - truth)
    assert np.allclose(centre_of_mass(found), centre_of_mass(truth), atol=1.0)


@pytest.mark.parametrize(("share", "turned"), [(0.999, True), (1.001, False)])
def test_a_frame_pays_for_what_it_cuts_off(share, turned):
    """Half the energy over the variance of the average, against the 3 nats of a turn; the prior finds all frames alike."""
    image = np.zeros((8, 8))
    image[3:5, 1:3], image[3, 0] = 10.0, 0.5  # upright, the faint pixel is left of the box
    gauge = PriorGauge(OneImage(np.zeros((8, 8)), std=1e6), 4, (3.5, 0.5))
    level = share * 0.5 / math.sqrt(2 * 3)
    found = gauge.choose(image, Seen.of_average(np.pad(image, 3), level))
    assert found.sum() == pytest.approx(40.5 if turned else 40.0)


class Asked:
    """A gauge that keeps every frame, and when it was asked: after how many iterations, at what level."""

    def __init__(self):
        self.states, self.when, self.levels = [], [], []

    def choose(self, target, seen):
        self.when.append(len(self.states))
        self.levels.append(seen.level)
        return target


@pytest.mark.parametrize(
    ("options", "when"),
    [
        ({}, [2, 4, 6]),
        ({"tolerance": 1e9}, [0]),
        ({"tolerance": 1e9, "temperature": 2.0, "iterations": 5}, [1, 2, 3]),
        ({"tolerance": 1e9, "temperature": 1.0, "starts": 3, "initial": "uniform"}, [1]),
    ],
    ids=["quarters", "at rest", "not while it is hot", "not in the race"],
)
def test_the_gauge_is_asked_at_each_quarter_and_at_rest(options, when):
    gauge, side = Asked(), 5
    target = np.random.default_rng(0).uniform(0, 4, size=(side, side))
    made = mtd.simulate(target, side=55, density=0.1, snr=5.0)
    fixed = {"box_size": side, "noise_std": made.noise_std, "prior": mtd.GaussianPrior(2.0, 1.5)}
    fixed |= {"iterations": 8, "tolerance": 0.0, "initial": target, "gauge": gauge}
    mtd.recover(made.measurement, **(fixed | options), callback=gauge.states.append)
    assert gauge.when == when


@pytest.mark.parametrize("classes", [1, 2])
def test_the_margin_does_not_count_in_the_level_of_the_average(exact, classes):
    """That of each class is the noise of what its own box saw."""
    gauge = Asked()
    targets = np.random.default_rng(0).uniform(0, 4, size=(2, 5, 5))[:classes]
    made = mtd.simulate(targets[0], side=62, density=0.1, snr=5.0)
    pixels = np.array(made.measurement.array)
    unseen = np.random.default_rng(1).uniform(size=pixels.shape) < 0.5
    pixels[unseen] = np.nan  # some pixels of the target are seen more often than others
    found = mtd.recover(
        pixels, box_size=5, noise_std=made.noise_std, likelihood="window", classes=classes, gauge=gauge,
        iterations=1, tolerance=1e9, backend=exact, initial=targets if classes > 1 else targets[0], prior=mtd.GaussianPrior(2.0, 1.5),
    )  # fmt: skip
    bounds = [found.statistics.of_class(c).normal.bound for c in range(classes)]
    assert gauge.levels == pytest.approx([found.noise_std / math.sqrt(bound) for bound in bounds])


@pytest.mark.parametrize("shift", [(4, 0), (-5, 3), (0, 6)])
def test_without_a_prior_what_is_bright_goes_to_the_middle(shift):
    """The lower left of a wide box is cut off; the rest comes to the middle, in noise and with a dark fringe around it."""
    image = np.pad(np.clip(shape(), 0, None), 4) - 0.1 + 0.05 * np.random.default_rng(0).normal(size=(24, 24))
    moved = CentreGauge().choose(np.roll(image, shift, axis=(0, 1)), Seen.of_average(np.zeros((40, 40)), 1.0))
    assert align(moved, image, 1, 8).shift == pytest.approx((0, 0), abs=1)
    assert np.count_nonzero(moved) < moved.size  # zeros came in


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shift", [(4, 0), (-5, 3), (0, 0)])
def test_the_frame_that_holds_most_energy_is_chosen(shift, sign):
    """What was cut off comes back from the average, dark or bright."""
    truth = sign * np.pad(shape(), 4)
    level = 0.05
    wide = np.pad(truth, 6) + level * np.random.default_rng(1).normal(size=(36, 36))
    seen = np.roll(wide, shift, axis=(0, 1))
    framed = EnergyGauge().choose(seen[6:-6, 6:-6].copy(), Seen.of_average(seen, level))
    again = EnergyGauge().choose(
        framed, Seen.of_average(np.roll(seen, (-shift[0], -shift[1]), axis=(0, 1)), level)
    )
    straight = EnergyGauge().choose(wide[6:-6, 6:-6].copy(), Seen.of_average(wide, level))
    assert np.array_equal(framed, straight)
    assert np.allclose(centre_of_mass(np.abs(framed)), centre_of_mass(np.abs(again)), atol=1.5)


def tadpole(side):
    """A heavy head and a thin tail: what is bright is far from the middle of what there is. As long as its box is wide, centred."""
    image = np.zeros((side, side))
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    image[np.hypot(rows, columns + side / 2 - 3.5) < 3] = 1.0
    image[side // 2 - 1 : side // 2 + 1, 5 : side - 1] = 1.0
    image[side // 2 - 4 : side // 2, side - 3 : side - 1] = 1.0
    return image


@pytest.mark.parametrize("shift", [(4, 0), (-5, 3), (0, 4)])
def test_where_copies_turn_the_frame_counts_by_what_its_disc_holds(shift):
    """Its corners turn out of the box: what is seen there is not taken over."""
    truth = np.pad(tadpole(18), 1)
    wide = np.pad(truth + 0.05 * ~disc(20), 6)
    seen = np.roll(wide, shift, axis=(0, 1))
    gauge, level = EnergyGauge(turning=True), 0.1
    framed = gauge.choose(seen[6:-6, 6:-6] * disc(20), Seen.of_average(seen, level))
    straight = gauge.choose(wide[6:-6, 6:-6] * disc(20), Seen.of_average(wide, level))
    assert np.array_equal(framed, straight)
    assert not framed[~disc(20)].any()
    assert (truth * disc(20)).sum() == truth.sum()  # it fits
    assert framed.sum() > 0.98 * truth.sum()


def test_without_a_prior_copies_at_any_angle_are_recovered_whole():
    """From a start at the rim of the disc, which cuts it; EM alone stays there. Where no copy shows anything there is nothing."""
    truth = np.pad(tadpole(18), 2)
    made = mtd.simulate(
        truth, shape=(200, 200), count=16, snr=2.0, rotations="continuous", separation=1.0, seed=1
    )
    options = {"box_size": 22, "rotations": 24, "noise_std": made.noise_std, "coarse_rotations": 12}
    options |= {"initial": np.roll(truth, 6, axis=1), "temperature": 1.0, "iterations": 24}
    cut, whole = (mtd.recover(made.measurement, gauge=gauge, **options) for gauge in (None, "auto"))
    errors = [align(found.target, truth, rotations=360, max_shift=7).error for found in (cut, whole)]
    assert errors[1] < 0.3 < 0.4 < errors[0], errors
    assert not cut.target[~disc(22)].any()
    assert not whole.target[~disc(22)].any()
    assert whole.passes < 40


def test_a_target_that_rests_is_framed_once():
    """While another start is still on its way."""
    gauge, truth = Asked(), np.pad(tadpole(18), 1)
    made = mtd.simulate(truth, shape=(120, 120), count=6, snr=0.3, rotations=4, seed=1)
    starts = np.stack([truth, 0.1 * np.random.default_rng(1).uniform(size=truth.shape)])
    options = {"temperature": 1.0, "iterations": 40, "tolerance": 1e-3, "offset": 0.0, "noise": "white"}
    with undoubted():
        state = mtd.recover(
            made.measurement, box_size=20, rotations=4, noise_std=made.noise_std, initial=starts, gauge=gauge,
            callback=gauge.states.append, **options,
        ).state  # fmt: skip
    first, second = gauge.when
    assert first + 2 < second < 10
    assert [candidate.framed for candidate in state.candidates] == [True, True]


def test_noise_alone_moves_no_frame_by_what_it_holds():
    image = np.zeros((12, 12))
    assert EnergyGauge().choose(image, Seen.of_average(np.zeros((20, 20)), 1.0)) is image


def test_without_a_prior_what_is_nearly_in_the_middle_stays():
    image = np.roll(np.clip(shape(), 0, None), (1, -2), axis=(0, 1))
    assert CentreGauge().choose(image, Seen.of_average(np.zeros((24, 24)), 1.0)) is image
    assert np.array_equal(
        CentreGauge().choose(np.zeros((8, 8)), Seen.of_average(np.zeros((12, 12)), 1.0)), np.zeros((8, 8))
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.75, -0.5), (-1.0, 1.25), (2.0, 0.0)])
def test_centred_undoes_a_shift(shift):
    truth = shape()
    found = centred(translate(truth, shift), lambda image: -1e3 * float(np.square(image - truth).sum()))
    assert np.linalg.norm(found - truth) < 0.1 * np.linalg.norm(truth)


def test_centred_leaves_what_gains_nothing():
    image = shape()
    assert centred(image, lambda image: 0.0) is image


def test_translate():
    image = np.zeros((8, 8))
    image[2:4, 3:5] = 1.0
    assert np.allclose(translate(image, (2.0, -1.0)), np.roll(image, (2, -1), axis=(0, 1)), atol=1e-12)
    smooth = shape()
    there_and_back = translate(translate(smooth, (0.5, 0.25)), (-0.5, -0.25))
    assert np.abs(there_and_back - smooth).max() < 0.02


def test_recover_centres_copies_at_any_angle():
    """From a start off the axis of rotation; EM alone stays there."""
    truth = shape()
    made = mtd.simulate(
        truth, shape=(140, 140), count=10, snr=4.0, rotations="continuous", separation=1.3, seed=1
    )
    prior = mtd.GaussianPrior(truth, 0.3)
    off = translate(made.target, (2.0, -2.0))
    options = {
        "box_size": BOX,
        "rotations": 36,
        "noise_std": made.noise_std,
        "initial": off,
        "iterations": 12,
    }
    errors = [
        align(
            mtd.recover(made.measurement, prior=prior, gauge=gauge, coarse_rotations=18, **options).target,
            made.target,
            rotations=360,
            max_shift=0,
        ).error
        for gauge in (None, PriorGauge(prior, 36, centre_of_mass(truth)))
    ]
    assert errors[1] < 0.2 < errors[0], errors


@dataclass(frozen=True)
class Unmoved:
    """A gauge that leaves a target as it is."""

    def choose(self, target, seen):
        return target


def off_middle(row, column):
    rows, columns = np.mgrid[:BOX, :BOX] - (BOX - 1) / 2
    return np.exp(-0.5 * (((rows - row) / 2) ** 2 + ((columns - column) / 2) ** 2))


@pytest.mark.parametrize("off", [(0.4, -0.3), (-0.45, 0.0), (0.0, 0.2)])
def test_a_fraction_of_a_pixel_is_moved_back_to_the_middle(off):
    found = BetweenPixels(Unmoved()).choose(off_middle(*off), Seen.of_average(np.zeros((BOX, BOX)), 0.1))
    assert np.allclose(found, off_middle(0, 0), atol=0.02)


@pytest.mark.parametrize("off", [(0.05, -0.05), (2.0, 0.3)])
def test_what_is_in_the_middle_or_far_from_it_stays(off):
    image = off_middle(*off)
    assert BetweenPixels(Unmoved()).choose(image, Seen.of_average(np.zeros((BOX, BOX)), 0.1)) is image


def test_the_target_is_centred_by_copies_that_are_seen():
    """A first micrograph without valid pixels tells nothing of where the target sits."""
    truth = np.zeros((12, 12))
    truth[3:9, 4:7] = truth[3:5, 4:9] = 1.0
    made = mtd.simulate(truth, side=560, count=230, snr=2.0, rotations=8, seed=1)
    pixels = np.asarray(made.measurement)
    found = mtd.recover(
        np.concatenate([np.full_like(pixels, np.nan), pixels]),
        box_size=12,
        rotations=8,
        diameter=9,
        noise_std=made.noise_std,
        initial=translate(truth, (1.0, 1.0)),
        temperature=1.0,
        iterations=4,
        backend="cpu",
    )
    assert np.linalg.norm(found.target - truth) < 0.1 * np.linalg.norm(truth)
