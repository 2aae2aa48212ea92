"""EM over micrographs that come one by one."""

import math
from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.em.online.batches import Arriving, Running
from mtdcore.em.online.stream import Stream, first_state, nats
from mtdcore.results.metrics import relative_error
from mtdcore.synthetic.glyphs import glyphs

OPTIONS = {
    "box_size": 12,
    "rotations": 4,
    "iterations": 20,
    "min_separation": 12,
    "noise": "white",
    "starts": 2,
}
GLYPH = glyphs(1, 12, 1)[0]


@pytest.fixture(scope="module")
def stack():
    made = mtd.simulate(GLYPH, shape=(100, 100), density=0.1, snr=1.0, rotations=4, micrographs=16, seed=1)
    return np.asarray(made.measurement)


def options(backend):
    same = dict.fromkeys(("prior", "update", "diameter"))
    return {**same, "coarse_rotations": "auto", "iterations": 20, "tolerance": 1e-5, "noise_std": "auto", "offset": "auto", "backend": backend}  # fmt: skip


def test_a_mean_micrograph_is_worth_more_with_every_one(random_statistics):
    rng, mix = np.random.default_rng(0), Arriving().mix
    first, second = (replace(random_statistics(rng, 4), noise_std=1.0) for _ in range(2))
    one = mix(None, first, 1.0)
    assert (one.mixed, one.worth, one.nats) == (1, 1.0, first.log_likelihood)
    plain = replace(Arriving(exponent=1.0), offset=1.0)
    two = plain.mix(one, second, 1.0)  # without forgetting, the mean of both
    assert two.worth == pytest.approx(2.0)
    assert two.statistics.right == pytest.approx((first.right + second.right) / 2)
    assert mix(Running(first, 10, 10.0), second, 1.0).worth > 10.0
    assert math.isnan(Running(first, 1, 1.0).nats)


def test_later_micrographs_make_the_target_better_and_their_evidence_was_held_out(stack, exact, tmp_path):
    begun = mtd.recover(stack[:4], **OPTIONS, backend=exact)
    state = first_state(begun, 4)
    stream = Stream.of(mtd.open_measurement(stack[0]), state, options(exact))
    before = stream.recovery(state, None, begun.settled)
    assert before.expected_count == pytest.approx(begun.expected_count)
    assert before.evidence == pytest.approx(begun.evidence)
    assert before.aligned_average == pytest.approx(begun.aligned_average)
    for number, image in enumerate(stack[4:]):
        one = mtd.open_measurement(image)
        alone = state.likelihood
        state = stream(state, one, None)
        assert nats(state) > 100.0
        assert state.leader.running.mixed == 5 + number
        if number == 3:
            save_checkpoint(tmp_path / "state.safetensors", state, {})
            state = load_checkpoint(tmp_path / "state.safetensors", {})
    assert alone.copies == pytest.approx(7, abs=1)
    after = stream.recovery(state, None, None)
    assert after.stopped == "waiting"
    assert after.expected_count == pytest.approx(16 * 7, rel=0.1)
    assert relative_error(after.target, GLYPH, 4, 2) < relative_error(begun.target, GLYPH, 4, 2)
