"""Noise that is not white, learned with the target: recoveries, their continuation, and what else sees the filter."""

import json
from dataclasses import replace

import numpy as np
import pytest

import mtdcore as mtd
from mtdcore.data import open_measurement
from mtdcore.data.derived import filtered
from mtdcore.em import loop
from mtdcore.em.checkpoint import load_checkpoint, save_checkpoint
from mtdcore.errors import Doubt, ParameterError
from mtdcore.model.filters.whitening import Whitening
from mtdcore.model.likelihood.records import likelihood_from_record, likelihood_record
from mtdcore.model.rotations import Rotations
from mtdcore.results.detections import detect
from mtdcore.results.nulls import coloured, null_runs
from mtdcore.results.posterior_map import posterior_maps

CPU = mtd.get_backend("cpu", threads=1)
BOX, SIDE = 16, 200
TARGET = mtd.datasets.glyphs(1)[0][6:22, 6:22]
PRIOR = mtd.GaussianPrior(0.8 * TARGET, 0.2)
OPTIONS = {"box_size": BOX, "prior": PRIOR, "iterations": 20, "starts": 4, "backend": CPU}


def pink(shape, seed):
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = 1 / shape[0]
    noise = np.fft.irfft2(np.fft.rfft2(np.random.default_rng(seed).standard_normal(shape)) / frequency, shape)
    return noise / noise.std()


@pytest.fixture(scope="module")
def made():
    return mtd.simulate(TARGET, side=SIDE, density=0.2, snr=0.7, rotations=4, separation=1, seed=1)


@pytest.fixture(scope="module")
def in_pink_noise(made):
    return (made.measurement.array[0] + made.noise_std * pink((SIDE, SIDE), 1)).astype(np.float32)


@pytest.fixture(scope="module")
def recovered(in_pink_noise):
    return mtd.recover(in_pink_noise, **OPTIONS)


def test_pink_noise_is_learned_with_the_target(made, in_pink_noise, recovered):
    plain = mtd.recover(in_pink_noise, noise="white", **OPTIONS)
    errors = [mtd.relative_error(run.target, TARGET, max_shift=2) for run in (recovered, plain)]
    assert errors[0] < 0.35
    assert errors[0] < 0.92 * errors[1]
    # of 32, over six measurements: 34 to 38 (18 to 25 in the white model)
    assert recovered.expected_count == pytest.approx(len(made.positions), rel=0.25)
    assert recovered.likelihood.whitening.background
    assert "the noise is not white" in recovered.noise
    assert recovered.summary()["noise"] == recovered.noise
    # the filtered noise is white: what is left beside the copies has the noise level
    assert recovered.residual_std == pytest.approx(recovered.noise_std, rel=0.02)


def test_white_noise_gives_the_bits_of_the_white_model(made):
    auto, plain = (mtd.recover(made.measurement, noise=noise, **OPTIONS) for noise in ("auto", "white"))
    assert auto.target.tobytes() == plain.target.tobytes()
    assert auto.history[-1].objective == plain.history[-1].objective
    assert (auto.noise, auto.likelihood.whitening) == ("white", None)


@pytest.mark.parametrize("after", [3, 8, 15])
def test_a_continued_run_has_the_same_bits(in_pink_noise, recovered, tmp_path, after):
    def stop(state):
        save_checkpoint(tmp_path / "state", state, {})
        return state.iteration == after

    mtd.recover(in_pink_noise, callback=stop, **OPTIONS)
    again = mtd.recover(in_pink_noise, state=load_checkpoint(tmp_path / "state", {}), **OPTIONS)
    assert again.target.tobytes() == recovered.target.tobytes()
    assert again.evidence == recovered.evidence


def test_a_record_holds_the_filter_exactly(recovered):
    record = json.loads(json.dumps(likelihood_record(recovered.likelihood)))
    read = likelihood_from_record(record)
    assert read.whitening.kernel.tobytes() == recovered.likelihood.whitening.kernel.tobytes()
    assert read.whitening.cutoff == recovered.likelihood.whitening.cutoff
    assert len(json.dumps(record)) < 20_000


def test_everything_sees_the_filtered_data(in_pink_noise, recovered):
    """A recovery from data that were filtered before, with filtered views, is the same model."""
    model = recovered.likelihood
    pixels = np.asarray(model.whitened(open_measurement(in_pink_noise)))
    shown = replace(model, views=model.shown, whitening=None, offset=0.0)
    for found, expected in (
        (
            mtd.e_step(in_pink_noise, recovered.target, model, CPU),
            mtd.e_step(pixels, recovered.target, shown, CPU),
        ),
    ):
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-4)
        np.testing.assert_allclose(found.right, expected.right, atol=1e-3 * np.abs(expected.right).max())
    ours, theirs = (
        detect(data, recovered.target, likelihood, CPU)
        for data, likelihood in ((in_pink_noise, model), (pixels, shown))
    )
    assert np.array_equal(ours.row, theirs.row)
    maps = [
        next(posterior_maps(d, recovered.target, m, CPU))
        for d, m in ((in_pink_noise, model), (pixels, shown))
    ]
    np.testing.assert_allclose(*maps, atol=1e-3)


