"""The loop: what it maximises, when it stops, how it goes on, what it recovers."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from mtdcore import (
    DenoisingUpdate,
    EMState,
    ExactUpdate,
    FlatPrior,
    GaussianPrior,
    GradientAscent,
    PatchLikelihood,
    WindowLikelihood,
    e_step,
    get_backend,
    recover,
    relative_error,
    simulate,
)
from mtdcore.em.gauge.frames import centre_of_mass
from mtdcore.errors import InputError, ParameterError
from mtdcore.model.rotations import Rotations
from mtdcore.testing import assert_same_bits

EXACT = get_backend("cpu", precision="float64", threads=1)


@pytest.fixture(scope="module")
def made():
    """13 copies of a Gaussian target at SNR 5, as in the paper (docs/model.md 6)."""
    return simulate(gaussian_target(0), side=55, density=0.1, snr=5.0, dtype="float64")


def gaussian_target(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, size=(5, 5)) + rng.normal(size=(5, 5))


def run(made, **options):
    defaults = {"box_size": len(made.target), "noise_std": made.noise_std, "iterations": 12, "backend": EXACT}
    return recover(made.measurement, **(defaults | options))


def objectives(recovery):
    """The objective at the start of every iteration, and at the end."""
    return np.array([record.objective for record in recovery.history] + [recovery.statistics.log_likelihood])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("rotations", [3, 4])
@pytest.mark.parametrize("empty_probability", [None, 0.5], ids=["uniform", "tied"])
def test_em_never_lowers_the_log_likelihood(made, empty_probability, rotations, seed):
    model = PatchLikelihood(Rotations(rotations, 5), made.noise_std, empty_probability)
    one = {"starts": 1, "gauge": None}  # neither the race nor the frame is EM's
    found = run(
        made, likelihood=model, rotations=rotations, seed=seed, iterations=15, update=ExactUpdate(), **one
    )
    steps = np.diff(objectives(found))
    assert len(steps) == 15
    assert steps.min() > -1e-9 * abs(found.evidence)
    assert steps[0] > 1.0


def test_estimating_the_noise_never_lowers_the_log_likelihood_either(made):
    found = run(made, likelihood=PatchLikelihood(Rotations(4, 5), 2 * made.noise_std, 0.5), noise_std="auto")
    assert np.diff(objectives(found)).min() > -1e-9 * abs(found.evidence)


def test_evidence_tells_signal_from_noise(made):
    found = run(made, prior=GaussianPrior(2.0, 1.5), iterations=30, temperature="auto")
    assert found.evidence > 50
    blank = replace(made, measurement=np.random.default_rng(0).normal(size=(55, 55)) * made.noise_std)
    nothing = run(blank, prior=GaussianPrior(2.0, 1.5), iterations=30, temperature="auto")
    assert nothing.evidence < 5


@pytest.mark.parametrize("seed", [0, 1])
def test_window_method_on_the_gaussian_problem(seed):
    """docs/accuracy.md: mean error .118 at SNR 5; the prior's mean alone is at about .4."""
    rng = np.random.default_rng(seed)
    mean = rng.integers(0, 5, size=(5, 5)).astype(float)
    made = simulate(mean + rng.normal(size=(5, 5)), side=55, density=0.1, snr=5.0, seed=seed)
    found = recover(
        made.measurement,
        box_size=5,
        rotations=4,
        noise_std=made.noise_std,
        prior=GaussianPrior(mean, 1.0),
        temperature="auto",
    )
    assert relative_error(found.target, made.target) < 0.3
    assert found.expected_count == pytest.approx(13, abs=3)


def test_interpolated_rotations_recover_too():
    offset = np.arange(11) - 5.0
    target = 4 * np.exp(-0.5 * ((offset[:, None] - 1) ** 2 / 2 + (offset[None, :] + 1) ** 2 / 6))
    made = simulate(target, side=150, count=60, snr=3.0, rotations=6, separation=1)
    found = run(made, rotations=6, iterations=30, temperature="auto", initial="blob", backend="cpu")
    assert relative_error(found.target, made.target, rotations=6, max_shift=2) < 0.3


