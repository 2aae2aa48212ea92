"""Starts of several kinds, races that are decided late, and results that other starts contradict."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from mtdcore import GaussianPrior, PatchLikelihood, get_backend, recover, relative_error, simulate
from mtdcore.em.gauge.agreement import agreement
from mtdcore.em.gauge.extent import diameter
from mtdcore.em.loop import settled
from mtdcore.em.state import Candidate, EMState
from mtdcore.em.temperature import Temperature
from mtdcore.errors import Doubt, ParameterError
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.rotations import Rotations
from mtdcore.mstep.support import soft_disc

CPU = get_backend("cpu", threads=1)
SIDE = 16
DISC = soft_disc((SIDE, SIDE), 6.0) * (1.0 + 0.5 * np.linspace(-1.0, 1.0, SIDE))


@pytest.fixture(scope="module")
def made():
    return simulate(DISC, side=130, count=60, min_separation=9, noise_std=0.7, rotations=1, seed=2)


def run(made, **options):
    defaults = {"box_size": SIDE, "rotations": 1, "iterations": 16, "backend": CPU, "tolerance": 0.0}
    return recover(made.measurement, **(defaults | options))


def starts_of(made, **options):
    return [c.target for c in run(made, iterations=0, **options).state.candidates]


@pytest.mark.parametrize(("starts", "left"), [(3, 3), (6, 6), (9, 6), (20, 6)])
def test_without_a_prior_a_few_starts_run_to_the_end(made, starts, left):
    states = []
    run(made, initial="blob", starts=starts, callback=states.append)
    racers = [len(state.candidates) for state in states]
    assert racers[:4] == [starts] * 4
    assert racers == sorted(racers, reverse=True)
    assert racers[8:] == [left] * 8


def test_with_a_prior_they_are_halved_early(made):
    states = []
    run(made, prior=GaussianPrior(DISC, 0.3), starts=4, callback=states.append)
    assert len(states[5].candidates) == 1


def test_with_a_prior_and_a_diameter_draws_race_with_the_other_kinds_and_none_is_annealed(made):
    states, prior = [], GaussianPrior(DISC, 0.3)
    run(made, prior=prior, diameter=8, callback=states.append)
    assert len(states[0].candidates) == 12
    assert len(states[-1].candidates) == 6
    assert states[0].history[0].temperature == 1.0
    others = starts_of(made, diameter=8)
    both = starts_of(made, prior=prior, diameter=8)
    assert all(np.array_equal(a, b) for a, b in zip(both, others, strict=False))
    draws = starts_of(made, prior=prior, diameter=8, initial="samples", starts=6, temperature=1.0)
    assert all(np.array_equal(a, b) for a, b in zip(both[6:], draws, strict=True))
    assert len(starts_of(made, prior=prior, diameter=8, starts=5)) == 5


def test_a_late_race_rests_when_all_do(made):
    found = run(made, initial="blob", starts=2, tolerance=1e-3, iterations=400)
    assert found.stopped == "tolerance"
    assert len(found.state.candidates) == 2


def test_blobs_reach_a_third_of_the_box(made):
    widest = starts_of(made, initial="blob", starts=5)[-1]
    row = widest[SIDE // 2] / widest.max()
    width = np.sqrt(-0.5 * 7.5**2 / np.log(row[0] / row[SIDE // 2 - 1]))
    assert width > SIDE / 4


def test_the_seed_changes_every_kind_of_start(made):
    for kind in ("blob", "several", "faint", "random", "uniform"):
        first, same, other = (starts_of(made, initial=kind, seed=seed) for seed in (0, 0, 1))
        assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_several_kinds_are_blobs_a_ring_and_faint_pixels(made):
    images = starts_of(made, initial="several")
    assert len(images) == 6
    middle, away = SIDE // 2, SIDE // 2 + 4
    assert all(image[middle, middle] > image[middle, away] for image in images[:3])
    assert images[3][middle, middle] < images[3][middle, away]


def test_agreement_forgives_rotations_and_shifts():
    views = Rotations(4, SIDE)
    assert agreement(DISC, np.rot90(np.roll(DISC, 2, axis=0)), views) == pytest.approx(1.0, abs=0.02)
    noise = np.random.default_rng(0).normal(size=DISC.shape)
    assert agreement(DISC, noise, views) < 0.5
    assert agreement(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), views) is None


def ended(first, second, nats, likelihood):
    schedule = Temperature(1.0, 0)
    candidates = Candidate(first, likelihood, 100.0), Candidate(second, likelihood, nats)
    return EMState(candidates, schedule, 5.0)


def test_rivals_with_about_as_much_evidence_must_show_the_same():
    noise = np.random.default_rng(0).normal(size=DISC.shape)
    window = WindowLikelihood(Rotations(4, SIDE), 1.0, 5.0)
    assert settled(ended(DISC, noise, 95.0, window)) is False
    assert settled(ended(DISC, noise, 50.0, window)) is None  # alone: nothing confirms it
    assert settled(ended(DISC, np.rot90(DISC), 95.0, window)) is True
    assert settled(ended(DISC, noise, 95.0, PatchLikelihood(Rotations(4, SIDE), 1.0))) is None
    alone = ended(DISC, DISC, 1.0, window)
    assert settled(replace(alone, candidates=alone.candidates[:1])) is None


def test_the_diameter_cuts_the_target_sets_separation_and_starts(made):
    found = run(made, diameter=8, iterations=20)
    assert found.likelihood.separation == 5
    outside = np.hypot(*np.meshgrid(*2 * [np.arange(SIDE) - 7.5])) > 4 + 2
    assert all(c.target[outside].max() <= 1e-12 for c in found.state.candidates)  # a dark fringe at most
    assert diameter(found.target) <= 10
    assert found.expected_count == pytest.approx(60, rel=0.15)
    assert run(made, diameter=8, min_separation=7, iterations=0).likelihood.separation == 7
    assert found.settled is not False


@pytest.mark.parametrize("across", [0, 17, "8"])
def test_a_diameter_that_is_none_is_refused(made, across):
    with pytest.raises(
        ParameterError, match="diameter must be a number of pixels from 1 to the box size, 16"
    ):
        run(made, diameter=across)


def test_what_is_not_settled_is_said(made, monkeypatch):
    monkeypatch.setattr("mtdcore.em.gauge.agreement.ALIKE", 1.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(made, diameter=8, iterations=12)
    assert found.settled is False
    assert found.summary()["settled"] is False
    assert any("not settled" in str(w.message) for w in caught if issubclass(w.category, Doubt))


def test_a_blob_becomes_a_target_that_looks_different_at_each_angle():
    """One that looks the same at all would stay so: every copy is then as likely at any of them."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - 7.5
    bar = np.exp(-0.5 * ((rows / 1.2) ** 2 + ((columns - 1) / 3.5) ** 2))
    spot = 0.8 * np.exp(-0.5 * (((rows + 3) / 1.3) ** 2 + ((columns - 3) / 1.3) ** 2))
    made = simulate(bar + spot, side=150, count=20, snr=1.0, rotations=4, separation=1, seed=3)
    found = run(made, rotations=4, initial="blob", diameter=14, iterations=40)
    assert relative_error(found.target, bar + spot, max_shift=2) < 0.25