def test_null_runs_have_the_learned_noise(in_pink_noise, recovered):
    whitening = recovered.likelihood.whitening
    source = open_measurement(np.random.default_rng(0).standard_normal((SIDE, SIDE)))
    noise = np.asarray(coloured(source, whitening))
    again = np.asarray(filtered(open_measurement(noise), whitening.kernel))
    rough, white = (np.abs(np.fft.rfft2(x - x.mean())) ** 2 / x.size for x in (noise, again))
    assert rough[1:9, 1:9].mean() > 5.0 * rough[40:80, 40:80].mean()
    assert white[8:24, 8:24].mean() == pytest.approx(white[40:80, 40:80].mean(), rel=0.2)
    (null,) = null_runs(in_pink_noise, recovered.likelihood, 1, **OPTIONS)
    assert null.likelihood.whitening is not None
    assert null.evidence < 0.5 * recovered.evidence


@pytest.mark.parametrize(
    "more",
    [
        {"likelihood": "patch", "noise": "spectrum"},
        {"micrographs": "each"},
        {"classes": 2, "prior": None, "update": mtd.ExactUpdate(), "initial": "random"},
        {"rotations": 12, "coarse_rotations": 6},
        {"online": mtd.OnlineEM(2)},
        {"noise": "spectrum", "noise_std": "auto"},
    ],
)
def test_every_kind_of_run_takes_the_filter(in_pink_noise, more):
    stack = np.stack([in_pink_noise] * 2)
    found = mtd.recover(stack, **{**OPTIONS, "iterations": 8, **more})
    assert found.likelihood.whitening.background
    assert np.isfinite(found.target).all()


def test_behind_a_transfer_a_run_begins_white(in_pink_noise):
    """A background was seen in whitened micrographs with CTFs, and taken off with the copies: nothing was found."""
    stack, seen = np.stack([in_pink_noise] * 2), []
    transfer = mtd.Micrographs(np.ones(2), transfer=np.full((2, 33), 0.9))

    def first(state):
        seen.append(state.likelihood.whitening)
        return True

    for more in ({"micrographs": transfer}, {"micrographs": transfer, "noise": "spectrum"}, {}):
        mtd.recover(stack, callback=first, **{**OPTIONS, "starts": 1, **more})
    assert [one is None for one in seen] == [True, False, False]


def test_a_given_noise_level_stays(in_pink_noise, made):
    found = mtd.recover(in_pink_noise, noise_std=made.noise_std, **OPTIONS)
    assert found.noise_std == made.noise_std
    assert found.residual_std == pytest.approx(made.noise_std, rel=0.1)


def test_the_published_method_takes_noise_to_be_white(in_pink_noise):
    for more in ({"likelihood": "patch"}, {"update": mtd.GradientAscent(1e-3)}):
        assert mtd.recover(in_pink_noise, **{**OPTIONS, "iterations": 4, **more}).likelihood.whitening is None


def test_what_cannot_be_is_refused():
    with pytest.raises(ParameterError, match='noise must be "auto", "white" or "spectrum"; got \'pink\''):
        mtd.recover(np.zeros((40, 40)), box_size=8, noise="pink")
    small = np.random.default_rng(0).standard_normal((9, 14, 14))
    with pytest.raises(ParameterError, match=r'a noise spectrum needs .* give noise="white"'):
        mtd.recover(small, box_size=4, noise="spectrum", iterations=2)
    assert mtd.recover(small, box_size=4, iterations=2).likelihood.whitening is None


def test_the_views_of_a_likelihood_stay_those_of_the_target(recovered):
    model = recovered.likelihood
    assert model.views == Rotations(4, BOX)
    assert model.shown.target_shape == model.views.target_shape
    assert model.with_whitening(None).shown is model.views


def test_a_filter_that_hides_the_copies_is_refused_and_that_is_said(made, monkeypatch):
    """One that lets only the finest details through: nothing of the copies is left to find."""
    side = 4 * BOX
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    blinding = Whitening(np.where(frequency < 0.4, 50.0, 1.0))
    monkeypatch.setattr(loop, "noise_filter", lambda *args: blinding)
    with pytest.warns(Doubt, match="hides the copies too"):
        kept = mtd.recover(made.measurement, **OPTIONS)
    plain = mtd.recover(made.measurement, noise="white", **OPTIONS)
    assert kept.likelihood.whitening is None
    assert kept.target.tobytes() == plain.target.tobytes()
    asked = mtd.recover(made.measurement, noise="spectrum", **OPTIONS)
    assert asked.likelihood.whitening is blinding
