"""The questions of a verdict: which answers support a result, what is asked next, and what stops it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mtdcore import GaussianPrior, datasets, get_backend, recover, simulate
from mtdcore.em.checks.doubts import undoubted
from mtdcore.em.gauge.agreement import unrivalled
from mtdcore.model.rotations import Rotations
from mtdcore.results.halves import at_target, held_out_evidence, pooled_evidence
from mtdcore.results.nulls import null_measurement
from mtdcore.results.verdict import HELD_OUT, Claim, ImageTrials, Verdict, asked, judge

CPU = get_backend("cpu", threads=1)
GLYPH = datasets.glyphs(1, 12)[0]
OPTIONS = {"box_size": 12, "iterations": 25, "starts": 1, "backend": CPU}

#: All questions answered in favour of 500 nats.
CLEAR = Verdict(500.0, (1.0, 3.0, 2.0, 4.0), (5.0, 9.0, 7.0, 8.0), (200.0, -40.0), True, 480.0)


def test_a_result_is_supported_only_if_all_say_so():
    assert CLEAR.supported is True
    assert CLEAR.sentence == "structure supported by the data"
    assert [check.name for check in CLEAR.checks] == ["evidence", "white", "phases", "held_out", "settled"]
    assert all(check.passed for check in CLEAR.checks)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"evidence": 12.0}, "not distinguishable from noise"),
        ({"white": (1.0, 3.0, 501.0)}, "not distinguishable from noise"),
        ({"phases": (5.0, 9.0, 501.0)}, "not distinguishable from noise of this spectrum"),
        ({"phases": (400.0, 440.0, 420.0, 430.0)}, "not distinguishable from noise of this spectrum"),
        ({"held_out": (-3.0, 2.0)}, "not distinguishable from noise: held-out data do not confirm it"),
        ({"settled": False}, "not settled: another start ends at another image"),
        ({"white": (600.0, 1.0), "phases": (700.0, 1.0)}, "not distinguishable from noise"),
        (
            {"phases": (600.0, 1.0), "settled": False},
            "not distinguishable from noise of this spectrum; not settled: another start ends at another image",
        ),
    ],
)
def test_one_answer_against_it_is_enough_and_is_named(change, sentence):
    found = replace(CLEAR, **change)
    assert found.supported is False
    assert found.sentence == sentence


@pytest.mark.parametrize(
    "missing", [{"white": ()}, {"phases": (5.0,)}, {"held_out": None}, {"settled": None}]
)
def test_there_is_no_verdict_before_all_have_been_asked(missing):
    found = replace(CLEAR, **missing)
    assert found.supported is None
    assert found.sentence == "no verdict yet"
    assert found.due(8) is not None


def test_a_prior_without_which_held_out_data_are_told_more_is_named():
    aided = replace(CLEAR, aided=True)
    assert aided.supported is None
    assert aided.due(8) == "unaided"
    assert replace(aided, unaided=(190.0, -40.0)).supported is True
    misled = replace(aided, unaided=(300.0, -40.0))
    assert misled.supported is False
    assert misled.refuted
    assert misled.sentence == "misled by the prior: without it, one half of the data tells more of the other"
    # a few nats, or a small share of many, are the price of any prior
    assert replace(aided, unaided=(206.0, -40.0)).supported is True
    many = replace(aided, held_out=(60_000.0, 59_000.0))
    assert replace(many, unaided=(60_400.0, 59_000.0)).supported is True
    assert replace(many, unaided=(70_000.0, 59_000.0)).supported is False


def test_questions_come_in_the_order_of_their_cost_and_nulls_alternate():
    found, order = Verdict(500.0), []
    answers = {"phases": (90.0, 99.0, 95.0, 97.0), "white": (1.0, 150.0, 2.0, 160.0, 3.0, 4.0)}
    while (question := found.due(6)) is not None:
        order.append(question)
        match question:
            case "held_out":
                found = replace(found, held_out=(30.0, 40.0))
            case "other_start":
                found = replace(found, settled=True, rival=450.0)
            case kind:
                done = found.nulls(kind)
                found = replace(found, **{kind: (*done, answers[kind][len(done)])})
    assert order[:4] == ["phases", "white", "held_out", "other_start"]
    # Four runs with random phases are clear; the white ones differ too much for four to do.
    assert order.count("phases") == 4
    assert order.count("white") == 6


def test_four_null_runs_are_not_enough_where_starts_decide_how_much_is_found():
    assert CLEAR.due(8) is None
    assert replace(CLEAR, rival=200.0).due(8) in ("white", "phases")
    assert replace(CLEAR, rival=200.0).due(4) is None


def test_four_null_runs_that_happen_to_agree_are_not_enough_for_evidence_near_their_limit():
    near = replace(CLEAR, evidence=30.0, rival=30.0, phases=(12.4, 11.0, 12.6, 14.0))
    assert near.supported is True
    assert near.due(8) in ("white", "phases")
    assert replace(near, white=(1.0,) * 8).due(8) == "phases"
    assert near.due(4) is None
    assert replace(near, phases=(12.4, 11.0, 12.6, 14.0, 22.0, 16.0, 5.0, 24.0)).supported is False


def test_nothing_more_is_asked_when_nothing_can_change_the_verdict():
    assert Verdict(14.0).due(8) is None
    assert Verdict(500.0, settled=False).due(8) is None
    reached = Verdict(500.0, phases=(501.0,))
    assert reached.due(8) is None
    assert reached.refuted
    assert Verdict(500.0, (1.0,), (1.0,), (HELD_OUT - 1, HELD_OUT - 1)).due(8) is None
    assert reached.due(8, complete=True) == "white"
    assert CLEAR.due(8) is None
    assert CLEAR.due(8, complete=True) in ("white", "phases")


def test_a_null_run_that_reaches_the_evidence_refutes_it_whatever_follows():
    """The limit is never below a null run, so that stopping there changes no verdict."""
    rng = np.random.default_rng(0)
    for runs in (2, 8, 100):
        nulls = np.append(rng.normal(0.0, 0.1, runs), 500.0)
        assert Verdict(500.0, tuple(nulls)).checks[1].passed is False
        assert Verdict(500.0, tuple(nulls)).limit("white") >= 500.0


def test_a_verdict_says_no_more_than_its_null_runs_allow():
    assert CLEAR.least_rate == 1 / 5
    assert not CLEAR.powerless
    bimodal = replace(CLEAR, white=(0.7, 480.0, 0.7, 470.0), evidence=520.0)
    assert bimodal.supported is False
    assert bimodal.powerless
    assert not replace(bimodal, white=(521.0, 1.0)).powerless


def test_one_half_that_tells_the_other_is_enough():
    assert pooled_evidence((100.0, -50.0)) == pytest.approx(100.0 - math.log(2.0))
    assert pooled_evidence((3.0, 3.0)) == pytest.approx(3.0)


def test_images_are_compared_with_rivals_only():
    views, other = Rotations(4, 12), np.random.default_rng(1).normal(size=(12, 12))
    assert unrivalled(GLYPH, 100.0, [(other, 80.0)], views)
    assert not unrivalled(GLYPH, 100.0, [(other, 95.0)], views)
    assert not unrivalled(GLYPH, 100.0, [(other, 300.0)], views)
    assert unrivalled(GLYPH, 100.0, [(np.rot90(GLYPH), 95.0)], views)


@pytest.fixture(scope="module")
def made():
    return simulate(GLYPH, side=120, density=0.1, snr=1.0, seed=3)


@pytest.fixture(scope="module")
def found(made):
    return recover(made.measurement, **OPTIONS, seed=1)


def test_copies_are_supported(made, found):
    verdict = judge(made.measurement, found, runs=8, **OPTIONS, seed=1)
    assert verdict.supported, verdict
    assert verdict.evidence == found.evidence
    assert verdict.rival == recover(made.measurement, **OPTIONS, seed=2).evidence
    assert pooled_evidence(verdict.held_out) > 20 * HELD_OUT


def test_a_prior_that_fits_is_supported(made):
    options = OPTIONS | {"prior": GaussianPrior(GLYPH, 0.1), "seed": 1}
    verdict = judge(made.measurement, recover(made.measurement, **options), runs=4, **options)
    assert verdict.supported is True
    assert verdict.unaided == held_out_evidence(made.measurement, **OPTIONS | {"starts": None}, seed=1)


def test_a_prior_that_blurs_is_found_out(made):
    options = OPTIONS | {"prior": GaussianPrior(gaussian_filter(GLYPH, 1.5), 0.02), "seed": 1}
    found = recover(made.measurement, **options)
    verdict = judge(made.measurement, found, runs=1, complete=True, **options)
    checks = {check.name: check.passed for check in verdict.checks}
    assert checks["held_out"] is True
    assert checks["prior"] is False
    assert "misled by the prior" in verdict.sentence


def test_what_is_tried_is_not_told_to_the_callback_of_the_run_and_does_not_go_on_from_its_state(made, found):
    told = []
    options = {**OPTIONS, "iterations": 2, "callback": lambda state: told.append(state) or True}
    verdict = judge(made.measurement, found, runs=1, **options, state=found.state, seed=1)
    assert verdict == judge(made.measurement, found, runs=1, **{**OPTIONS, "iterations": 2}, seed=1)
    assert told == []


@pytest.mark.parametrize("seed", range(3))
def test_held_out_evidence_of_noise_is_none_however_well_it_is_fitted(seed):
    noise = null_measurement(np.zeros((120, 120), np.float32), 1.0, seed)
    with undoubted():
        fitted = recover(noise, initial="faint", **OPTIONS, seed=seed)
    assert pooled_evidence(held_out_evidence(noise, initial="faint", **OPTIONS, seed=seed)) < HELD_OUT
    assert fitted.evidence > 60


def test_held_out_evidence_is_that_of_a_half_which_was_not_seen(made):
    """Noise in the lower half changes nothing of what the upper half shows, but what that says of the lower."""
    pixels = np.array(made.measurement.array[0])
    pixels[60:] = np.random.default_rng(5).normal(0.0, made.noise_std, size=(60, 120))
    upper, lower = held_out_evidence(pixels, **OPTIONS, seed=1)
    assert upper < HELD_OUT
    assert lower < HELD_OUT
    assert held_out_evidence(made.measurement, **OPTIONS, seed=1)[0] > 100


def test_held_out_evidence_has_not_seen_the_image_that_the_run_started_from(made):
    """It may be the result of a run on all of the data."""
    options = {**OPTIONS, "starts": None, "iterations": 3}
    given = held_out_evidence(made.measurement, **options, initial=GLYPH, seed=1)
    assert given == held_out_evidence(made.measurement, **options, seed=1)


def test_a_finished_run_is_evaluated_as_it_ended(made, found):
    again = at_target(made.measurement, found.target, found.likelihood, **OPTIONS, diameter=10.0)
    assert again.evidence == pytest.approx(found.evidence, abs=1e-9)
    assert np.array_equal(again.target, found.target)


def test_a_finished_run_with_numbers_of_each_micrograph_is_evaluated_as_it_ended(made):
    pixels, options = (
        made.measurement.array.reshape(2, 60, 120),
        OPTIONS | {"micrographs": "each", "iterations": 6},
    )
    found = recover(pixels, **options, seed=1)
    again = at_target(pixels, found.target, found.likelihood, **options)
    assert again.evidence == pytest.approx(found.evidence, abs=1e-9)


def test_white_noise_passes_where_the_spectrum_is_what_was_found():
    """Stripes in the white model: far beyond white noise, but not beyond noise with the same stripes."""
    rng = np.random.default_rng(0)
    stripes = (rng.normal(size=(120, 120)) + 0.6 * rng.normal(size=(120, 1))).astype(np.float32)
    with undoubted():
        options = OPTIONS | {"initial": "faint", "seed": 0, "noise": "white"}
        found = recover(stripes, **options)
    verdict = judge(stripes, found, runs=4, complete=True, **options)
    checks = {check.name: check for check in verdict.checks}
    assert checks["white"].passed is True
    assert checks["phases"].passed is False
    assert "not distinguishable from noise of this spectrum" in verdict.sentence
    assert verdict.supported is False


def test_everything_that_is_tried_shares_the_run(made, found):
    """One object holds the run: null runs, halves and the other start see the same prior, iterations and mask."""
    mask = np.ones((120, 120), bool)
    mask[:20] = False
    options = OPTIONS | {"iterations": 2, "prior": GaussianPrior(GLYPH, 1.0), "mask": mask}
    claim = replace(Claim.of(found), settled=None, evidence=1e6)
    pixels = {
        question: None if one is None else (one.statistics.pixels, one.state.iteration)
        for _, question, one in asked(
            Verdict(1e6), ImageTrials.of(made.measurement.array[0], claim, options), 2, complete=True
        )
    }
    assert pixels == {
        "phases": (12_000, 2),
        "white": (12_000, 2),
        "held_out": None,
        "other_start": (12_000, 2),
    }


def test_a_start_of_the_users_is_not_the_other_start(made):
    with undoubted():
        given = recover(made.measurement, initial=GLYPH, **OPTIONS)
    verdict = Verdict(given.evidence, (0.0,), (0.0,), (99.0, 99.0))
    claim, options = Claim.of(given), OPTIONS | {"initial": GLYPH}
    told = next(asked(verdict, ImageTrials.of(made.measurement, claim, options), 2))[0]
    assert told.rival == recover(made.measurement, **OPTIONS | {"starts": None}, seed=1).evidence
