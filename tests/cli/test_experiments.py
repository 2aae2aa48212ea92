import math
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd

pytest.importorskip("torch")

from mtdbridge import train_prior
from mtdbridge.priors.parameterisation import VP_LEVELS
from mtdcli.reproduce.cases import digit_experiment, gaussian_experiment, one_per_class
from mtdcli.reproduce.learning import learned_prior, paper_level
from mtdcli.reproduce.methods import Oracle, Recover, Start, aligned_copies, methods_of
from mtdcli.reproduce.runner import Outcome, run_all, run_one
from mtdcli.reproduce.tables import published, tabulate
from mtdcore.errors import InputError, ParameterError
from mtdcore.mstep.updates import rising

SIDE = 8


@pytest.fixture(scope="module")
def gaussian():
    return gaussian_experiment(targets=2)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file like MNIST's: 64 training images with one pixel each, 12 test images of 3 classes."""
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    train = 255 * np.eye(SIDE * SIDE, dtype=np.uint8).reshape(-1, SIDE, SIDE)
    test = np.random.default_rng(0).integers(1, 255, (12, SIDE, SIDE), dtype=np.uint8)
    labels = np.array([2, 2, 0, 1, 2, 0, 1, 0, 1, 2, 0, 1])
    np.savez(path, train_images=train, test_images=test, test_labels=labels)
    return path


