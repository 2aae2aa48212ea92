"""Mini-batch EM: its order, its weights, and what it reaches in how many passes."""

from dataclasses import replace

import array_api_strict as strict
import numpy as np
import pytest

from mtdcore import (
    GaussianPrior,
    OnlineEM,
    e_step,
    get_backend,
    open_measurement,
    recover,
    relative_error,
    simulate,
)
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.errors import ParameterError
from mtdcore.results.halves import HalfMeasurement
from mtdcore.testing import assert_same_bits

CPU = get_backend("cpu", threads=1)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 64 pixels a side, so that a quick measurement has nine."""
    monkeypatch.setattr("mtdcore.model.likelihood.window._TILE_PIXELS", 64)


@pytest.fixture(scope="module")
def made():
    """A hundred copies of a 5 x 5 target."""
    rng = np.random.default_rng(7)
    target = rng.integers(0, 5, size=(5, 5)) + rng.normal(size=(5, 5))
    return simulate(target, side=160, density=0.1, snr=1.0, seed=3)


def run(made, online, **options):
    defaults = {
        "noise_std": made.noise_std,
        "prior": GaussianPrior(2.0, 1.5),
        "iterations": 24,
        "starts": 2,
        "backend": CPU,
    }
    return recover(made.measurement, box_size=5, online=online, **(defaults | options))


@pytest.fixture
def found(random_statistics):
    return lambda seed, library=np: random_statistics(np.random.default_rng(seed), 5, library)


def test_the_target_of_the_plain_loop_in_far_fewer_passes(made):
    plain, online = run(made, None), run(made, OnlineEM(parts=9))
    errors = [relative_error(r.target, made.target, max_shift=1) for r in (plain, online)]
    assert errors[1] < 1.02 * errors[0]
    assert online.passes < 8 < 20 < plain.passes
    assert online.evidence == pytest.approx(plain.evidence, rel=5e-3)
    assert online.expected_count == pytest.approx(plain.expected_count, rel=5e-3)


def test_unknown_noise_is_learned_from_parts(made):
    found = run(made, OnlineEM(parts=9), noise_std="auto")
    assert found.noise_std == pytest.approx(made.noise_std, rel=2e-3)


@pytest.mark.parametrize("lower", [False, True])
def test_parts_without_a_valid_pixel_neither_stop_nor_end_a_run(made, lower):
    half = replace(made, measurement=HalfMeasurement(open_measurement(made.measurement), lower))
    plain, online = (run(half, o, noise_std="auto") for o in (None, OnlineEM(parts=9)))
    errors = [relative_error(r.target, made.target, max_shift=1) for r in (plain, online)]
    assert errors[1] < 1.05 * errors[0]
    assert [record.passes for record in online.history[-2:]] == pytest.approx([1.0, 1.0], abs=0.3)


def test_statistics_of_another_frame_are_dropped(made):
    """And those of the same frame are not."""

    class Turn:
        """A gauge that turns the target when it is asked first."""

        asked = 0

        def choose(self, target, seen):
            self.asked += 1
            return np.rot90(target) if self.asked == 1 else target

    states, gauge = [], Turn()
    options = {"starts": 1, "iterations": 8, "tolerance": 0.0, "gauge": gauge, "callback": states.append}
    run(made, OnlineEM(parts=9, last=0), **options)
    mixed = [state.leader.running and state.leader.running.mixed for state in states]
    assert mixed == [1, 2, None, 1, 2, 3, 4, 5]
    assert gauge.asked == 3


def test_every_part_once_before_any_comes_again(made):
    source, online = open_measurement(made.measurement), OnlineEM(parts=4, seed=3, last=0)
    epochs = [[online.batch(source, i, 99)._parts for i in range(first, first + 4)] for first in (0, 4, 8)]
    for epoch in epochs:
        assert sorted(epoch) == [((i, 4),) for i in range(4)]
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    others = [replace(online, seed=seed).batch(source, 0, 99)._parts for seed in range(8)]
    assert len(set(others)) > 1


def test_the_last_iterations_read_everything(made):
    source, online = open_measurement(made.measurement), OnlineEM(parts=4, last=3)
    assert [online.batch(source, i, 10) is source for i in range(10)] == [False] * 7 + [True] * 3
    passes = [
        record.passes
        for record in run(made, OnlineEM(parts=9, last=3), iterations=12, tolerance=0.0, gauge=None).history
    ]
    assert passes[:3] == pytest.approx([2 / 9] * 3, rel=0.05)
    assert passes[9:] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("online", [OnlineEM(), OnlineEM(parts=4, last=99)], ids=["one part", "all last"])
def test_without_parts_it_is_plain_em_to_the_bit(made, online):
    plain, same = run(made, None, iterations=5), run(made, online, iterations=5)
    assert np.array_equal(plain.target, same.target)
    assert_same_bits(plain.statistics, same.statistics)
    assert same.state.candidates[0].running is None


@pytest.mark.parametrize("library", [np, strict], ids=["numpy", "strict"])
def test_weights(library, found):
    """The mixture is the sum of the parts with the weights of the recursion, worth what these leave of independence."""
    online = OnlineEM(parts=5, exponent=0.7, offset=2.0)
    shares, running = [0.2, 0.25, 0.15, 0.2, 0.2], None
    for seed, share in enumerate(shares):
        running = online.mix(running, found(seed, library), share)
    weights = np.ones(1)
    for mixed in range(1, 5):
        gamma = (mixed + 2.0) ** -0.7
        weights = np.append(weights * (1 - gamma), gamma)
    assert weights.sum() == pytest.approx(1.0)
    factors = weights / shares
    parts = [f * np.asarray(found(i).right) for i, f in enumerate(factors)]
    np.testing.assert_allclose(np.asarray(running.statistics.right), sum(parts), rtol=1e-12)
    parts = [f * np.asarray(found(i).normal.weights) for i, f in enumerate(factors)]
    np.testing.assert_allclose(np.asarray(running.statistics.normal.weights), sum(parts), rtol=1e-12)
    assert running.statistics.energy == pytest.approx(sum(f * found(i).energy for i, f in enumerate(factors)))
    assert running.statistics.noise_std == found(4).noise_std
    assert running.worth == pytest.approx(1.0 / np.sum(weights**2 / shares))
    assert running.weighed.pixels == pytest.approx(running.worth * running.statistics.pixels)


def test_a_part_is_worth_its_share_and_none_more_than_all(found):
    online = OnlineEM(parts=2, exponent=0.51)
    running = online.mix(None, found(0), 0.5)
    assert (running.worth, running.mixed) == (0.5, 1)
    for seed in range(200):
        running = online.mix(running, found(seed), 0.5)
    assert running.worth == 1.0
    assert_same_bits(online.mix(running, found(1), 1.0).statistics, found(1))


def test_parts_estimate_the_whole(made):
    """Mixed with equal weights, parts at one target are the E-step over everything."""
    online, likelihood = (
        OnlineEM(parts=3, exponent=1.0, offset=1.0, last=0),
        run(made, None, iterations=1).likelihood,
    )
    source = open_measurement(made.measurement)
    whole, running = e_step(source, made.target, likelihood, CPU), None
    for i in range(3):
        part = e_step(online.batch(source, i, 99), made.target, likelihood, CPU, tile_pixels=0)
        running = online.mix(running, part, part.sites / whole.sites)
    assert running.worth == pytest.approx(1.0)
    assert running.statistics.expected_count == pytest.approx(whole.expected_count, rel=1e-6)
    np.testing.assert_allclose(running.statistics.right, whole.right, rtol=1e-3)


def test_goes_on_from_a_checkpoint_with_the_same_bits(made, tmp_path):
    states = []
    options = {"online": OnlineEM(parts=7, seed=5), "noise_std": "auto", "temperature": 2.0, "iterations": 12}
    whole = run(made, callback=states.append, **options)
    for iteration in (2, 6):  # while two race, and after a change of frame may have come
        save_checkpoint(tmp_path / "c", states[iteration - 1], {})
        again = run(made, state=load_checkpoint(tmp_path / "c", {}), seed=99, **options)
        assert np.array_equal(again.target, whole.target)
        assert_same_bits(again.statistics, whole.statistics)
        assert [replace(r, seconds=0) for r in again.history] == [
            replace(r, seconds=0) for r in whole.history
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 0}, "at least one part; got 0"),
        ({"exponent": 0.5}, "above 1/2 .* got 0.5"),
        ({"exponent": 1.1}, "at most 1; got 1.1"),
        ({"offset": -1.0}, "offset .* at least 0; got offset -1.0"),
        ({"last": -1}, "got .* last -1"),
    ],
)
def test_clear_errors(options, message):
    with pytest.raises(ParameterError, match=message):
        OnlineEM(**options)


def test_more_parts_than_tiles(made):
    with pytest.raises(
        ParameterError, match="this measurement has 9, too few for 10 parts: ask for at most 9"
    ):
        run(made, OnlineEM(parts=10))