@pytest.mark.parametrize(
    "likelihood", ["window", PatchLikelihood(Rotations(4, 7), 1.5, 0.5)], ids=["window", "patch tied"]
)
def test_unknown_noise_level(likelihood):
    target = np.random.default_rng(3).uniform(0, 2, size=(7, 7))
    made = simulate(target, side=260, density=0.1, snr=1.0, separation=1, dtype="float64")
    found = run(made, likelihood=likelihood, noise_std="auto", initial=target, iterations=15)
    assert found.noise_std == pytest.approx(made.noise_std, rel=0.01)
    assert found.noise_std != found.history[0].noise_std
    assert found.likelihood.noise_std == found.noise_std == found.history[-1].noise_std


def test_given_noise_level_is_kept(made):
    assert {record.noise_std for record in run(made).history} == {made.noise_std}


def test_stops_when_the_step_is_small(made):
    prior = GaussianPrior(2.0, 1.5)
    found = run(
        made, tolerance=1e-4, iterations=200, update=DenoisingUpdate(), prior=prior, initial="uniform"
    )
    norms = [record.step_norm / record.noise_std for record in found.history]
    assert found.stopped == "tolerance"
    assert norms[-1] < 1e-4 <= min(norms[:-1])


def test_does_not_stop_while_it_is_hot(made):
    found = run(made, tolerance=1e9, temperature=2.0, iterations=10)
    assert (found.stopped, len(found.history)) == ("tolerance", 7)
    assert [record.temperature for record in found.history[-2:]] == [pytest.approx(2 ** (1 / 6)), 1.0]


def test_stops_after_the_iterations(made):
    found = run(made, tolerance=0.0, iterations=3)
    assert (found.stopped, found.state.iteration) == ("iterations", 3)
    assert [record.iteration for record in found.history] == [1, 2, 3]
    assert all(record.seconds > 0 for record in found.history)


def test_no_iterations_score_the_start(made):
    found = run(made, iterations=0, initial=made.target)
    assert np.array_equal(found.target, made.target)
    assert found.evidence > 50
    assert relative_error(found.aligned_average, made.target) < 0.3


def test_callback_stops(made):
    seen = []

    def stop(state):
        seen.append(state)
        return state.iteration == 4

    found = run(made, callback=stop)
    assert found.stopped == "callback"
    assert [state.iteration for state in seen] == [1, 2, 3, 4]
    assert found.state is seen[-1]
    assert isinstance(found.state, EMState)


@pytest.mark.parametrize("backend", [EXACT, get_backend("cpu", threads=2)], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"likelihood": "window", "noise_std": "auto", "temperature": 3.0},
        {"likelihood": "window", "prior": GaussianPrior(2.0), "temperature": "auto"},
        {"likelihood": PatchLikelihood(Rotations(4, 5), 1.0, 0.4), "noise_std": "auto"},
        {"likelihood": "patch", "update": GradientAscent(1e-3, prior_weight=lambda i, n: (i + 1) / n)},
    ],
    ids=["window", "tempered", "patch tied", "paper"],
)
def test_a_run_goes_on_from_any_state_with_the_same_bits(made, options, backend):
    states = []
    whole = run(made, backend=backend, callback=states.append, **options)
    again = run(made, backend=backend, state=states[4], seed=99, **options)
    assert np.array_equal(again.target, whole.target)
    assert again.likelihood == whole.likelihood
    assert_same_bits(again.statistics, whole.statistics)
    assert [replace(r, seconds=0) for r in again.history] == [replace(r, seconds=0) for r in whole.history]