def test_gaussian_data(gaussian):
    mean = gaussian.prior.mean
    assert set(np.unique(mean)) <= {0, 1, 2, 3, 4}
    assert gaussian.training.shape == (10_000, 5, 5)
    np.testing.assert_allclose(gaussian.training.mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(gaussian.training.std(axis=0), 1, atol=0.05)
    np.testing.assert_array_equal(gaussian_experiment(5).targets[:2], gaussian.targets)
    assert gaussian.max_shift == 1
    assert not np.array_equal(gaussian_experiment(2, seed=1).prior.mean, mean)


def test_measurements_have_the_settings_of_the_paper(gaussian):
    cases = gaussian.cases(gaussian.snrs, repeats=2)
    assert len(cases) == 3 * 2 * 2
    assert len({case.seed for case in cases}) == 4
    for case in cases[::5]:
        simulation = case.simulate()
        assert simulation.measurement.shape == (1, 55, 55)
        assert len(simulation.positions) == math.ceil(0.1 * 121)
        assert simulation.parameters["rotations"] == 4
        assert simulation.parameters["min_separation"] == 10
        assert np.mean(case.image**2) / simulation.noise_std**2 == pytest.approx(case.snr)
        assert 0 <= case.start.min() < 0.3 < 0.7 < case.start.max() <= 1
    weak, strong = cases[0], cases[-4]
    np.testing.assert_array_equal(weak.simulate().positions, strong.simulate().positions)


def test_digits_come_from_the_test_images_one_per_class(digits):
    experiment = digit_experiment(3, digits)
    with np.load(digits) as archive:
        expected = archive["test_images"][[2, 3, 0]] / 255
    np.testing.assert_allclose(experiment.targets, expected, rtol=1e-6)
    start = experiment.cases([1.0])[0].start
    np.testing.assert_allclose(np.sort(start.ravel())[-11:], [0] + [0.1] * 10, atol=1e-7)


def test_one_per_class_takes_the_classes_in_turn():
    labels = np.array([2, 2, 0, 1, 2, 0])
    assert one_per_class(labels, 6).tolist() == [2, 3, 0, 5, 1, 4]


def test_glyphs_stand_in():
    experiment = digit_experiment(4)
    assert experiment.source == "glyphs"
    assert experiment.targets.shape == (4, 28, 28)
    assert experiment.max_shift == 6
    known = {image.tobytes() for image in experiment.training}
    assert not any(image.astype(np.float32).tobytes() in known for image in experiment.targets)


def test_image_files_that_do_not_fit(digits, tmp_path):
    with pytest.raises(InputError, match="at least 13"):
        digit_experiment(13, digits)
    with np.load(digits) as archive:
        np.savez(tmp_path / "plain.npz", **{n: archive[n] for n in ("train_images", "test_images")})
    with pytest.raises(InputError, match="test_labels"):
        digit_experiment(1, tmp_path / "plain.npz")
    with pytest.raises(ParameterError, match="at least one"):
        gaussian_experiment(0)


def test_oracle_turns_the_copies_back(gaussian):
    (case,) = gaussian.cases([1e12])[:1]
    simulation = case.simulate()
    assert len(set(simulation.rotation_indices.tolist())) > 1
    for copy in aligned_copies(simulation):
        np.testing.assert_allclose(copy, case.image, atol=1e-4)


def test_oracle_with_prior_is_the_posterior_mean(gaussian):
    case = gaussian.cases([1.0])[0]
    simulation = case.simulate()
    average = Oracle()(case, simulation)
    variance = simulation.noise_std**2 / len(simulation.positions)
    expected = (average / variance + gaussian.prior.mean) / (1 / variance + 1)
    np.testing.assert_allclose(Oracle(prior=gaussian.prior)(case, simulation), expected)


def test_the_paper_method_is_table_one(gaussian):
    prior = train_prior(gaussian.training, network="mlp", steps=1, network_options={"width": 2})
    columns = {m.name: m for m in methods_of(gaussian, "paper", "weights", prior)}
    assert list(columns) == ["start", "without prior", "with prior", "oracle", "oracle + prior"]
    settings = columns["with prior"].arguments
    assert settings["likelihood"] == "patch"
    assert settings["iterations"] == 100
    assert settings["update"] == mtd.GradientAscent(1e-3, 1, prior_weight=1.0, prior_level=0.0)
    assert columns["without prior"].arguments is settings
    assert columns["with prior"].from_start


def test_the_patch_method_differs_from_the_best_one_in_the_likelihood_alone(gaussian, monkeypatch):
    prior = train_prior(gaussian.training, network="mlp", steps=1, network_options={"width": 2})
    patch, best = (methods_of(gaussian, name, "weights", prior) for name in ("patch", "best"))
    tied = [replace(m, tied_patches=True) if isinstance(m, Recover) else m for m in best]
    assert patch[1:] == tied[1:]
    assert patch[0] == replace(tied[0], arguments=tied[0].arguments | {"temperature": 1.0})
    seen = []
    monkeypatch.setattr(mtd, "recover", lambda _, **options: seen.append(options) or Namespace(target=None))
    case = gaussian.cases([1.0])[0]
    patch[0](case, case.simulate())
    assert seen[0]["likelihood"] == mtd.PatchLikelihood(mtd.Rotations(4, 5), case.simulate().noise_std, 0.5)
    assert seen[0]["initial"] == "uniform"


def test_the_weight_of_the_prior_rises_to_one(digits):
    experiment = digit_experiment(1, digits)
    prior = train_prior(
        experiment.training, network="unet", steps=1, validation=0, network_options={"width": 1}
    )
    assert paper_level(prior) == VP_LEVELS[0]
    (with_prior,) = (m for m in methods_of(experiment, "paper", "w", prior) if m.name == "with prior")
    assert with_prior.arguments["update"].prior_weight is rising
    assert [rising(i, 100) for i in (0, 49, 99)] == [0.01, 0.5, 1.0]


def test_weights_are_trained_once(gaussian, tmp_path):
    weights, first = learned_prior(gaussian, "paper", tmp_path, steps=2)
    before = (tmp_path / "gaussian-mlp-2.safetensors").stat().st_mtime_ns
    again, second = learned_prior(gaussian, "paper", tmp_path, steps=2)
    assert weights == again == str(tmp_path / "gaussian-mlp-2.safetensors")
    assert (tmp_path / "gaussian-mlp-2.safetensors").stat().st_mtime_ns == before
    one, two = (prior.network.state_dict() for prior in (first, second))
    assert all((one[name] == two[name]).all() for name in one)
    with pytest.raises(ParameterError, match="plain score"):
        learned_prior(gaussian, "best", tmp_path, weights=weights)


def test_weights_for_another_box_are_refused(digits, tmp_path):
    with pytest.raises(InputError, match="boxes of 8"):
        learned_prior(digit_experiment(1, digits), "best", tmp_path)


def test_a_failing_run_is_an_outcome(gaussian):
    case = gaussian.cases([1.0])[0]
    outcome = run_one(case, Oracle("broken", "no-such-prior"))
    assert outcome.image is None
    assert math.isnan(outcome.error)
    assert "no-such-prior" in outcome.failure


def test_an_estimate_that_is_not_finite_is_a_failure(gaussian, monkeypatch):
    case = gaussian.cases([1.0])[0]
    monkeypatch.setattr(Start, "__call__", lambda self, case, simulation: np.full((5, 5), np.nan))
    assert "not finite" in run_one(case, Start()).failure


@pytest.mark.slow
def test_other_processes_give_the_same_outcomes_in_order(gaussian):
    cases = gaussian.cases([1.0, 10.0])
    settings = {"iterations": 3, "initial": "uniform"}
    methods = [Start(), Recover("window", gaussian.prior, settings), Oracle("broken", "no-such-prior")]
    seen = []
    found = run_all(cases, methods, jobs=2, callback=lambda done, total, _: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]
    expected = [run_one(case, method) for case in cases for method in methods]
    for one, two in zip(found, expected, strict=True):
        assert (one.method, one.snr, one.target, one.failure) == (
            two.method,
            two.snr,
            two.target,
            two.failure,
        )
        np.testing.assert_array_equal(one.error, two.error)
        if two.image is not None:
            np.testing.assert_array_equal(one.image, two.image)


def test_what_the_callback_raises_ends_the_runs(gaussian):
    def stop(done, total, outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(gaussian.cases([1.0]), [Start(), Oracle()], jobs=1, callback=stop)
    with pytest.raises(ParameterError, match="jobs"):
        run_all(gaussian.cases([1.0]), [Start()], jobs=0)


def test_table_leaves_failed_runs_out():
    def outcome(error, free, failure=None):
        return Outcome("m", 1.0, 0, 0, 2.0, None, error, free, failure)

    nan = math.nan
    (cell,) = tabulate([outcome(0.2, 0.1), outcome(0.4, 0.3), outcome(nan, nan, "lost")])
    assert (cell.count, cell.failed) == (2, 1)
    assert (cell.error, cell.gauge_free_error) == pytest.approx((0.3, 0.2))
    assert cell.error_se == pytest.approx(0.1)
    (single,) = tabulate([outcome(0.2, 0.1)])
    assert math.isnan(single.error_se)
    (none,) = tabulate([outcome(nan, nan, "lost")])
    assert math.isnan(none.error)


def test_published_figures():
    assert published("mnist", "with prior", 0.5) == (0.895, 0.546)
    assert published("mnist", "oracle", 0.5) is None
    assert published("gaussian", "with prior", 2.0) is None
