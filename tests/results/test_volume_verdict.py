"""The verdict on a volume: the questions on a chain that is there, and on noise."""

from dataclasses import replace

import numpy as np
import pytest

from mtdcore.em.volumes.plan import VolumePlan
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.model.volumes import so3
from mtdcore.results.halves import pooled_evidence
from mtdcore.results.verdict import HELD_OUT
from mtdcore.results.volumes.trials import VolumeTrials, judge_volume
from mtdcore.synthetic.placement import random_corners
from mtdcore.synthetic.volumes import chain

SIDE, WIDTH = 10, 150
PLAN = VolumePlan(SIDE, iterations=24, last_band=0.4, first_views=60, last_views=200, coarse_views=60)
OPTIONS = {"box_size": SIDE, "plan": PLAN, "parts": 2}


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    images = chain(SIDE).projections(so3.random_rotations(60, rng), SIDE)
    made = np.sqrt(np.mean(images**2) / 2.0) * rng.standard_normal((2, WIDTH, WIDTH))
    for m in range(2):
        corners = random_corners(rng, 30, (WIDTH - SIDE + 1, WIDTH - SIDE + 1), SIDE)
        for image, (row, column) in zip(images[30 * m :], corners, strict=False):
            made[m, row : row + SIDE, column : column + SIDE] += image
    return made.astype(np.float32)


@pytest.fixture(scope="module")
def found(pixels):
    return recover_volume(pixels, **OPTIONS)


def test_a_chain_is_supported(pixels, found):
    verdict = judge_volume(pixels, found, runs=4, **OPTIONS)
    checks = {check.name: check.passed for check in verdict.checks}
    assert checks["white"]
    assert checks["held_out"]
    assert pooled_evidence(verdict.held_out) > 10 * HELD_OUT
    assert max(verdict.white) < 0.1 * found.evidence
    assert max(verdict.phases) < found.evidence


@pytest.mark.parametrize("seed", range(2))
def test_noise_is_refused(seed):
    noise = np.random.default_rng(seed).normal(3.0, 2.0, size=(2, WIDTH, WIDTH)).astype(np.float32) - 3.0
    fitted = recover_volume(noise, **OPTIONS)
    verdict = judge_volume(noise, fitted, runs=2, complete=True, **OPTIONS)
    assert verdict.supported is False
    assert pooled_evidence(verdict.held_out) < HELD_OUT


def test_another_start_is_another_and_the_same_one_is_the_same(pixels, found):
    trials = VolumeTrials.of(pixels, found, {**OPTIONS, "initial": found.volume})
    _, other = trials.other_start()
    alone = recover_volume(pixels, **OPTIONS, seed=found.plan.seed + 1)
    np.testing.assert_array_equal(other.volume, alone.volume)


def test_held_out_evidence_has_not_seen_the_volume_that_the_run_started_from(pixels, found):
    """It may be the result of a run on all of the data."""
    short = {**OPTIONS, "plan": replace(PLAN, iterations=3)}
    given = VolumeTrials.of(pixels, found, {**short, "initial": found.volume}).held_out()
    assert given == VolumeTrials.of(pixels, found, short).held_out()


def test_what_is_tried_is_not_told_to_the_callback_of_the_run(pixels, found):
    told = []
    options = {**OPTIONS, "plan": replace(PLAN, iterations=2), "callback": told.append, "state": found.state}
    VolumeTrials.of(pixels, found, options).null("white", 0)
    assert told == []