def test_seed_decides_the_start(made):
    first, same, other = (run(made, iterations=0, seed=seed).target for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert 0 <= first.min() < first.max() <= 1


def test_blob_start_is_faint_and_central(made):
    for rotations in (1, 4):
        blob = run(made, iterations=0, initial="blob", rotations=rotations).target
        assert np.linalg.norm(blob) == pytest.approx(2 * made.noise_std, rel=1e-6 if rotations == 1 else 0.25)
        assert centre_of_mass(blob) == pytest.approx((2, 2), abs=0.3)
        # one that looks the same at all angles would for ever: a copy tells it nothing of its own
        assert np.array_equal(blob, np.rot90(blob)) == (rotations == 1)


def test_default_update_follows_the_prior(made):
    flat = run(made, prior=FlatPrior(), iterations=3).target
    assert np.array_equal(flat, run(made, iterations=3, update=ExactUpdate()).target)
    prior = GaussianPrior(2.0)
    denoised = run(made, iterations=3, prior=prior, update=DenoisingUpdate()).target
    assert np.array_equal(run(made, iterations=3, prior=prior).target, denoised)
    assert not np.array_equal(flat, denoised)


def test_the_count_cannot_die_early(made):
    """A glaring start explains nothing; the count stays at half its start for half of the iterations."""
    counts = []
    run(
        made,
        initial=np.full((5, 5), 100.0),
        update=GradientAscent(1e-12),
        expected_count=40.0,
        tolerance=0.0,
        callback=lambda state: counts.append(state.likelihood.expected_count),
    )
    assert counts[:6] == [20.0] * 6
    assert max(counts[6:]) < 1.0


def test_a_likelihood_object_is_the_start(made):
    crowded = WindowLikelihood(Rotations(4, 5), made.noise_std, 40.0)
    assert run(made, likelihood=crowded, iterations=0).likelihood == crowded


def test_tied_parameters_follow_the_posterior(made):
    window = run(made, initial=made.target, iterations=1)
    assert window.likelihood.expected_count == window.history[0].expected_count
    model = PatchLikelihood(Rotations(4, 5), made.noise_std, 0.2)
    before = e_step(made.measurement, made.target, model, EXACT)
    patch = run(made, likelihood=model, initial=made.target, iterations=1)
    assert patch.likelihood.empty_probability == pytest.approx(before.empty_mass / before.sites)
    assert abs(patch.likelihood.empty_probability - 0.2) > 0.1


def test_separation_and_count_reach_the_model(made):
    model = run(made, min_separation=3, expected_count=7.0, iterations=0, offset=None).likelihood
    assert model == WindowLikelihood(Rotations(4, 5), made.noise_std, 7.0, 3)


def test_save(made, tmp_path):
    found = run(made, iterations=3)
    found.save(tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert np.array_equal(np.load(folder / "estimate.npy"), found.target)
    assert np.array_equal(np.load(folder / "aligned_average.npy"), found.aligned_average)
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["objective"]) for row in rows] == [record.objective for record in found.history]
    summary = json.loads((folder / "recovery.json").read_text())
    assert summary == found.summary()
    assert (summary["iterations"], summary["likelihood"]["model"]) == (3, "WindowLikelihood")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"likelihood": "pixel"}, ParameterError, 'likelihood must be "window", "patch"'),
        ({"initial": "ones"}, ParameterError, "initial must be .* or an image; got 'ones'"),
        ({"initial": np.ones((4, 5))}, ParameterError, r"of shape \(5, 5\); got .*shape \(.*4, 5\)"),
        ({"initial": np.full((5, 5), np.nan)}, ParameterError, "initial images? should be finite"),
        (
            {"likelihood": PatchLikelihood(Rotations(4, 6), 1.0)},
            ParameterError,
            r"Rotations\(count=4, box_size=6.*Rotations\(count=4, box_size=5.* give the same to both",
        ),
        (
            {"likelihood": PatchLikelihood(Rotations(3, 5), 1.0)},
            ParameterError,
            r"Rotations\(count=3, box_size=5.*Rotations\(count=4, box_size=5.* give the same to both",
        ),
        ({"noise_std": -1.0}, ParameterError, "noise_std must be a positive"),
        ({"noise_std": None}, ParameterError, "noise_std must be a positive number, or"),
        ({"box_size": 0}, ParameterError, "box_size must be a positive number of pixels; got 0"),
        ({"box_size": 2.5}, ParameterError, "box_size must be a positive number of pixels; got 2.5"),
        ({"starts": 0}, ParameterError, "starts must be a positive number; got 0"),
        (
            {"likelihood": PatchLikelihood(Rotations(4, 5), 1.0), "micrographs": "each"},
            ParameterError,
            "holds the micrographs itself",
        ),
        ({"expected_count": -1.0}, ParameterError, "expected_count must be a positive"),
        ({"expected_count": 0.0}, ParameterError, "expected_count must be a positive"),
        ({"temperature": 0.5}, ParameterError, "temperature must be"),
        ({"rotations": 0}, ParameterError, "rotations must be"),
        ({"backend": "gpu"}, ParameterError, "backend must be"),
        ({"box_size": 56}, InputError, "at least one box of 56 x 56 pixels"),
    ],
)
def test_clear_errors(made, options, error, message):
    with pytest.raises(error, match=message):
        run(made, **options)


def test_nothing_usable():
    with pytest.raises(InputError, match="no two neighbouring pixels are valid"):
        recover(np.full((20, 20), np.nan), box_size=5)


def test_a_race_at_rest_leaves_one_candidate_that_then_chooses_its_frame(made):
    states = []
    found = run(
        made,
        tolerance=1e-3,
        iterations=2000,
        prior=GaussianPrior(2.0, 1.5),
        initial="samples",
        temperature=1.0,
        offset=0.0,
        starts=3,
        callback=states.append,
    )
    assert found.stopped == "tolerance"
    racers = [len(state.candidates) for state in states]
    assert racers == sorted(racers, reverse=True)
    assert (racers[0], racers[-1]) == (3, 1)
    last_of_race = states[racers.count(3) - 1]
    assert last_of_race.leader.objective == max(c.objective for c in last_of_race.candidates)
    assert last_of_race.at_rest(1e-3)
    assert not last_of_race.converged(1e-3)


def test_the_best_starts_stay_in_the_race(made):
    states = []
    run(made, prior=GaussianPrior(2.0, 1.5), starts=12, iterations=32, tolerance=0.0, callback=states.append)
    assert [len(state.candidates) for state in states[:10]] == [12, 8, 4, 3, 2, 2, 2, 2, 1, 1]
    ranked = sorted((c.objective for c in states[1].candidates), reverse=True)
    assert [c.objective for c in states[1].best(4)] == ranked[:4]
    assert len({c.target.tobytes() for c in states[1].candidates}) == 8


@pytest.mark.parametrize(
    "likelihood", ["window", PatchLikelihood(Rotations(4, 9), 0.8, 0.5)], ids=["window", "patch tied"]
)
def test_the_prior_chooses_the_frame(likelihood):
    """Started turned and two pixels off, with the prior knowing upright, centred images (docs/model.md 9)."""
    offset = np.arange(9) - 4.0
    mean = 3 * np.exp(-0.5 * (offset[:, None] ** 2 / 4 + (offset + 0.6) ** 2)) + np.pad(
        np.ones((2, 3)), ((1, 6), (3, 3))
    )
    made = simulate(mean, side=180, density=0.1, noise_std=0.8, seed=2)
    off = np.roll(np.rot90(mean), (2, 0), axis=(0, 1))
    options = {"likelihood": likelihood, "prior": GaussianPrior(mean, 0.5), "initial": off, "backend": "cpu"}
    kept = run(made, gauge=None, **options).target
    assert relative_error(kept, mean, max_shift=3) < 0.25  # found, in the frame of its start
    assert np.linalg.norm(kept - mean) > 0.5 * np.linalg.norm(mean)
    framed = run(made, **options).target
    assert np.linalg.norm(framed - mean) < 0.2 * np.linalg.norm(mean)


@pytest.mark.parametrize("likelihood", ["window", "patch"])
def test_copies_may_touch(likelihood):
    """Separation L instead of 2 L; a patch then often shows two copies, which its model does not know."""
    mean = np.random.default_rng(4).integers(0, 5, size=(5, 5)).astype(float)
    target = mean + np.random.default_rng(5).normal(size=(5, 5))
    made = simulate(target, side=55, density=0.25, snr=5.0, separation=1, seed=6)
    gaps = np.abs(made.positions[:, None, 1:] - made.positions[None, :, 1:]).max(axis=2)
    assert (np.sort(gaps, axis=1)[:, 1] < 10).sum() > 20  # neighbours closer than the paper allows
    patch = PatchLikelihood(Rotations(4, 5), made.noise_std, 0.5)
    found = run(
        made,
        likelihood=patch if likelihood == "patch" else "window",
        prior=GaussianPrior(mean, 1.0),
        initial="uniform",
        temperature="auto",
        iterations=40,
    )
    assert relative_error(found.target, target) < {"window": 0.12, "patch": 0.25}[likelihood]
